"""The official archives of CIFAR and Fashion-MNIST, and folders of pictures, in true formats."""

import builtins
import codecs
import gzip
import io
import os
import pickle
import socket
import struct
import sys
import tarfile
import types
from types import SimpleNamespace

import numpy as np
import pytest

from dml_tf.data import DATASETS, GENERATED_DATASETS, identify, load
from dml_tf.data.sources import archives
from dml_tf.data.sources.archives import unpickle_arrays
from dml_tf.errors import DataWarning

CIFAR10_NAMES = ("airplane automobile bird cat deer dog frog horse ship truck").split()
CIFAR100_NAMES = [f"fine_{number}" for number in range(100)]
OFFICIAL_TEST_LABELS = [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
IDX_NAMES = [
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]


def config(dataset, data_dir, **changes):
    settings = dict(
        dataset=dataset,
        data_dir=str(data_dir),
        image_size=0,
        train_images=0,
        validation_fraction=0.0,
        labelled_fraction=1.0,
        unlabelled="use",
        seed=0,
    )
    return SimpleNamespace(**settings | changes)


def planes(count, seed=0):
    """Pixels as the archives store them, shape `(count, 3072)`: red, green, blue plane."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar_files(dataset, form, count=6):
    """File contents of an official archive by name, with its folder's name."""
    fine = dataset == "cifar100"
    classes = 100 if fine else 10
    batches = (
        ["train", "test"] if fine else [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    )
    files = {}
    for seed, name in enumerate(batches):
        pixels, labels = planes(count, seed), (np.arange(count) * 7 + seed) % classes
        if form == "binary":
            heads = np.stack([labels // 5, labels], 1) if fine else labels[:, None]
            files[f"{name}.bin"] = np.hstack([heads.astype(np.uint8), pixels]).tobytes()
        else:
            key = "fine_labels" if fine else "labels"
            content = {"data": pixels, key: labels.tolist(), "batch_label": name}
            files[name] = pickle.dumps(content, protocol=2)
    names = CIFAR100_NAMES if fine else CIFAR10_NAMES
    if form == "binary":
        listing = "\n".join(names) + "\n\n"
        files["fine_label_names.txt" if fine else "batches.meta.txt"] = listing.encode()
    elif fine:
        files["meta"] = pickle.dumps({"fine_label_names": names}, protocol=2)
    else:
        files["batches.meta"] = pickle.dumps({"label_names": names}, protocol=2)
    folders = {
        ("cifar10", "binary"): "cifar-10-batches-bin",
        ("cifar10", "python"): "cifar-10-batches-py",
        ("cifar100", "binary"): "cifar-100-binary",
        ("cifar100", "python"): "cifar-100-python",
    }
    return files, folders[dataset, form]


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_tar(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def tar_name(dataset, form):
    return f"{dataset.replace('cifar', 'cifar-')}-{form}.tar.gz"


@pytest.mark.parametrize("packing", ["its own folder", "parent folder", "tar.gz", "tar.gz itself"])
@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_official_archive_loads_with_pixels_and_labels_in_place(tmp_path, dataset, form, packing):
    files, folder = cifar_files(dataset, form)
    where = tmp_path
    if packing.startswith("tar.gz"):
        write_tar(tmp_path / tar_name(dataset, form), folder, files)
        where = tmp_path / tar_name(dataset, form) if packing.endswith("itself") else tmp_path
    else:
        write_folder(tmp_path / folder, files)
        where = tmp_path / folder if packing.startswith("its own") else tmp_path
    splits = load(config(dataset, where))
    batches = 5 if dataset == "cifar10" else 1
    assert splits.train.images.shape == (6 * batches, 32, 32, 3)
    assert splits.test.images.shape == (6, 32, 32, 3)
    assert splits.num_classes == (10 if dataset == "cifar10" else 100)
    assert splits.class_names == tuple(CIFAR10_NAMES if dataset == "cifar10" else CIFAR100_NAMES)
    last = splits.train.images[6 * (batches - 1) + 2]  # Image 2 of the last training file.
    stored = planes(6, seed=batches - 1)[2].reshape(3, 32, 32)
    assert (last[5, 9] == stored[:, 5, 9]).all()
    assert splits.train.labels[6 * (batches - 1) + 2] == (14 + batches - 1) % splits.num_classes
    assert splits.test.labels.dtype == np.int64


def test_original_order_gives_the_plain_name_and_any_other_says_copy(tmp_path):
    files, folder = cifar_files("cifar10", "binary", count=10)
    write_folder(tmp_path / "copy" / folder, files)
    labels = np.array(OFFICIAL_TEST_LABELS, np.uint8)[:, None]
    files["test_batch.bin"] = np.hstack([labels, planes(10)]).tobytes()
    write_folder(tmp_path / "original" / folder, files)
    assert load(config("cifar10", tmp_path / "original")).name == "CIFAR-10"
    assert load(config("cifar10", tmp_path / "copy")).name == "CIFAR-10 (unofficial copy)"


def test_a_python_2_pickle_with_old_numpy_names_loads():
    # As Python 2 wrote them: str keys, and numpy.core.multiarray before NumPy 2 renamed it.
    pixels = planes(2)
    new = pickle.dumps({b"data": pixels}, protocol=2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != new
    for pickled in (new, old, pickle.dumps({"data": pixels}, protocol=5)):
        assert (unpickle_arrays(pickled, "batch")["data"] == pixels).all()


class Hostile:
    """Unpickling it would run a command that leaves a file behind."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "posix.system": lambda marker: Hostile(os.system, f"touch {marker}"),
    "builtins.exec": lambda marker: Hostile(builtins.exec, f"open({str(marker)!r}, 'w')"),
    "builtins.getattr": lambda marker: Hostile(getattr, "a", "upper"),
    "_codecs.lookup": lambda marker: Hostile(codecs.lookup, "utf-8"),
    "numpy.fromfile": lambda marker: Hostile(np.fromfile, str(marker)),
}


@pytest.mark.parametrize("place", ["folder", "tar.gz"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_python_archive_is_refused_before_anything_runs(tmp_path, name, place):
    files, folder = cifar_files("cifar10", "python")
    marker = tmp_path / "marker"
    content = pickle.loads(files["data_batch_3"])
    content["batch_label"] = HOSTILE[name](marker)
    files["data_batch_3"] = pickle.dumps(content, protocol=2)
    if place == "folder":
        write_folder(tmp_path / folder, files)
    else:
        write_tar(tmp_path / tar_name("cifar10", "python"), folder, files)
    module, _, function = name.partition(".")
    with pytest.raises(ValueError, match=rf"data_batch_3 .*{function}"):
        load(config("cifar10", tmp_path))
    assert not marker.exists()


def test_the_hostile_pickle_of_these_tests_would_have_worked(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(HOSTILE["posix.system"](marker)))
    assert marker.exists()


def test_a_hostile_list_of_class_names_is_refused_too(tmp_path):
    files, folder = cifar_files("cifar100", "python")
    marker = tmp_path / "marker"
    files["meta"] = pickle.dumps({"fine_label_names": HOSTILE["posix.system"](marker)})
    write_folder(tmp_path / folder, files)
    with pytest.raises(ValueError, match="meta is refused.*system"):
        load(config("cifar100", tmp_path))
    assert not marker.exists()


def other_member(name, type_=tarfile.REGTYPE, link="", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = type_, link, size
    return member


BATCH = "cifar-10-batches-bin/data_batch_1.bin"
MEMBERS = {
    "leads out": other_member("../escaped"),
    "leads out from inside": other_member("cifar-10-batches-bin/../../escaped"),
    "absolute": other_member("/tmp/escaped"),
    "link": other_member(BATCH, tarfile.SYMTYPE, "../../secret"),
    "CVE-2025-12638, a chain of links": other_member("a/b", tarfile.SYMTYPE, "a/" * 2000),
    "hard link": other_member(BATCH, tarfile.LNKTYPE, "/etc/passwd"),
    "device": other_member(BATCH, tarfile.CHRTYPE),
    "pipe": other_member(BATCH, tarfile.FIFOTYPE),
    "holes": other_member(BATCH, tarfile.GNUTYPE_SPARSE),
    "huge": other_member(BATCH, size=2**40),
}


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS.keys())
def test_an_archive_with_more_than_files_is_refused_and_nothing_written(tmp_path, member):
    files, folder = cifar_files("cifar10", "binary")
    path = tmp_path / tar_name("cifar10", "binary")
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            added = tarfile.TarInfo(f"{folder}/{name}")
            added.size = len(content)
            archive.addfile(added, io.BytesIO(content))
        archive.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz is (refused: its member|damaged)"):
        load(config("cifar10", path))
    assert [file.name for file in tmp_path.rglob("*")] == ["cifar-10-binary.tar.gz"]


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_OF_ONE", 100_000)
    files, folder = cifar_files("cifar10", "binary")
    write_folder(tmp_path / folder, without(files, "test_batch.bin"))
    with gzip.open(tmp_path / folder / "test_batch.bin.gz", "wb") as packed:
        packed.write(bytes(10**6))
    with pytest.raises(ValueError, match="test_batch.bin.gz is refused: it unpacks"):
        load(config("cifar10", tmp_path))


def without(files, name):
    return {key: content for key, content in files.items() if key != name}


DAMAGE = {
    "cut record": (
        lambda files: files | {"data_batch_2.bin": files["data_batch_2.bin"][:-1]},
        "3073",
    ),
    "empty file": (lambda files: files | {"test_batch.bin": b""}, "test_batch.bin has 0 bytes"),
    "wrong label": (lambda files: files | {"test_batch.bin": b"\x0a" + bytes(3072)}, "label 10"),
    "short names": (lambda files: files | {"batches.meta.txt": b"cat\ndog\n"}, "names 2 classes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_binary_files_are_named(tmp_path, damage):
    change, message = DAMAGE[damage]
    files, folder = cifar_files("cifar10", "binary")
    write_folder(tmp_path / folder, change(files))
    with pytest.raises(ValueError, match=message):
        load(config("cifar10", tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no pickle", "test_batch cannot be read as a pickle"),
        (pickle.dumps([1]), "contains no dictionary"),
        (pickle.dumps({"data": planes(2)}), "lacks labels"),
        (pickle.dumps({"data": planes(2), "labels": [1]}), r"\(2, 3072\)"),
        (pickle.dumps({"data": planes(1).astype(float), "labels": [1]}), "float64"),
        (pickle.dumps({"data": planes(1), "labels": None}), "no list of whole numbers"),
        (pickle.dumps({"data": planes(1), "labels": [10**30]}), "no list of whole numbers"),
        (pickle.dumps({"data": planes(1), "labels": [float("nan")]}), "no list of whole numbers"),
        (pickle.dumps({"data": planes(1), "labels": [-1]}), "no list of whole numbers"),
        (pickle.dumps({"data": None, "labels": [1]}), "no array of pixels"),
        (b"\x80\x02}r\xff\xff\xff\xff.", "numbers an object 4294967295"),
    ],
)
def test_damaged_python_files_are_named(tmp_path, content, message):
    files, folder = cifar_files("cifar10", "python")
    write_folder(tmp_path / folder, files | {"test_batch": content})
    with pytest.raises(ValueError, match=message):
        load(config("cifar10", tmp_path))


def test_a_cut_tar_is_damaged_and_a_missing_batch_is_named(tmp_path):
    files, folder = cifar_files("cifar10", "binary")
    path = tmp_path / tar_name("cifar10", "binary")
    write_tar(path, folder, files)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz is damaged"):
        load(config("cifar10", tmp_path))
    del files["data_batch_4.bin"]
    write_tar(path, folder, files)
    with pytest.raises(FileNotFoundError, match=r"but not data_batch_4\.bin"):
        load(config("cifar10", tmp_path))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "fashion_mnist"])
def test_the_message_about_missing_data_says_where_it_looked_and_what_to_do(
    tmp_path, dataset, monkeypatch
):
    def no_network(*arguments, **keywords):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    (tmp_path / "something else").touch()
    with pytest.raises(FileNotFoundError) as caught:
        load(config(dataset, tmp_path))
    message = str(caught.value)
    assert f"not found at {tmp_path}" in message
    assert "--data_dir=FOLDER" in message
    assert "--dataset=digits" in message
    assert ".gz" in message
    with pytest.raises(FileNotFoundError, match="mistyped does not exist"):
        load(config(dataset, tmp_path / "mistyped"))


def test_tensorflow_datasets_is_used_if_no_folder_is_given(monkeypatch, tmp_path):
    import tensorflow as tf

    columns = {"image": np.ones((4, 32, 32, 3), np.uint8), "label": np.arange(4)}
    label = types.SimpleNamespace(names=CIFAR10_NAMES)
    prepared = tmp_path / "dataset_info.json"
    builder = types.SimpleNamespace(
        data_path=tmp_path,
        url_infos={prepared.as_uri(): None},  # A reachable address.
        download_and_prepare=lambda: (tmp_path / "downloaded").touch(),
        as_dataset=lambda split: tf.data.Dataset.from_tensor_slices(columns),
        info=types.SimpleNamespace(features={"label": label}),
    )
    fake = types.ModuleType("tensorflow_datasets")
    fake.disable_progress_bar = lambda: None
    fake.builder = lambda name, data_dir: builder if (name, data_dir) == ("cifar10", None) else None
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    prepared.touch()
    splits = load(config("cifar10", ""))
    assert (splits.name, len(splits.train), splits.class_names[3]) == ("CIFAR-10", 4, "cat")
    assert splits.train.labels.tolist() == [0, 1, 2, 3]
    assert not (tmp_path / "downloaded").exists()
    (tmp_path / "there").touch()
    builder.url_infos = {(tmp_path / "there").as_uri(): None}
    prepared.unlink()
    load(config("cifar10", ""))
    assert (tmp_path / "downloaded").exists()


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def fashion_files(count=12):
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    return dict(zip(IDX_NAMES, [idx(images), idx(labels)] * 2, strict=True)), images


@pytest.mark.parametrize("place", ["", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_loads_from_idx_files(tmp_path, place, packed):
    files, images = fashion_files()
    if packed:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    write_folder(tmp_path / "data" / place, files)
    splits = load(config("fashion_mnist", tmp_path / "data"))
    assert splits.name == "Fashion-MNIST"
    assert splits.train.images.shape == (12, 28, 28, 1)
    assert (splits.test.images[..., 0] == images).all()
    assert splits.class_names[splits.train.labels[9]] == "Ankle boot"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (IDX_NAMES[0], lambda content: content[:-5], "incomplete"),
        (IDX_NAMES[1], lambda content: b"\0\0\x0d" + content[3:], "no IDX file"),
        (IDX_NAMES[2], lambda content: b"", "no IDX file"),
        (IDX_NAMES[3], lambda content: idx(np.zeros(3, np.uint8)), "do not fit together"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, name, change, message):
    files, _ = fashion_files()
    write_folder(tmp_path / "data", files | {name: change(files[name])})
    with pytest.raises(ValueError, match=message):
        load(config("fashion_mnist", tmp_path / "data"))


def test_a_damaged_gz_and_a_missing_idx_file_are_named(tmp_path):
    files, _ = fashion_files()
    write_folder(tmp_path / "cut", {f"{IDX_NAMES[0]}.gz": gzip.compress(files[IDX_NAMES[0]])[:-50]})
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        load(config("fashion_mnist", tmp_path / "cut"))
    write_folder(tmp_path / "part", {IDX_NAMES[0]: files[IDX_NAMES[0]]})
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte"):
        load(config("fashion_mnist", tmp_path / "part"))


def write_pictures(root, parts=("train", "test"), classes=("cat", "dog"), count=3, size=(20, 24)):
    import tensorflow as tf

    for part in parts:
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((*size, 3), 40 * label + 10 * number, np.uint8)
                pixels[..., 2] += len(part)  # so that no part has pictures of another
                png = tf.io.encode_png(pixels).numpy()
                (root / part / name / f"{number}.png").write_bytes(png)
    return root


def test_image_folder_loads_in_sorted_order_at_the_size_asked_for(tmp_path):
    write_pictures(tmp_path, parts=("train", "test", "validation"))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not a picture")
    with pytest.warns(DataWarning, match=r"train: 1 file \(cat/notes.txt\) skipped"):
        splits = load(config("image_folder", tmp_path, image_size=16))
    assert splits.train.images.shape == (6, 16, 16, 3)
    assert splits.train.images[:, 8, 8, 0].tolist() == [0, 10, 20, 40, 50, 60]
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.class_names == ("cat", "dog")
    assert len(splits.validation) == 6
    (tmp_path / "train" / "cat" / "notes.txt").unlink()
    assert load(config("image_folder", tmp_path)).test.images.shape == (6, 64, 64, 3)
    with pytest.raises(ValueError, match="validation images of its own"):
        load(config("image_folder", tmp_path, validation_fraction=0.5))


def test_image_folder_names_what_is_wrong(tmp_path):
    def refused(kind, message, **changes):
        with pytest.raises(kind, match=message):
            load(config("image_folder", tmp_path, image_size=8, **changes))

    refused(FileNotFoundError, "is empty.*FOLDER/train/CLASS")
    (tmp_path / "notes.txt").touch()
    refused(FileNotFoundError, "has no class folders")
    write_pictures(tmp_path, parts=("train",))
    refused(FileNotFoundError, "There is no folder .*test")
    write_pictures(tmp_path, parts=("test",), classes=("cat", "cow"))
    refused(ValueError, "differ in the classes cow, dog")
    (tmp_path / "test" / "cow").rename(tmp_path / "test" / "dog")
    for number in (1, 2):
        (tmp_path / "test" / "dog" / f"{number}.png").write_bytes(b"no picture")
    refused(ValueError, r"1\.png cannot be read as a picture (.|\n)*2\.png cannot be read")
    for path in (tmp_path / "test" / "dog").iterdir():
        path.unlink()
    refused(FileNotFoundError, "dog has no pictures")
    with pytest.raises(ValueError, match="--data_dir=FOLDER"):
        load(config("image_folder", ""))
    write_pictures(tmp_path / "single", classes=("cat",))
    with pytest.raises(ValueError, match="a single class, cat"):
        load(config("image_folder", tmp_path / "single"))


@pytest.mark.parametrize("dataset", sorted(set(DATASETS) - {"digits", *GENERATED_DATASETS}))
def test_an_empty_folder_is_refused_with_how_to_get_the_data(tmp_path, dataset):
    with pytest.raises(FileNotFoundError, match=r"is empty\. .*--data_dir=FOLDER"):
        identify(config(dataset, tmp_path))


@pytest.mark.skipif("DML_DATA_DIR" not in os.environ, reason="DML_DATA_DIR names no CIFAR-10")
def test_the_real_photographs_load_whole_or_in_part():
    splits = load(config("cifar10", os.environ["DML_DATA_DIR"], image_size=16, train_images=1000))
    assert splits.name in ("CIFAR-10", "CIFAR-10 (JPEG copy)")
    assert splits.class_names == tuple(CIFAR10_NAMES)
    assert splits.train.images.shape == (1000, 16, 16, 3)
    assert np.bincount(splits.train.labels).tolist() == [100] * 10
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10
    np.testing.assert_allclose(splits.mean, [0.491, 0.482, 0.447], atol=0.02)
