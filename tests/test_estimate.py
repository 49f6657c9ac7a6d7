"""Seconds of runs from measured steps."""

import pytest

from dml_tf.paper import estimate, plan, scales
from dml_tf.paper.estimate import Estimate
from dml_tf.runs import config


@pytest.fixture
def one_second_a_step(monkeypatch):
    class Steps(dict):
        def get(self, name):
            return None if "wrn" in name else 1.0

    known = {"machine": "a clock", "seconds": Steps()}
    monkeypatch.setattr(estimate.records, "read", lambda file: known)


def run(**settings):
    asked = {"dataset": "digits", "net": ("resnet8",), "steps": 30, **settings}
    return config.load(**asked)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 30),
        ({"steps": 0, "epochs": 5, "train_images": 200, "batch_size": 64}, 15),
        ({"cohort": 3, "method": "independent"}, 90),
        ({"cohort": 3}, 30 * 11 / 3),  # 4 K - 1 passes in place of 3 K
        ({"cohort": 3, "update": "simultaneous"}, 90),
        ({"cohort": 2, "method": "distill"}, 40),
        ({"dataset": "cifar10", "steps": 0, "epochs": 1, "validation_fraction": 0.5}, 390),
    ],
)
def test_a_run_takes_its_passes(one_second_a_step, settings, steps):
    seconds = Estimate().seconds(run(**settings))
    assert seconds - estimate._START_S == pytest.approx(steps)


def test_what_runs_took_here_corrects_the_rest(one_second_a_step):
    took = [{"wall_clock_s": 2 * (30 + estimate._START_S)}]
    here = Estimate([(run(), took[0])])
    assert here.measured_here and not Estimate().measured_here
    assert here.seconds(run(steps=100)) == 2 * Estimate().seconds(run(steps=100))


def test_runs_that_cannot_be_estimated_count_as_the_mean_of_the_others(one_second_a_step):
    unknown = run(net=("wrn-10-1",))
    assert Estimate().seconds(unknown) is None
    alone = Estimate().seconds(run())
    assert Estimate().total([run(), run(), unknown], jobs=2) == 1.5 * alone
    assert Estimate().total([unknown], jobs=1) is None


def test_a_step_of_every_declared_run_was_measured(tmp_path):
    for scale in scales.BY_NAME.values():
        for planned in plan.runs(scale, results_dir=str(tmp_path), seeds=1):
            assert Estimate().seconds(planned), planned.command
