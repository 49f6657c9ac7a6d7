"""Networks from outside in `--net`: those of keras.applications, and functions of the user."""

import keras
import numpy as np
import pytest

from dml_tf import networks
from dml_tf.errors import FlagError
from dml_tf.networks import pretrained, size, trusted
from dml_tf.runs import build, config, train

SHAPE = (32, 32, 3)
FUNCTION = """
import keras

def small(input_shape, num_classes):
    outputs = keras.layers.Dense(num_classes)
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), outputs])

def subclassed(input_shape, num_classes):
    return keras.Model()

def other(input_shape, num_classes):
    return small((2, 2, 1), num_classes)

def trained(input_shape, num_classes):
    images = keras.Input(input_shape)
    body = keras.Sequential([keras.Input(input_shape), keras.layers.Conv2D(2, 3)], name="body")
    body.set_weights([7 + 0 * weight for weight in body.get_weights()])
    seeded = keras.layers.Conv2D(2, 3, kernel_initializer=keras.initializers.HeNormal(seed=1))
    maps = keras.layers.Flatten()(seeded(keras.layers.Conv2D(2, 3)(body(images))))
    return keras.Model(images, keras.layers.Dense(num_classes)(maps))
"""


def built(name="mobilenetv3small", **options):
    return networks.build(name, num_classes=3, input_shape=SHAPE, **options)


def first_kernel(network):
    return next(w for w in network.trainable_weights if w.path.endswith("kernel"))


def test_a_network_of_keras_applications_repeats_by_seed_and_has_weight_decay():
    one, same, other = built(seed=1), built(seed=1, weight_decay=0.5), built(seed=2)
    assert all(map(np.array_equal, one.get_weights(), same.get_weights()))
    assert not np.array_equal(first_kernel(one), first_kernel(other))
    assert not one.losses
    found = size.measure("mobilenetv3small", num_classes=3, input_shape=SHAPE)
    assert found.parameters == one.count_params() and found.smallest_map == 1
    assert found.activations > found.largest > 16 * 16 * 16
    kernels = [w for w in same.trainable_weights if w.path.endswith("kernel")]
    by_hand = sum(0.25 * np.sum(np.square(kernel)) for kernel in kernels)
    assert float(sum(same.losses)) == pytest.approx(float(by_hand), rel=1e-4)


def test_normalised_images_give_the_features_that_keras_gives_for_its_pixels(tmp_path):
    """So trained weights, which `pretrained` copies, see what they were trained on."""
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
    ours = networks.build("MobileNetV2", num_classes=3, input_shape=SHAPE, mean=mean, std=std)
    theirs = keras.applications.MobileNetV2(SHAPE, include_top=False, weights=None, pooling="avg")
    pretrained._copy(theirs, ours, "Keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype("float32")
    expected = theirs(keras.applications.mobilenet_v2.preprocess_input(pixels.copy()))
    found = ours((pixels / 255 - mean) / std)["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    ours.save(tmp_path / "net.keras")
    again = trusted.load_model(tmp_path / "net.keras")((pixels / 255 - mean) / std)["features"]
    np.testing.assert_allclose(again, found, rtol=1e-5)
    assert ours.name == "mobilenetv2" and ours.output["logits"].shape == (None, 3)


def test_every_name_of_keras_applications_is_known_and_the_papers_come_first():
    names = [name for name in dir(keras.applications) if name[0].isupper()]
    assert len(names) > 30
    for name in names:
        assert networks.parse(name.lower())[0] == name.lower()
        body = networks.parse(f"keras.applications:{name}")[1]
        assert body.keywords["make"] is getattr(keras.applications, name)
    assert not any(map(networks.application, ("resnet50", "mobilenet", "resnet31", "resnet8:16")))


def test_images_that_a_network_cannot_take_are_refused_by_name():
    with pytest.raises(ValueError, match="'xception' cannot take images of shape"):
        networks.build("xception", num_classes=3, input_shape=(4, 4, 3))


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_networks", raising=False)


def test_a_function_of_ones_own_is_trained_by_its_name(my_module, tmp_path):
    nets = ("my_networks:small", "resnet8:4")
    run = config.load(
        dataset="digits", net=nets, cohort=2, steps=2, batch_size=8, train_images=16,
        results_dir=str(tmp_path / "results"),
    )  # fmt: skip
    assert run.run_id.startswith("digits-dml-my_networks.small+resnet8w4-seed0")
    record = train.run(run, verbose=0)
    assert record["parameters"]["small"] == 16 * 16 * 10 + 10
    loaded = keras.saving.load_model(next((tmp_path / "results").rglob("*.keras")))
    assert loaded.peer_names == ("small", "resnet8")
    with pytest.raises(FlagError, match="my_networks:small returns no features"):
        build.build_cohort(run.replace(analyse=True), build.load_data(run))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_networks:subclassed", "must return a functional or sequential keras.Model"),
        ("my_networks:other", r"for inputs of shape \(2, 2, 1\)"),
        ("my_networks:absent", "the module 'my_networks' has no 'absent'"),
        ("no_such_module:small", "there is no module 'no_such_module'"),
        ("resnet8:wide", "Width 'wide' in network 'resnet8:wide' is not a number"),
    ],
)
def test_a_function_that_makes_no_network_is_refused(my_module, name, message):
    with pytest.raises(ValueError, match=message):
        networks.build(name, num_classes=3, input_shape=SHAPE)


def test_a_mistake_in_a_module_is_shown_as_it_is(my_module, tmp_path):
    (tmp_path / "my_typos.py").write_text("import keras\nkeras.layers.Conv2d")
    with pytest.raises(AttributeError, match="Conv2d"):
        networks.build("my_typos:small", num_classes=3, input_shape=SHAPE)


def test_weights_that_a_function_gives_are_kept_and_all_others_drawn_by_the_seed(
    tmp_path, monkeypatch
):
    (tmp_path / "with_weights.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    one, same, other = (built("with_weights:trained", seed=seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, one.get_weights(), same.get_weights()))
    body, plain, seeded, dense = ([net.trainable_weights[i] for net in (one, other)]
                                  for i in (0, 2, 4, 6))  # fmt: skip
    assert all((weight.numpy() == 7).all() for weight in body)
    for first, second in (plain, seeded, dense):
        assert not np.array_equal(first, second)
