"""Entropy-SGD against nested loops in NumPy, its limits, its noise, and what it leaves behind."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dml_tf import Cohort
from dml_tf.method.entropy_sgd import LARGEST_PULL, EntropySGD

ENTROPY = {"langevin_steps": 4, "langevin_rate": 0.2, "langevin_average": 0.6, "scope": 0.3,
           "scope_growth": 0.1, "langevin_noise": 0.0}  # fmt: skip


def gradient_at(x):
    """Of x^4 / 4 - x, which is no line, so that order and place of the gradients matter."""
    return x * x * x - 1


def algorithm_1(x, moves, momentum, rate, L, eta, alpha, gamma, growth):
    """Entropy-SGD as nested loops; line 9 without gamma, as in the authors' code."""
    for move in range(moves):
        sample, mean, velocity = x.copy(), x.copy(), np.zeros_like(x)
        for _ in range(L):
            gradient = gradient_at(sample)
            velocity = momentum * velocity + gradient
            pull = gamma * (1 + growth) ** move * (x - sample)
            sample = sample - eta * (gradient + momentum * velocity - pull)
            mean = (1 - alpha) * mean + alpha * sample
        x = x - rate * (x - mean)
    return x


def langevin_steps(optimizer, weight, count):
    for _ in range(count):
        optimizer.apply([gradient_at(tf.convert_to_tensor(weight))], [weight])


def assert_algorithm_1(weight, start, *arguments):
    """Holds a weight against the nested loops, and returns what they give.

    The same loops in single precision differ from those in double precision by rounding only.
    TensorFlow rounds at other places: it may differ ten times as much.
    """
    oracle, rounded = (algorithm_1(start.astype(p), *arguments) for p in ("float64", "float32"))
    assert rounded.dtype == "float32"
    one_rounding = np.spacing(np.abs(rounded).max())
    tolerance = 10 * max(np.abs(rounded - oracle).max(), one_rounding)
    np.testing.assert_allclose(weight.numpy(), oracle, rtol=0, atol=tolerance)
    return oracle


START = np.array([0.5, -1.0, 1.5])


def started(**options):
    weight = keras.Variable(START, dtype="float32")
    optimizer = EntropySGD(**{**ENTROPY, **options})
    optimizer.build([weight])
    return optimizer, weight


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_entropy_sgd_is_algorithm_1(momentum, rate):
    optimizer, weight = started(learning_rate=rate, momentum=momentum)
    langevin_steps(optimizer, weight, 5 * 4)
    oracle = assert_algorithm_1(weight, START, 5, momentum, rate, 4, 0.2, 0.6, 0.3, 0.1)
    assert np.abs(oracle - START).min() > 0.1


def test_entropy_sgd_takes_the_schedules_rate_of_the_step_that_moves():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3, 7], [1.0, 0.5, 0.0])
    optimizer, weight = started(learning_rate=schedule)
    langevin_steps(optimizer, weight, 4)  # steps 0 to 3
    first = assert_algorithm_1(weight, START, 1, 0.0, 1.0, 4, 0.2, 0.6, 0.3, 0.1)
    langevin_steps(optimizer, weight, 4)  # 4 to 7
    second = weight.numpy()
    assert_algorithm_1(weight, first, 1, 0.0, 0.5, 4, 0.2, 0.6, 0.33, 0.1)
    langevin_steps(optimizer, weight, 4)
    np.testing.assert_array_equal(weight.numpy(), second)


def test_entropy_sgd_with_loops_of_one_step_is_sgd():
    optimizer, weight = started(learning_rate=0.5, langevin_steps=1)
    langevin_steps(optimizer, weight, 6)
    assert_is_sgd(weight, rate=0.5 * 0.6 * 0.2, steps=6)


def test_entropy_sgd_without_scope_that_moves_to_the_newest_sample_is_sgd():
    optimizer, weight = started(scope=0.0, langevin_average=1.0)
    langevin_steps(optimizer, weight, 10)
    assert_is_sgd(weight, rate=0.2, steps=10)


def assert_is_sgd(weight, rate, steps):
    """Holds a weight against Keras's SGD; a twin shows what its rounding comes to."""
    ends = []
    for start in (START, np.nextafter(START.astype("float32"), np.float32(9))):
        sgd, same = keras.optimizers.SGD(rate), keras.Variable(start, dtype="float32")
        langevin_steps(sgd, same, steps)
        ends.append(same.numpy())
    tolerance = 10 * max(np.abs(ends[1] - ends[0]).max(), np.spacing(np.abs(ends[0]).max()))
    np.testing.assert_allclose(weight.numpy(), ends[0], rtol=0, atol=tolerance)


def test_a_large_scope_keeps_the_samples_near():
    distances = []
    for scope in (0.0, 4.0):
        optimizer, weight = started(scope=scope, langevin_steps=10)
        before = weight.numpy()
        langevin_steps(optimizer, weight, 9)
        distances.append(np.abs(weight.numpy() - before))
    assert (distances[1] < 0.7 * distances[0]).all()


def late_steps(count, curvature, **options):
    """Distance from the minimum at 0 before each of `count` late steps, and after the last."""
    weight = keras.Variable(np.ones(3, "float32"))
    optimizer = EntropySGD(**{"momentum": 0.9, **options})
    optimizer.build([weight])
    optimizer.iterations.assign(180_000)
    distances = [1.0]
    for _ in range(count):
        optimizer.apply([curvature * tf.convert_to_tensor(weight)], [weight])
        distances.append(float(np.abs(weight.numpy()).max()))
    return distances


@pytest.mark.parametrize("curvature", [0.01, 1.0])
def test_late_steps_of_a_long_run_are_small_and_still_approach_the_minimum(curvature):
    distances = late_steps(3 * 20, curvature)
    assert max(distances) <= 1.0
    assert np.abs(np.diff(distances)).max() < 0.5
    assert distances[-1] < 0.99


def test_late_steps_diverge_without_the_bound(monkeypatch):
    monkeypatch.setattr("dml_tf.method.entropy_sgd.LARGEST_PULL", np.inf)
    assert not np.isfinite(late_steps(3 * 20, 1.0)).all()


def test_the_scope_grows_with_each_move_until_it_takes_half_of_a_langevin_step():
    optimizer = EntropySGD(langevin_rate=0.1, scope=0.03, scope_growth=1e-3)
    assert LARGEST_PULL == 0.5
    for move in (0, 1, 20, 1000, 5118):
        unbounded = 0.03 * 1.001 ** tf.constant(move, tf.float32)
        assert float(optimizer.scope_at(20 * move)) == float(unbounded)
        assert float(optimizer.scope_at(20 * move + 19)) == float(unbounded)
    for step in (20 * 5119, 130_110, 10**7):
        assert float(optimizer.scope_at(step)) == 5.0


def test_a_scope_above_the_bound_is_kept_and_does_not_grow():
    optimizer = EntropySGD(langevin_rate=0.2, scope=4.0, scope_growth=0.1)
    assert [float(optimizer.scope_at(step)) for step in (0, 10_000)] == [4.0, 4.0]


@pytest.mark.parametrize("options", [{"scope": 10.0}, {"langevin_rate": 40.0}])
def test_langevin_steps_that_overshoot_the_weights_are_refused(options):
    with pytest.raises(ValueError, match="must be below 1"):
        EntropySGD(**options)


def noise(steps=1, variables=1, **options):
    weights = [keras.Variable(np.zeros(20_000, "float32")) for _ in range(variables)]
    options = {"langevin_rate": 0.25, "langevin_noise": 0.3, "langevin_steps": 50, **options}
    optimizer = EntropySGD(**options, scope=0.0)
    drawn, before = [], np.zeros((variables, 20_000))
    for _ in range(steps):
        optimizer.apply([tf.zeros(20_000)] * variables, weights)
        after = np.stack([w.numpy() for w in weights])
        drawn += [*(after - before)]
        before = after
    return np.stack(drawn)


def test_langevin_noise_has_variance_rate_times_epsilon_squared():
    drawn = noise(steps=2, variables=2)
    np.testing.assert_allclose(drawn.var(axis=1), 0.25 * 0.3**2, rtol=0.05)
    np.testing.assert_allclose(drawn.mean(axis=1), 0, atol=4 * 0.15 / 20_000**0.5)


def test_langevin_noise_is_drawn_anew_for_each_step_variable_and_seed():
    drawn = np.concatenate([noise(steps=2, variables=2), noise(seed=1)])
    correlation = np.corrcoef(drawn) - np.eye(5)
    assert np.abs(correlation).max() < 0.05
    np.testing.assert_array_equal(noise(seed=1), drawn[4:])


def test_finalizing_within_a_loop_puts_the_weights_back():
    optimizer, weight = started()
    langevin_steps(optimizer, weight, 4)
    moved = weight.numpy()
    langevin_steps(optimizer, weight, 3)
    assert np.abs(weight.numpy() - moved).min() > 1e-3
    optimizer.finalize_variable_values([weight])
    np.testing.assert_array_equal(weight.numpy(), moved)


def test_finalizing_after_a_move_changes_nothing():
    optimizer, weight = started()
    langevin_steps(optimizer, weight, 8)
    moved = weight.numpy()
    optimizer.finalize_variable_values([weight])
    np.testing.assert_array_equal(weight.numpy(), moved)


def test_a_loop_starts_from_weights_that_were_loaded_after_building():
    optimizer, weight = started()
    weight.assign([2.0, 2.0, 2.0])
    langevin_steps(optimizer, weight, 4)
    assert_algorithm_1(weight, np.full(3, 2.0), 1, 0.0, 1.0, 4, 0.2, 0.6, 0.3, 0.1)


def test_entropy_sgd_resumes_from_a_file_as_if_it_had_never_stopped(tmp_path):
    def model():
        net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="net")
        cohort = Cohort([net])
        cohort.compile(EntropySGD(langevin_steps=3, langevin_noise=0.1, momentum=0.5))
        return cohort

    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 3)).astype("float32"), np.arange(8) % 2
    whole = model()
    whole.fit(images, labels, batch_size=2, shuffle=False, verbose=0)  # 4 steps: within a loop
    whole.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for cohort in (whole, again):
        cohort.fit(images, labels, batch_size=2, shuffle=False, verbose=0)
    assert int(again.optimizers[0].iterations) == 8
    for ours, theirs in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_entropy_sgd_refuses_accumulated_gradients():
    with pytest.raises(ValueError, match="larger batches"):
        EntropySGD(gradient_accumulation_steps=2)
