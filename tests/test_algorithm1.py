"""The reader's edition of Algorithm 1 makes the library's step, bit for bit."""

import importlib.util
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dml_tf import Cohort

EXAMPLE = Path(__file__).parent.parent / "examples" / "algorithm1.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("algorithm1", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights_of(networks):
    return [weight.numpy() for network in networks for weight in network.weights]


def ends_of(example, make_step, **options):
    """Start and end of the example's networks, and end of a cohort's from the same start."""
    theirs, ours = example.build_networks(seed=0), example.build_networks(seed=0)
    start = weights_of(theirs)
    for network, same in zip(ours, theirs, strict=True):
        network.set_weights(same.get_weights())
    step = make_step(*theirs, example.build_optimizer(), example.build_optimizer())
    cohort = Cohort(ours, **options)
    cohort.compile([example.build_optimizer() for _ in ours])
    train_step = tf.function(cohort.train_step, autograph=False)
    train_part, _ = example.load_data()
    for batch in islice(example.batches(*train_part, seed=0, epoch=0), 6):
        step(*batch)
        train_step(batch)
    return start, weights_of(theirs), weights_of(ours)


def assert_equal(ours, theirs):
    for value, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(value, other)


def test_the_readers_edition_trains_as_the_library_bit_for_bit(example):
    start, theirs, ours = ends_of(example, example.make_mutual_step)
    assert_equal(ours, theirs)
    assert max(np.abs(a - b).max() for a, b in zip(start, ours, strict=True)) > 0.01


def test_its_independent_networks_are_a_cohort_without_mimicry(example):
    _, theirs, ours = ends_of(example, example.make_independent_step, mimicry="none")
    assert_equal(ours, theirs)


@pytest.mark.parametrize("mutant", [{"update": "simultaneous"}, {"mimicry": "js"}])
def test_another_algorithm_ends_with_other_weights(example, mutant):
    _, theirs, ours = ends_of(example, example.make_mutual_step, **mutant)
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        assert_equal(ours, theirs)


def test_it_prints_a_line_for_each_epoch_and_a_table(example, monkeypatch, capsys):
    monkeypatch.setattr(example, "EPOCHS", 1)
    monkeypatch.setattr(example, "SEEDS", (0, 1))
    example.main()
    printed = capsys.readouterr().out
    assert printed.count("epoch  1 of 1") == 2
    rows = [line for line in printed.splitlines() if line.startswith(("convolutional", "dense"))]
    assert len(rows) == 2 and all(row.count("±") == 3 for row in rows)


def test_it_stands_alone_and_fits_on_a_few_screens():
    text = EXAMPLE.read_text()
    assert "import dml_tf" not in text and "from dml_tf" not in text
    assert len(text.splitlines()) < 250
