"""Bad pictures and data sets: converted or skipped with a count and a list, or refused in words."""

import io
import os
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from dml_tf.data import pictures
from dml_tf.errors import DataWarning, RunFailed
from dml_tf.measures import rankings
from dml_tf.runs import build, config

RNG = np.random.default_rng(0)


def pixels(*shape, levels=256, dtype=np.uint8):
    return RNG.integers(0, levels, shape, dtype)


def encode(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def plain():
    return encode(Image.fromarray(pixels(8, 8, 3)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three pictures in each class of train and test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "pictures"
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                (root / part / name / f"{i}.png").write_bytes(plain())
    return root


def load(root, **changes):
    small = {"net": "resnet8:4", "image_size": 8, "batch_size": 2, "augment": "none", "steps": 1}
    asked = config.load(dataset="image_folder", data_dir=str(root), **small, **changes)
    return build.load_data(asked)


def gif(frames):
    first, *others = [Image.fromarray(pixels(8, 8)) for _ in range(frames)]
    return encode(first, "GIF", save_all=True, append_images=others)


def sixteen_bits(channels):
    """A PNG file with 16 bits a sample, which Pillow cannot write in colour."""
    rows = b"".join(b"\0" + RNG.bytes(8 * channels * 2) for _ in range(8))

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 8, 8, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


CONVERTED = {
    "CMYK": (lambda: encode(Image.fromarray(pixels(8, 8, 4), "CMYK"), "JPEG"), "CMYK"),
    "16 bits, grey": (lambda: sixteen_bits(1), "16 bits"),
    "16 bits, colour": (lambda: sixteen_bits(3), "16 bits"),
    "transparent": (lambda: encode(Image.fromarray(pixels(8, 8, 4), "RGBA")), "transparency"),
    "animated": (lambda: gif(3), "first frame"),
    "1x1": (lambda: encode(Image.fromarray(pixels(1, 1, 3))), "single row or column"),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("case", CONVERTED.values(), ids=CONVERTED.keys())
def test_unusual_pictures_are_converted_and_listed_and_refused_by_strict(case, folder, capsys):
    make, words = case
    odd = folder / "train/cat/odd.gif"
    odd.write_bytes(make())
    splits = load(folder)
    assert splits.train.images.shape == (7, 8, 8, 3)
    told = capsys.readouterr().err
    assert "train: 1 file (" in told and str(odd) in told and words in told
    with pytest.raises(RunFailed, match="--strict refuses these data"):
        load(folder, strict="true")


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_and_few_colours_are_nothing_unusual(mode, folder, capsys):
    picture = Image.fromarray(pixels(8, 8, 3)).convert(mode)
    (folder / "train/dog/few.PNG").write_bytes(encode(picture))  # a suffix in capitals counts
    assert len(load(folder, strict="true").train) == 7
    assert not capsys.readouterr().err


def bomb():
    """A PNG file of 50 kB whose header promises 4 gigapixels."""
    whole = bytearray(encode(Image.new("1", (8, 8))))
    whole[16:24] = struct.pack(">II", 65_000, 65_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


REFUSED = {
    "empty": lambda: b"",
    "truncated PNG": lambda: plain()[:-40],
    "truncated JPEG": lambda: encode(Image.fromarray(pixels(64, 64, 3)), "JPEG")[:900],
    "text": lambda: b"no picture at all",
    "a bomb": bomb,
    "another format": lambda: encode(Image.fromarray(pixels(8, 8, 3)), "PDF"),
    "too many frames": lambda: gif(3).replace(struct.pack("<HH", 8, 8), b"\xff\xff\xff\xff", 1),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_picture_is_refused_with_its_path(make, folder):
    bad = folder / "test/dog/bad.jpg"
    bad.write_bytes(make())
    with pytest.raises(RunFailed, match=f"{bad} cannot be read as a picture"):
        load(folder)


def test_other_files_links_in_a_circle_and_pipes_are_skipped_and_listed(folder, capsys):
    place = folder / "train/cat"
    (place / "circle.png").symlink_to("circle.png")
    (place / "nowhere.png").symlink_to("absent.png")
    (place / "folder.png").mkdir()
    (place / "notes.txt").touch()
    (place / "up").symlink_to("..")
    os.mkfifo(place / "pipe.png")
    assert len(load(folder).train) == 6
    names = ("circle.png", "folder.png", "notes.txt", "nowhere.png", "pipe.png", "up")
    listed = ", ".join(f"cat/{name}" for name in names)
    assert f"train: 6 files ({listed}) skipped" in capsys.readouterr().err
    with pytest.raises(RunFailed, match="6 files"):
        load(folder, strict="true")


def test_copies_are_listed_within_a_class_between_classes_and_between_parts(folder, capsys):
    shutil.copy(folder / "train/cat/0.png", folder / "train/cat/again.png")
    shutil.copy(folder / "train/cat/1.png", folder / "train/dog/other.png")
    shutil.copy(folder / "train/cat/2.png", folder / "test/cat/seen.png")
    assert len(load(folder).train) == 8
    told = capsys.readouterr().err
    assert "1 file (cat/again.png) with the same content as files of this class" in told
    assert "1 file (dog/other.png) with the same content as files of another class" in told
    assert "1 file (cat/seen.png) with the same content as files of train/: they are no" in told


def test_names_in_other_scripts_are_kept(folder):
    names = ("猫", "собака", "قطة", "emoji 🐈")
    for part in ("train", "test"):
        for name in names:
            (folder / part / name).mkdir()
            (folder / part / name / "фото 1.JPEG").write_bytes(plain())
    assert set(load(folder, strict="true").class_names) == {"cat", "dog", *names}


def no_utf8(folder):
    for part in ("train", "test"):
        os.mkdir(os.fsencode(folder / part) + b"/\xff\xfe")
    return "not UTF-8"


def empty_class(folder):
    (folder / "train/empty").mkdir()
    (folder / "test/empty").mkdir()
    return "empty has no pictures"


def only_in_test(folder):
    (folder / "test/cow").mkdir()
    (folder / "test/cow/0.png").write_bytes(plain())
    return "differ in the classes cow"


def other_case(folder):
    (folder / "test/cat").rename(folder / "test/Cat")
    return "differ in the classes Cat, cat; .* same letters and case"


@pytest.mark.parametrize("change", [no_utf8, empty_class, only_in_test, other_case])
def test_folders_of_classes_that_do_not_fit_are_refused(change, folder):
    message = change(folder)
    with pytest.raises((RunFailed, FileNotFoundError), match=message):
        load(folder)


def test_a_jpeg_of_endless_scans_is_refused():
    whole = encode(Image.fromarray(pixels(8, 8, 3)), "JPEG", progressive=True)
    with pytest.raises(ValueError, match="scans"):
        pictures.read_picture(whole + b"\xff\xda" * 300, "endless.jpg")


def test_pictures_that_stay_on_disk_are_looked_at_by_strict(folder):
    (folder / "train/cat/odd.png").write_bytes(sixteen_bits(3))
    (folder / "test").rename(folder / "val")
    small = {"net": "resnet8:4", "image_size": 8, "batch_size": 2, "augment": "none", "steps": 1}
    asked = config.load(dataset="imagenet", data_dir=str(folder), **small)
    assert len(build.load_data(asked).train) == 7
    with pytest.raises(RunFailed, match="16 bits"):
        build.load_data(asked.replace(strict=True))


# Market-1501


def market(root, changes=()):
    """Two people before two cameras; `changes` maps a folder to its names."""
    names = {
        "bounding_box_train": ["0002_c1s1_000001_01.jpg", "0007_c2s1_000001_01.jpg"],
        "query": ["0003_c1s1_000001_00.jpg"],
        "bounding_box_test": ["0003_c2s1_000001_01.jpg", "0000_c1s1_000001_01.jpg"],
        "gt_bbox": ["0003_c1s1_000001_00.jpg"],
    } | dict(changes)
    for part, files in names.items():
        (root / part).mkdir(parents=True)
        for name in files:
            (root / part / name).write_bytes(encode(Image.fromarray(pixels(16, 8, 3)), "JPEG"))
    return root


def load_market(place, **changes):
    asked = config.load(
        dataset="market1501", data_dir=str(place), net="resnet8:4", image_size="16x8",
        batch_size=2, steps=1, **changes,
    )  # fmt: skip
    return build.load_data(asked)


def test_queries_without_a_good_match_are_counted_and_all_of_them_refused(tmp_path, capsys):
    both = ["0003_c1s1_000001_00.jpg", "0004_c1s1_000001_00.jpg"]
    gallery = ["0003_c2s1_000001_01.jpg", "0004_c1s1_000009_01.jpg"]
    root = market(tmp_path / "some", {"query": both, "bounding_box_test": gallery})
    assert len(load_market(root).reid.query) == 2
    assert "query: 1 file (0004_c1s1_000001_00.jpg) not measured" in capsys.readouterr().err
    root = market(tmp_path / "none", {"query": both[1:], "bounding_box_test": gallery})
    with pytest.raises(RunFailed, match="No query .* by another camera"):
        load_market(root)


def test_a_set_without_pictures_for_multi_query_is_refused(tmp_path):
    root = market(tmp_path / "m", {"gt_bbox": ["0003_c2s1_000001_00.jpg"]})
    with pytest.raises(RunFailed, match="multi-query cannot be measured"):
        load_market(root)


def encrypted(archive):
    content = bytearray(archive.read_bytes())
    for mark, flag in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(mark) + flag] |= 1
    archive.write_bytes(content)
    return "is encrypted"


def added(name, content=b"x", mode=0):
    def change(archive):
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr(member, content, zipfile.ZIP_DEFLATED)

    return change


ZIPS = {
    "encrypted": (encrypted, "is encrypted"),
    "leads out": (added("../../escaped.jpg"), "leads out"),
    "absolute": (added("/tmp/escaped.jpg"), "leads out"),
    "a link": (added("query/link.jpg", b"/etc/passwd", 0o120777), "is a link"),
    "a bomb": (added("query/zeros.jpg", bytes(70_000_000)), "unpacks to 70,000,000"),
}


@pytest.mark.parametrize("case", ZIPS.values(), ids=ZIPS.keys())
def test_a_zip_with_more_than_pictures_is_refused_and_nothing_written(case, tmp_path):
    root = market(tmp_path / "m")
    archive = shutil.make_archive(str(tmp_path / "market"), "zip", root)
    change, reason = case
    change(tmp_path / "market.zip")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunFailed, match=f"market.zip is refused: its member .* {reason}"):
        load_market(archive)
    assert sorted(tmp_path.rglob("*")) == before


# Files of features


FEATURES = {
    "NaN": ("query_features", np.array([[np.nan, 1]], "f4"), "no finite numbers"),
    "texts": ("query_features", np.array([["a", "b"]]), "no finite numbers"),
    "another width": ("query_features", np.zeros((1, 3), "f4"), "two widths"),
    "another number": ("gallery_pids", np.arange(5), "another number of images"),
    "fractions": ("gallery_camids", np.array([0.5, 1.5]), "another type"),
    "a path": ("gallery_names", np.array(["../../x.jpg", "b.jpg"]), "has a path"),
    "a pickle": ("query_names", np.array([{}], object), "no plain one"),
}


@pytest.mark.parametrize("case", FEATURES.values(), ids=FEATURES.keys())
def test_features_that_are_none_are_refused(case, tmp_path):
    name, value, reason = case
    kinds = {"features": np.eye(2, dtype="f4"), "pids": np.arange(2), "camids": np.arange(2)}
    kinds["names"] = np.array(["a.jpg", "b.jpg"])
    arrays = {f"query_{kind}": values[:1] for kind, values in kinds.items()}
    arrays |= {f"gallery_{kind}": values for kind, values in kinds.items()}
    file = tmp_path / "features.npz"
    np.savez(file, **arrays)
    assert rankings.read_features(file)["query_pids"].tolist() == [0]
    np.savez(file, **arrays | {name: value})
    with pytest.raises(ValueError, match=f"is not a features file .*{reason}"):
        rankings.read_features(file)


def test_notes_are_one_warning_for_each_kind():
    notes = pictures.Notes("folder")
    for i in range(12):
        notes.note("odd", f"{i}.png")
        notes.note("even", f"{i}.png")
    with pytest.warns(DataWarning) as warned:
        notes.warn()
    names = ", ".join(f"{i}.png" for i in range(10))
    assert [str(each.message) for each in warned] == [
        f"folder: 12 files ({names}, ...) {kind}." for kind in ("odd", "even")
    ]
