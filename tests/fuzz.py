"""Altered and random files for every reader: each is read, or refused in words.

A reader passes if it returns what its check holds for true, or raises one of the exceptions that
commands turn into a message. Another exception, a wrong value, or more than `LONGEST_S` is an
error that shows the input.
"""

import functools
import gzip
import io
import json
import pickle
import signal
import struct
import tarfile
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import numpy as np
from hypothesis import strategies as st
from PIL import Image

from dml_tf.data import arrays, pictures
from dml_tf.data.sources import archives, cifar, fashion_mnist, image_folder
from dml_tf.data.sources import market1501_tree as tree
from dml_tf.errors import FileRefused, FlagError, RecordMismatch, RunFailed

LONGEST_S = 20
REFUSED = (ValueError, OSError, FileRefused, FlagError, RecordMismatch, RunFailed)


class Reader(NamedTuple):
    """One reader.

    Attributes:
        seeds: Makes whole files of its kind, as bytes.
        read: Reads a file that has these bytes, and asserts what must be true of the result.
        share: Of the inputs, relative to the other readers; slow ones get fewer.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]
    share: float


def alter(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few changed, cut, repeated, zeroed or inserted."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = len(content)
        place = int(rng.integers(0, size + 1))
        length = int(min(rng.geometric(0.05), size - place))
        kind = rng.integers(0, 7)
        if kind <= 1 and place < size:
            content[place] = rng.integers(0, 256)
        elif kind == 2 and place < size:
            content[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 3:
            del content[place : size if rng.random() < 0.3 else place + length]
        elif kind == 4:
            content[place : place + length] = bytes([rng.choice([0, 255])]) * length
        elif kind == 5:
            content[place:place] = rng.bytes(length)
        else:
            content[place:place] = content[place : place + length]
    return bytes(content)


# The readers and their files


def npz() -> list[bytes]:
    whole = io.BytesIO()
    np.savez(whole, a=np.arange(6.0).reshape(2, 3), b=np.array(["x", "yy"]), c=np.array(3))
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros((50, 3), np.uint8), b=np.asfortranarray(np.eye(3)))
    return [whole.getvalue(), packed.getvalue()]


def read_npz(data: bytes, folder: Path):
    for array in arrays.read_npz(io.BytesIO(data)).values():
        assert not array.dtype.hasobject and array.nbytes <= 2000 * len(data)


def idx() -> list[bytes]:
    images = bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 4, 4) + bytes(80)
    return [images, bytes([0, 0, 8, 1]) + struct.pack(">I", 5) + bytes(range(5))]


def read_idx(data: bytes, folder: Path):
    array = fashion_mnist.read_idx(data, "file")
    assert array.dtype == np.uint8 and array.nbytes <= len(data)


def records() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [b"".join(bytes([k]) + rng.bytes(3072) for k in range(3))]


def read_records(data: bytes, folder: Path):
    _check_split(cifar._read_binary(data, "file", cifar._CIFAR10[0], 10))


def _check_split(split):
    assert split.images.dtype == np.uint8 and split.images.shape[1:] == (32, 32, 3)
    assert len(split.labels) == len(split.images) and 0 <= split.labels.min()
    assert split.labels.max() < 10


def pickles() -> list[bytes]:
    pixels, labels = np.zeros((2, 3072), np.uint8), [1, 2]
    names = [f"picture_{i}.png" for i in range(300)]
    content = {b"data": pixels, b"labels": labels, b"filenames": names, b"batch_label": b"batch 1"}
    return [pickle.dumps(content, protocol) for protocol in (0, 2, 5)]


def read_pickle(data: bytes, folder: Path):
    _check_split(cifar._read_pickle(data, "file", cifar._CIFAR10[1], 10))


def tars() -> list[bytes]:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name in ("a/x.bin", "a/y.bin", "b/z"):
            member = tarfile.TarInfo(name)
            member.size = 700
            archive.addfile(member, io.BytesIO(bytes(700)))
    return [whole.getvalue(), gzip.compress(whole.getvalue())]


def read_tar(data: bytes, folder: Path):
    file = folder / "archive.tar"
    file.write_bytes(data)
    found = dict(archives.tar_files(file, lambda name: name.startswith("a/"), mode="r"))
    assert all(name.startswith("a/") for name in found)
    assert sum(map(len, found.values())) <= 2000 * len(data)
    assert [path.name for path in folder.iterdir()] == [file.name]


def gz() -> list[bytes]:
    return [gzip.compress(bytes(1000)), gzip.compress(np.random.default_rng(0).bytes(500))]


def read_gz(data: bytes, folder: Path):
    (folder / "file.gz").write_bytes(data)
    archives.read_folder(folder, ["file"])


def encoded() -> list[bytes]:
    """Pictures in every format and mode."""
    rng, files = np.random.default_rng(0), []
    for mode, kinds in (
        ("RGB", ("JPEG", "PNG", "BMP", "GIF")), ("L", ("JPEG", "PNG", "BMP")),
        ("CMYK", ("JPEG",)), ("RGBA", ("PNG",)), ("P", ("PNG", "GIF", "BMP")), ("1", ("PNG",)),
    ):  # fmt: skip
        picture = Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).convert(mode)
        for kind in kinds:
            stream = io.BytesIO()
            picture.save(stream, kind)
            files.append(stream.getvalue())
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 2**16, (9, 7), np.uint16)).save(stream, "PNG")
    frames = [Image.fromarray(rng.integers(0, 256, (9, 7), np.uint8)) for _ in range(3)]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    return [*files, stream.getvalue(), moving.getvalue()]


def read_picture(data: bytes, folder: Path):
    pictures.Notes("folder").add(data, "file")
    pixels = pictures.decode_picture(data, "file")
    assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)
    assert pixels.size <= 3 * pictures.MOST_PIXELS


def decode_picture(data: bytes, folder: Path):
    """As `image_folder` does, whose decoder is TensorFlow's."""
    pictures.Notes("folder").add(data, "file")
    assert image_folder._decode(data, Path("file"), 8).shape == (8, 8, 3)


def zips() -> list[bytes]:
    whole, files = io.BytesIO(), encoded()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in tree.FOLDERS:
            archive.writestr(f"m/{name}/0001_c1s1_000001_01.jpg", files[0])
            archive.writestr(f"m/{name}/readme.txt", "text")
    return [whole.getvalue()]


def read_zip(data: bytes, folder: Path):
    file = folder / "market.zip"
    file.write_bytes(data)
    root = tree.find_tree(file)
    for name in tree.FOLDERS:
        for path, named in tree.list_pictures(root / name).pictures:
            assert 1 <= named.camid <= 6
            from dml_tf.data.sources.market1501 import _read

            assert len(_read(path, pictures.Notes("zip"))) <= 2000 * len(data)
    assert [path.name for path in folder.iterdir()] == [file.name]


def features() -> list[bytes]:
    stream, rng = io.BytesIO(), np.random.default_rng(0)
    sides = {}
    for side, count in (("query", 2), ("gallery", 3)):
        sides |= {
            f"{side}_features": rng.normal(size=(count, 4)).astype("f4"),
            f"{side}_pids": np.arange(count), f"{side}_camids": np.arange(count),
            f"{side}_names": np.array([f"{i}.jpg" for i in range(count)]),
        }  # fmt: skip
    np.savez(stream, identity=np.array("{}"), **sides)
    return [stream.getvalue()]


def read_features(data: bytes, folder: Path):
    from dml_tf.measures import rankings

    file = folder / "features.npz"
    file.write_bytes(data)
    found = rankings.read_features(file)
    assert np.isfinite(found["query_features"]).all()
    assert len(rankings.nearest(found, 0, 2)) <= 2


def states() -> list[bytes]:
    from dml_tf.runs import files

    return [files.state_to_bytes({"epoch": 2, "config": {}}, [np.eye(3), np.arange(4)])]


def read_state(data: bytes, folder: Path):
    from dml_tf.runs import files

    file = folder / "state.npz"
    file.write_bytes(data)
    progress, values = files.load_state(file)
    assert progress == {"epoch": 2, "config": {}}
    assert np.array_equal(values[0], np.eye(3)) and np.array_equal(values[1], np.arange(4))


@functools.cache
def _model() -> bytes:
    from dml_tf import networks

    net = networks.build("resnet8:1", num_classes=2, input_shape=(8, 8, 1), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "net.keras")
        net.save(file)
        return file.read_bytes()


def _member(name: str) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_model())) as archive:
        return [archive.read(name)]


def read_model(data: bytes, folder: Path):
    from dml_tf.networks import trusted

    file = folder / "net.keras"
    file.write_bytes(data)
    model = trusted.load_model(file)
    assert model.count_params() < len(data)
    assert [path.name for path in folder.iterdir()] == [file.name]


def _repacked(change: Callable[[dict[str, bytes]], dict[str, bytes]], folder: Path):
    with zipfile.ZipFile(io.BytesIO(_model())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)
    read_model(stream.getvalue(), folder)


def read_config(data: bytes, folder: Path):
    """An altered config with a checksum that fits: only what passes the check is built."""
    _repacked(lambda members: {**members, "config.json": data}, folder)


def read_hdf5(data: bytes, folder: Path):
    from dml_tf.networks import hdf5

    file = folder / "x.weights.h5"
    file.write_bytes(data)
    assert 4 * hdf5.check(file, "file") <= 2 * len(data)


def manifests() -> list[bytes]:
    """A manifest of the form that `export write` writes, for a net of two variables."""
    from dml_tf.export.folder import FORMAT, with_digest
    from dml_tf.runs import config

    run = config.load(dataset="digits", net="resnet8:4", train_images="64", batch_size="16")
    schedule = run.schedule(64)
    variables = [("w", [3, 3]), ("rate", []), ("total", []), ("count", [])]
    manifest = {
        "format": FORMAT, "run_id": run.run_id, "config": run.comparable(), "data_dir": "",
        "results_dir": "results", **schedule._asdict(),
        "images": {
            "count": 64, "shape": [8, 8, 1], "mean": [0.5], "std": [0.5],
            "labels_sha256": "0" * 64, "pixels_sha256": "1" * 64,
        },
        "variables": [
            {"name": n, "shape": shape, "dtype": "float32", "updated": True}
            for n, shape in variables
        ],
        "learning_rate": {"places": [1], "by_epoch": [0.1] * schedule.epochs},
        "metrics": {"accuracy": [2, 3]},
    }  # fmt: skip
    return [json.dumps(with_digest(manifest)).encode(), json.dumps(manifest).encode()]


def read_manifest(data: bytes, folder: Path):
    from dml_tf.export.folder import MANIFEST, Export

    (folder / MANIFEST).write_bytes(data)
    export = Export.read(folder)
    assert export.schedule.steps > 0
    assert all(0 <= i < len(export.manifest["variables"])
               for pair in export.manifest["metrics"].values() for i in pair)  # fmt: skip


READERS = {
    "npz": Reader(npz, read_npz, 1),
    "features": Reader(features, read_features, 1),
    "checkpoint": Reader(states, read_state, 1),
    "IDX": Reader(idx, read_idx, 1),
    "CIFAR, binary": Reader(records, read_records, 1),
    "CIFAR, python": Reader(pickles, read_pickle, 1),
    "tar": Reader(tars, read_tar, 1),
    "gz": Reader(gz, read_gz, 1),
    "zip of Market-1501": Reader(zips, read_zip, 0.5),
    "pictures, Pillow": Reader(encoded, read_picture, 2),
    "pictures, TensorFlow": Reader(encoded, decode_picture, 1),
    "model": Reader(lambda: [_model()], read_model, 0.3),
    "config of a model": Reader(lambda: _member("config.json"), read_config, 0.3),
    "HDF5": Reader(lambda: _member("model.weights.h5"), read_hdf5, 0.5),
    "manifest": Reader(manifests, read_manifest, 0.5),
}


def read_altered(count: int) -> Counter:
    """About so many inputs over all readers; counts how they end."""
    ends, shares = Counter(), sum(reader.share for reader in READERS.values())
    for name, reader in READERS.items():
        ends += read_one(name, round(count * reader.share / shares))
    return ends


def read_one(name: str, count: int) -> Counter:
    """So many altered files, and half as many random ones, for one reader."""
    reader, ends = READERS[name], Counter()
    with tempfile.TemporaryDirectory() as folder:
        for data in reader.seeds():
            assert _outcome(reader, data, Path(folder)) == "read"
        for data in _altered(name, 2 * count // 3):
            ends[_outcome(reader, data, Path(folder))] += 1
        ends += _drawn(reader, count - 2 * count // 3, Path(folder))
    return ends


def _altered(name: str, count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(list(name.encode()))
    seeds = READERS[name].seeds()
    for _ in range(count):
        yield alter(seeds[rng.integers(len(seeds))], rng)


def _drawn(reader: Reader, count: int, folder: Path) -> Counter:
    """Files that hypothesis draws: whole ones with a piece of anything in a place of theirs."""
    seeds, ends = reader.seeds(), Counter()
    usual = [b"\xff" * 4, b"\xff" * 8, bytes(8), b"-1", b"1e999", b"null", b"[]", b"{}", b'"/"']
    pieces = st.one_of(st.binary(max_size=40), st.sampled_from(usual))

    @hypothesis.settings(
        max_examples=max(count, 1), deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.sampled_from(seeds), st.floats(0, 1), st.integers(0, 40), pieces)
    def read_or_refused(data, where, over, piece):
        place = int(where * len(data))
        ends[_outcome(reader, data[:place] + piece + data[place + over :], folder)] += 1

    read_or_refused()
    return ends


def _outcome(reader: Reader, data: bytes, folder: Path) -> str:
    for file in folder.iterdir():
        file.unlink()
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    before = signal.signal(signal.SIGALRM, _too_long)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(data, folder)
        return "read"
    except REFUSED as error:
        assert len(str(error)) > 20 or reader.read is read_npz, (data, error)
        return "refused"
    except Exception as error:
        error.add_note(f"reader {reader.read.__name__}, input {data!r}"[:5000])
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _too_long(*_):
    raise AssertionError(f"It took more than {LONGEST_S} s.")
