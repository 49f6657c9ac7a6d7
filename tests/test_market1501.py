"""Market-1501 from its official folders and .zip, in small."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from dml_tf.data.sources import market1501
from dml_tf.data.sources import market1501_tree as tree
from dml_tf.data.sources.market1501 import load_market1501
from dml_tf.data.splits import UNLABELLED

# Names from the real folders.
NAMES = {
    "-1_c1s1_000401_03.jpg": (-1, 1, 1, 401, 3),
    "-1_c1s1_000451_04.jpg": (-1, 1, 1, 451, 4),
    "-1_c1s1_011526_06.jpg": (-1, 1, 1, 11526, 6),
    "-1_c4s6_022316_11.jpg.jpg": (-1, 4, 6, 22316, 11),
    "-1_c6s3_094992_04.jpg.jpg": (-1, 6, 3, 94992, 4),
    "0000_c1s6_023071_04.jpg.jpg": (0, 1, 6, 23071, 4),
    "0000_c4s6_022316_04.jpg.jpg": (0, 4, 6, 22316, 4),
    "0000_c6s3_094992_01.jpg.jpg": (0, 6, 3, 94992, 1),
    "0001_c1s1_001051_00.jpg": (1, 1, 1, 1051, 0),
    "0001_c2s1_000301_00.jpg": (1, 2, 1, 301, 0),
    "0001_c3s1_000551_00.jpg": (1, 3, 1, 551, 0),
    "0002_c1s1_000451_03.jpg": (2, 1, 1, 451, 3),
    "0002_c1s1_000551_01.jpg": (2, 1, 1, 551, 1),
    "0002_c1s1_069056_02.jpg": (2, 1, 1, 69056, 2),
    "0002_c1s2_000841_01.jpg": (2, 1, 2, 841, 1),
    "0002_c1s2_064446_01.jpg": (2, 1, 2, 64446, 1),
    "0002_c2s1_123041_01.jpg": (2, 2, 1, 123041, 1),
    "0002_c2s1_123141_03.jpg": (2, 2, 1, 123141, 3),
    "1488_c1s6_023021_00.jpg.jpg": (1488, 1, 6, 23021, 0),
    "1488_c2s3_065527_02.jpg.jpg": (1488, 2, 3, 65527, 2),
    "1488_c5s3_071737_00.jpg.jpg": (1488, 5, 3, 71737, 0),
    "1488_c6s3_094992_00.jpg.jpg": (1488, 6, 3, 94992, 0),
    "1500_c6s3_086567_01.jpg": (1500, 6, 3, 86567, 1),
    "1501_c6s4_001902_01.jpg": (1501, 6, 4, 1902, 1),
}
STRANGE = [
    "Thumbs.db",
    ".DS_Store",
    "readme.txt",
    "0002_c1s1_000451_03.png",
    "0002_c1s1_000451_03.jpg.png",
    "0002_c1s1_000451_03",
    "0002_c1s1_000451_03.JPG",
    "0002_c7s1_000451_03.jpg",
    "0002_c0s1_000451_03.jpg",
    "002_c1s1_000451_03.jpg",
    "-2_c1s1_000451_03.jpg",
    "-0001_c1s1_000451_03.jpg",
    "0002_c1s1_00451_03.jpg",
    "0002_c1s1_000451_3.jpg",
    "0002c1s1_000451_03.jpg",
    "x0002_c1s1_000451_03.jpg",
    "0002_c1s1_000451_03.jpg\n",
    "٠٠٠٢_c1s1_000451_03.jpg",
]
TREE = {
    tree.TRAIN: {
        "0002_c1s1_000451_03.jpg": "red",
        "0007_c2s1_000551_01.jpg": "lime",
        "0007_c3s1_000776_01.jpg.jpg": "green",
        "0010_c6s3_001051_02.jpg": "blue",
        "0011_c5s3_001051_02.jpg": "navy",
    },
    tree.QUERY: {"0001_c1s1_001051_00.jpg": "white", "1501_c6s4_001902_00.jpg": "gray"},
    tree.GALLERY: {
        "-1_c1s1_000401_03.jpg": "black",
        "0000_c1s6_023071_04.jpg.jpg": "yellow",
        "0001_c2s1_000301_01.jpg": "white",
        "1501_c2s4_001902_01.jpg": "silver",
    },
    tree.MULTI_QUERY: {
        "0001_c1s1_001051_00.jpg": "white",
        "0001_c1s1_001076_00.jpg": "cyan",
        "0001_c2s1_000301_00.jpg": "pink",
        "0002_c1s1_000451_00.jpg": "red",
        "1501_c6s4_001902_00.jpg": "gray",
    },
}
COUNTS = {folder: len(names) for folder, names in TREE.items()}
COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


def jpeg(colour, size=(64, 128)):
    packed = io.BytesIO()
    Image.new("RGB", size, colour).save(packed, "JPEG", quality=95)
    return packed.getvalue()


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "market"
    for folder, pictures in TREE.items():
        (root / folder).mkdir(parents=True)
        for name, colour in pictures.items():
            (root / folder / name).write_bytes(jpeg(colour))
    return root


def zipped(root, archive, prefix="Market-1501-v15.09.15/"):
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(f"__MACOSX/{prefix}{tree.TRAIN}/._0002_c1s1_000451_03.jpg", b"junk")
        packed.writestr(f"{prefix}readme.txt", b"hello")
        for path in sorted(root.rglob("*.*")):
            packed.write(path, f"{prefix}{path.relative_to(root)}")
    return archive


def load(place, **options):
    return load_market1501(place, **({"image_size": (16, 8), "published": COUNTS} | options))


def assert_equal(one, other):
    np.testing.assert_array_equal(one.train.images, other.train.images)
    np.testing.assert_array_equal(one.train.labels, other.train.labels)
    for part in ("query", "gallery", "multi_query"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.names == b.names
        for name in ("images", "pids", "camids"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("name", NAMES)
def test_a_real_name_is_read(name):
    assert tree.parse_name(name) == NAMES[name]


@pytest.mark.parametrize("name", STRANGE)
def test_other_names_are_refused(name):
    assert tree.parse_name(name) is None


def test_identities_are_relabelled_and_pictures_kept_in_order(root):
    data = load(root)
    assert data.train.labels.tolist() == [0, 1, 1, 2, 3]
    assert data.class_pids.tolist() == [2, 7, 10, 11]
    assert data.train.images.shape == (5, 16, 8, 3)
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int64)
    expected = [COLOURS[colour] for colour in ("red", "lime", "green", "blue")]
    np.testing.assert_allclose(data.train.images[:4, 8, 4].astype(int), expected, atol=4)
    assert data.gallery.pids.tolist() == [-1, 0, 1, 1501]
    assert data.gallery.camids.tolist() == [1, 1, 2, 2]
    assert data.gallery.names == tuple(TREE[tree.GALLERY])
    assert data.query.pids.tolist() == [1, 1501]
    assert len(data.query) == 2


def test_multi_query_has_only_the_queries_identities_in_their_cameras(root):
    more = load(root).multi_query
    assert more.names == tuple(np.array(list(TREE[tree.MULTI_QUERY]))[[0, 1, 4]])


def test_pictures_are_resized_to_height_by_width(root):
    picture = Image.new("RGB", (30, 90), "blue")
    picture.paste("red", (0, 0, 30, 45))
    picture.save(root / tree.TRAIN / "0002_c1s1_000451_03.jpg", quality=95)
    first = load(root, image_size=(32, 12)).train.images[0]
    assert first.shape == (32, 12, 3)
    assert first[:14, :, 0].min() > 240 and first[:14, :, 2].max() < 15
    assert first[18:, :, 2].min() > 240 and first[18:, :, 0].max() < 15


def test_a_picture_of_the_right_size_is_not_touched(root):
    rng = np.random.default_rng(0)
    path = root / tree.TRAIN / "0002_c1s1_000451_03.jpg"
    Image.fromarray(rng.integers(0, 256, (128, 64, 3), np.uint8)).save(path, quality=100)
    data = load(root, image_size=(128, 64))
    np.testing.assert_array_equal(data.train.images[0], np.asarray(Image.open(path)))


def test_pictures_may_be_stored_at_another_size(root):
    data = load(root, image_size=(224, 224), stored_size=(16, 8))
    whole = load(root)
    assert data.train.images.shape == (5, 224, 224, 3)
    assert data.gallery.images.shape == (4, 224, 224, 3)
    np.testing.assert_array_equal(data.train.pixels, whole.train.images)
    np.testing.assert_array_equal(data.query.images.pixels, whole.query.images)
    assert data.query.digest == load(root, image_size=(224, 224), stored_size=(16, 8)).query.digest
    assert data.query.digest == whole.query.digest != data.gallery.digest


def test_many_chunks_give_what_one_gives(root, monkeypatch):
    whole = load(root)
    monkeypatch.setattr(market1501, "_DECODED_AT_ONCE", 2)
    assert_equal(load(root), whole)


@pytest.mark.parametrize("place", ["folder", "sub-folder", "zip beside", "zip itself", "flat zip"])
def test_every_place_gives_the_same(root, tmp_path, place):
    expected = load(root)
    official = tmp_path / "Market-1501-v15.09.15"
    if place == "sub-folder":
        root.rename(official)
    given = {"folder": root, "sub-folder": tmp_path, "zip beside": tmp_path}.get(place)
    if place == "zip beside":
        zipped(root, official.with_name(f"{official.name}.zip"))
    elif given is None:
        given = zipped(root, tmp_path / "m.zip", "" if place == "flat zip" else "any/where/")
    before = sorted(tmp_path.rglob("*"))
    assert_equal(load(str(given)), expected)
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


def test_names_that_do_not_fit_are_listed_with_their_count(root):
    for name in ("Thumbs.db", "0002_c7s1_000451_03.jpg"):
        (root / tree.TRAIN / name).write_bytes(b"")
    with pytest.warns(UserWarning) as warned:
        data = load(root)
    assert len(data.train) == 5
    assert [str(w.message) for w in warned] == [
        f"{root / tree.TRAIN}: 2 files (0002_c7s1_000451_03.jpg, Thumbs.db) skipped, whose names "
        "are not Market-1501's."
    ]


def test_a_long_list_of_strange_names_is_cut(root):
    for number in range(25):
        (root / tree.QUERY / f"x{number:02d}").write_bytes(b"")
    with pytest.warns(UserWarning) as warned:
        data = load(root)
    names = ", ".join(f"x{number:02d}" for number in range(10))
    (message,) = [str(each.message) for each in warned]
    assert f"25 files ({names}, ...) skipped" in message
    assert len(data.query) == 2


def test_other_counts_than_the_published_ones_are_named(root):
    expected = (
        "bounding_box_train has 5 pictures, not 12,936; query has 2 pictures, not 3,368; "
        "bounding_box_test has 4 pictures, not 19,732; gt_bbox has 5 pictures, not 25,259"
    )
    with pytest.warns(UserWarning) as warned:
        load(root, published=market1501.PUBLISHED_IMAGES)
    (message,) = [str(each.message) for each in warned]
    assert message.endswith(f"published: {expected}.")
    with pytest.warns(UserWarning) as warned:
        load(root, published=COUNTS | {tree.QUERY: 3})
    (message,) = [str(each.message) for each in warned]
    assert message.endswith("published: query has 2 pictures, not 3.")


def test_junk_among_the_training_pictures_is_left_out_with_a_count(root):
    (root / tree.TRAIN / "0000_c1s1_000451_03.jpg").write_bytes(jpeg("red"))
    (root / tree.TRAIN / "-1_c1s1_000451_03.jpg").write_bytes(jpeg("red"))
    with pytest.warns(UserWarning, match="2 pictures of 0000 and -1 are left out"):
        data = load(root, published=None)
    assert data.train.labels.tolist() == [0, 1, 1, 2, 3]


def test_the_message_about_missing_data_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path / "absent")
    for words in (
        str(tmp_path / "absent" / "Market-1501-v15.09.15.zip"),
        "Download",
        "--data_dir=FOLDER",
        "--dataset=pedestrians",
        f"TensorFlow Datasets has no market1501 in {tmp_path / 'absent' / 'market1501'}",
        f"Market-1501-v15.09.15.zip to prepare it from in {tmp_path / 'absent'}/downloads/manual",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize("folder", [tree.QUERY, tree.GALLERY, tree.MULTI_QUERY])
def test_a_missing_or_empty_folder_is_named(root, folder):
    (root / folder).rename(root / "renamed")
    with pytest.raises(FileNotFoundError, match=f"{root / folder} is missing"):
        load(root)
    (root / folder).mkdir()
    with pytest.raises(FileNotFoundError, match=f"{root / folder} has no pictures"):
        load(root)


def test_training_pictures_without_an_identity_are_refused(root):
    for number, path in enumerate(sorted((root / tree.TRAIN).iterdir())):
        path.rename(path.with_name(f"-1_c1s1_00000{number}_01.jpg"))
    with pytest.raises(ValueError, match=f"{root / tree.TRAIN} has no picture of an identity"):
        load(root)


@pytest.mark.parametrize("name", ["0003_c1s1_000451_00.jpg", "0000_c1s1_000451_00.jpg"])
def test_a_query_whose_identity_is_not_in_the_gallery_is_named(root, name):
    path = root / tree.QUERY / name
    path.write_bytes(jpeg("red"))
    with pytest.raises(ValueError, match=f"{path} asks for identity .* {root / tree.GALLERY}"):
        load(root, published=None)


@pytest.mark.parametrize("content", [b"", b"no picture", jpeg("red")[:-200]])
@pytest.mark.parametrize("archive", [False, True])
def test_an_unreadable_picture_is_named(root, tmp_path, content, archive):
    (root / tree.GALLERY / "0001_c2s1_000301_01.jpg").write_bytes(content)
    place = zipped(root, tmp_path / "m.zip") if archive else root
    path = f"{tree.GALLERY}/0001_c2s1_000301_01.jpg cannot be read as a picture"
    with pytest.raises(ValueError, match=f"^{place}/.*{path}"):
        load(place)


def test_a_damaged_archive_is_named(root, tmp_path):
    archive = zipped(root, tmp_path / "m.zip")
    packed = bytearray(archive.read_bytes())
    packed[packed.find(jpeg("yellow")) + 200] ^= 0xFF
    archive.write_bytes(packed)
    with pytest.raises(ValueError, match="0000_c1s6_023071_04.jpg.jpg cannot be read"):
        load(archive)
    archive.write_bytes(packed[:-100])
    with pytest.raises(ValueError, match=f"{archive} is damaged .* download it again"):
        load(archive)


def test_labelled_identities_are_drawn_by_seed_and_nested(root, monkeypatch):
    monkeypatch.setattr(market1501, "decode", lambda paths, _: np.zeros((len(paths), 1, 1, 3)))
    chosen = {}
    for seed in range(8):
        for count in (1, 2, 3, 4):
            data = load(root, labelled_identities=count, seed=seed)
            chosen[seed, count] = set(data.class_pids.tolist())
            pids = np.array([2, 7, 7, 10, 11])
            expected = [
                sorted(chosen[seed, count]).index(pid) if pid in chosen[seed, count] else UNLABELLED
                for pid in pids
            ]
            assert data.train.labels.tolist() == expected
            assert len(chosen[seed, count]) == count
        assert chosen[seed, 1] < chosen[seed, 2] < chosen[seed, 3] < chosen[seed, 4]
    assert len({frozenset(chosen[seed, 2]) for seed in range(8)}) > 2


def test_unlabelled_pictures_can_be_dropped(root):
    used = load(root, labelled_identities=2)
    dropped = load(root, labelled_identities=2, unlabelled="drop")
    known = used.train.labels != UNLABELLED
    assert 0 < known.sum() < 5
    np.testing.assert_array_equal(dropped.train.labels, used.train.labels[known])
    np.testing.assert_array_equal(dropped.train.images, used.train.images[known])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labelled_identities": 5}, "--labelled_identities=5: the training set has 4 identities"),
        ({"labelled_identities": -1}, "--labelled_identities=-1"),
        ({"unlabelled": "hide"}, "--unlabelled=hide: give use or drop"),
        ({"image_size": (0, 64)}, r"image_size=\(0, 64\)"),
    ],
)
def test_wrong_options_are_refused(root, options, message):
    with pytest.raises(ValueError, match=message):
        load(root, **options)
