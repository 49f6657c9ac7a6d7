"""Model files from strangers: each published hole has a file of its kind, which is refused."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from dml_tf import Cohort, networks
from dml_tf.errors import FileRefused
from dml_tf.networks import trusted

SHAPE = (8, 8, 1)
MEMBERS = ("metadata.json", "config.json", "model.weights.h5")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The members of a small network's file, name -> bytes."""
    net = networks.build("resnet8:2", num_classes=3, input_shape=SHAPE, seed=0)
    file = tmp_path_factory.mktemp("net") / "net.keras"
    net.save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in MEMBERS}


def pack(members, folder, compression=zipfile.ZIP_STORED):
    file = folder / "stranger.keras"
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def with_config(parts, change):
    """The members with another config; `change` gets it and may return a new one."""
    config = json.loads(parts["config.json"])
    config = change(config) or config
    return {**parts, "config.json": json.dumps(config)}


def with_weights(parts, change):
    """The members with other HDF5; `change` gets the open file."""
    stream = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    return {**parts, "model.weights.h5": stream.getvalue()}


def layer(module, name, config, registered=None):
    return {
        "module": module, "class_name": name, "config": {"name": "guest", **config},
        "registered_name": registered, "name": "guest", "inbound_nodes": [],
    }  # fmt: skip


def beside(*layers):
    """A change of a config that puts layers in the place of the first ones."""

    def change(config):
        config["config"]["layers"][: len(layers)] = layers

    return change


def test_a_network_comes_back_with_its_weights_and_not_compiled(tmp_path):
    net = networks.build("mobilenet_short:0.25", num_classes=3, input_shape=(16, 16, 3), seed=0)
    net.save(tmp_path / "net.keras")
    loaded = trusted.load_model(tmp_path / "net.keras")
    for ours, theirs in zip(loaded.variables, net.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(images)["logits"], net(images)["logits"])
    assert not loaded.compiled


def test_a_cohort_comes_back_and_can_be_compiled(tmp_path):
    peers = [networks.build("resnet8:2", num_classes=3, input_shape=SHAPE, dropout=0.5, seed=k)
             for k in range(2)]  # fmt: skip
    cohort = Cohort(peers)
    cohort.compile("sgd")
    cohort.save(tmp_path / "cohort.keras")
    loaded = trusted.load_model(tmp_path / "cohort.keras")
    for ours, theirs in zip(loaded.variables, cohort.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.optimizers == []
    loaded.compile("sgd")


def test_plain_layers_of_keras_can_be_read(tmp_path):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Normalization(mean=0.5, variance=2.0)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.SeparableConv2D(4, 3, padding="same", activation="relu6")(x)
    x = keras.layers.Concatenate()([x, keras.layers.Activation(keras.activations.silu)(x)])
    x = keras.layers.Flatten()(x[:, ::2] * 2.0)
    net = keras.Model(images, keras.layers.Dense(3, kernel_regularizer="l2")(x))
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    net.save(tmp_path / "net.keras")
    batch = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(trusted.load_model(tmp_path / "net.keras")(batch), net(batch))


def test_classes_of_the_users_own_code_need_its_name(tmp_path):
    @keras.saving.register_keras_serializable(package="guests")
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    images = keras.Input(SHAPE)
    keras.Model(images, Doubled()(images)).save(tmp_path / "own.keras")
    with pytest.raises(FileRefused, match="Doubled.*not on the list"):
        trusted.load_model(tmp_path / "own.keras")
    assert trusted.load_model(tmp_path / "own.keras", allow=[__name__])


BYTECODE = "4wAAAAA="  # stands for marshalled Python
GADGET = {"module": "keras.utils", "class_name": "function", "config": "get_file",
          "registered_name": "get_file"}  # fmt: skip
CALLED = {"args": [{"class_name": "__keras_tensor__", "config": {
    "shape": [None, 8, 8, 1], "dtype": "float32", "keras_history": ["images", 0, 0]}}]}  # fmt: skip
HOLES = {
    "CVE-2024-3660, a Lambda layer": layer(
        "keras.layers", "Lambda",
        {"function": {"class_name": "__lambda__", "config": {"value": [BYTECODE, None, None]}}},
    ),
    "CVE-2025-1550, any module and function": layer("os", "system", {"arg": "id"}),
    "CVE-2025-1550, as a function": layer(
        "keras.layers", "Activation",
        {"activation": {"module": "os", "class_name": "function", "config": "system",
                        "registered_name": "system"}},
    ),
    "CVE-2025-8747, a function of keras.utils": layer(
        "keras.layers", "Activation", {"activation": GADGET}
    ),
    "CVE-2025-8747, get_file as a class": layer(
        "keras.utils", "get_file", {"origin": "file:///etc/passwd"}
    ),
    "CVE-2025-9906, safe mode switched off": layer(
        "keras.config", "enable_unsafe_deserialization", {}
    ),
    "CVE-2025-12058, a vocabulary from a file": layer(
        "keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}
    ),
    "CVE-2025-12058, from the network": layer(
        "keras.layers", "IntegerLookup", {"vocabulary": "gs://bucket/words.txt"}
    ),
    "CVE-2026-1462, a SavedModel elsewhere": layer(
        "keras.layers", "TFSMLayer", {"filepath": "saved_model", "call_endpoint": "serve"}
    ),
    "CVE-2026-12479, a layer's name leads out": layer("keras.layers", "ReLU", {"name": ".."}),
    "a pickle of PyTorch": layer("keras.layers", "TorchModuleWrapper", {"module": BYTECODE}),
    "a layer of JAX": layer("keras.layers", "JaxLayer", {"call_fn": GADGET}),
    "any function for tf.data": layer("keras.src.ops.core", "Map", {}),
    "another name for a plain layer": layer("keras.layers", "ReLU", {}, "guests>Evil"),
    "an unknown layer in a known one": layer(
        "keras.layers", "TimeDistributed", {"layer": layer("os", "system", {})}
    ),
    "a path in a known layer": layer("keras.layers", "Dense", {"units": 3, "extra": "../x"}),
}  # fmt: skip


@pytest.mark.parametrize("hole", HOLES.values(), ids=HOLES.keys())
def test_a_config_with_a_published_hole_is_refused(hole, parts, tmp_path):
    file = pack(with_config(parts, beside(hole)), tmp_path)
    with pytest.raises(FileRefused, match=r"stranger.keras is refused: .*(list|path)"):
        trusted.load_model(file)


def test_a_hole_in_what_is_not_used_is_refused_too(parts, tmp_path):
    def change(config):
        config["compile_config"] = {"loss": GADGET}

    with pytest.raises(FileRefused, match="keras.utils.get_file"):
        trusted.load_model(pack(with_config(parts, change), tmp_path))


def test_a_function_called_on_a_layers_inputs_is_refused(parts, tmp_path):
    def change(config):
        config["config"]["layers"][1]["inbound_nodes"] = [{**CALLED, "kwargs": {"f": GADGET}}]

    with pytest.raises(FileRefused, match="keras.utils.get_file"):
        trusted.load_model(pack(with_config(parts, change), tmp_path))


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_models_in_the_old_form_are_refused_unopened(suffix, tmp_path):  # CVE-2025-9905
    file = tmp_path / f"old{suffix}"
    lambda_layer = {"class_name": "Lambda", "config": {"function": [BYTECODE, None, None]}}
    model = {"class_name": "Sequential", "config": {"layers": [lambda_layer]}}
    with h5py.File(file, "w") as opened:
        opened.attrs["model_config"] = json.dumps(model)
    with pytest.raises(FileRefused, match="old .h5 form"):
        trusted.load_model(file)
    with pytest.raises(FileRefused, match=".weights.h5"):
        trusted.load_weights(None, file)


def first_array(file):
    """Name of the first array in an HDF5 file."""
    names = []
    file.visititems(lambda name, found: names.append(name) if hasattr(found, "shape") else None)
    return names[0]


def external_storage(file):
    name = first_array(file)
    shape = file[name].shape
    del file[name]
    bytes_ = 4 * int(np.prod(shape))
    file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, bytes_)])


def virtual(file):
    name = first_array(file)
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape)
    file.create_virtual_dataset(name, layout)


def external_link(file):
    name = first_array(file)
    del file[name]
    file[name] = h5py.ExternalLink("/etc/passwd", "x")


def soft_link(file):
    file["soft"] = h5py.SoftLink("/" + first_array(file))


def circle(file):
    file.create_group("a")["b"] = file["/"]


def huge_shape(file):
    file.create_dataset("bomb", (2**40,), "f4", chunks=(1024,))


def packed(file):
    file.create_dataset("zeros", data=np.zeros(10**6, "f4"), compression="gzip")


def texts(file):
    file["words"] = ["a", "b"]


def bare_type(file):
    file["type"] = np.dtype("f4")


BAD_HDF5 = {
    "CVE-2026-1669, external storage": (external_storage, "another file"),
    "CVE-2026-12480, a virtual data set": (virtual, "virtual"),
    "an external link": (external_link, "ExternalLink"),
    "a soft link": (soft_link, "SoftLink"),
    "a circle of links": (circle, "second time"),
    "CVE-2026-0897, a huge shape": (huge_shape, "stores less"),
    "arrays that unpack": (packed, "compressed"),
    "texts": (texts, "not of numbers"),
    "a type": (bare_type, "neither a group nor an array"),
}


@pytest.mark.parametrize("case", BAD_HDF5.values(), ids=BAD_HDF5.keys())
def test_hdf5_with_more_than_plain_arrays_is_refused(case, parts, tmp_path):
    change, reason = case
    members = with_weights(parts, change)
    with pytest.raises(FileRefused, match=f"model.weights.h5 of .* is refused: .*{reason}"):
        trusted.load_model(pack(members, tmp_path))
    weights = tmp_path / "stranger.weights.h5"
    weights.write_bytes(members["model.weights.h5"])
    with pytest.raises(FileRefused, match=reason):
        trusted.load_weights(None, weights)


def test_weights_that_do_not_fit_are_refused(parts, tmp_path):
    weights = tmp_path / "net.weights.h5"
    weights.write_bytes(parts["model.weights.h5"])
    other = networks.build("resnet8:4", num_classes=3, input_shape=SHAPE)
    with pytest.raises(FileRefused, match="do not fit resnet8"):
        trusted.load_weights(other, weights)
    same = networks.build("resnet8:2", num_classes=3, input_shape=SHAPE, seed=7)
    trusted.load_weights(same, weights)
    np.testing.assert_array_equal(
        same.get_weights()[0], trusted.load_model(pack(parts, tmp_path)).get_weights()[0]
    )


def test_a_model_larger_than_its_weights_is_refused_before_it_takes_memory(parts, tmp_path):
    def change(config):
        dense = next(each for each in config["config"]["layers"] if each["class_name"] == "Dense")
        dense["config"]["units"] = 2**40  # 36 TiB

    with pytest.raises(FileRefused, match=r"has 98956\d+ weights, and the file only"):
        trusted.load_model(pack(with_config(parts, change), tmp_path))
    networks.build("resnet8:2", num_classes=3, input_shape=SHAPE)  # the next model is not affected


def without(parts, name):
    return {key: value for key, value in parts.items() if key != name}


BAD_MEMBERS = {
    "CVE-2025-12638, a member that leads out": lambda parts: {**parts, "../../evil.txt": "x"},
    "CVE-2026-12479, assets": lambda parts: {**parts, "assets/../../evil.txt": "x"},
    "an absolute path": lambda parts: {**parts, "/tmp/evil.txt": "x"},
    "no config": lambda parts: without(parts, "config.json"),
    "no weights": lambda parts: without(parts, "model.weights.h5"),
    "NumPy's form of weights": lambda parts: {
        **without(parts, "model.weights.h5"), "model.weights.npz": b"PK"},
}  # fmt: skip


@pytest.mark.parametrize("change", BAD_MEMBERS.values(), ids=BAD_MEMBERS.keys())
def test_an_archive_with_other_members_is_refused(change, parts, tmp_path):
    with pytest.raises(FileRefused, match="has the members .* a model has exactly"):
        trusted.load_model(pack(change(parts), tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["stranger.keras"]


def test_a_member_that_stands_twice_is_refused(parts, tmp_path):
    file = pack(parts, tmp_path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(FileRefused, match="exactly"):
        trusted.load_model(file)


def test_compressed_members_are_refused(parts, tmp_path):
    bomb = {**parts, "metadata.json": " " * 10**7}
    with pytest.raises(FileRefused, match="metadata.json is compressed"):
        trusted.load_model(pack(bomb, tmp_path, zipfile.ZIP_DEFLATED))


def deep(config):
    for _ in range(150):
        config = {"a": config}
    return {"class_name": "Functional", "module": "keras", "config": config}


BAD_CONFIGS = {
    "no JSON": b"\xff{",
    "NaN": '{"class_name": "Functional", "module": "keras", "config": {"a": NaN}}',
    "levels": json.dumps(deep({})),
    "endless levels": '{"a":' * 100_000,
    "a list": "[]",
    "no model": json.dumps(layer("keras.initializers", "Zeros", {})),
    "a number in the place of a class": '{"class_name": 3, "config": {}}',
    "a list in the place of a function": json.dumps(
        {"class_name": "function", "module": "builtins", "config": ["relu"]}
    ),
    "a huge number": '{"class_name": "Functional", "module": "keras", "config": {"a": 1e400}}',
    "longest of numbers": '{"class_name": "ReLU", "module": "keras.layers", "config": {"a": 1%s}}'
    % ("0" * 5000),
    "nothing": "",
}


@pytest.mark.parametrize("config", BAD_CONFIGS.values(), ids=BAD_CONFIGS.keys())
def test_a_config_that_is_no_models_is_refused(config, parts, tmp_path):
    with pytest.raises(FileRefused, match="stranger.keras is refused"):
        trusted.load_model(pack({**parts, "config.json": config}, tmp_path))


def test_a_damaged_file_is_named(parts, tmp_path):
    whole = pack(parts, tmp_path).read_bytes()
    file = tmp_path / "damaged.keras"
    for content in (b"", b"PK", whole[:-30], whole[: len(whole) // 2], b"no archive" * 100):
        file.write_bytes(content)
        with pytest.raises(FileRefused, match="damaged.keras cannot be read"):
            trusted.load_model(file)
    middle = len(whole) - len(parts["model.weights.h5"]) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(FileRefused, match="Bad CRC"):
        trusted.load_model(file)
    with pytest.raises(FileNotFoundError, match="absent.keras"):
        trusted.load_model(tmp_path / "absent.keras")
