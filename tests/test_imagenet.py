"""ImageNet: pictures on disk, Inception's crops, the official formats, the generated stand-in."""

import io
import itertools
import tarfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.stats
from PIL import Image
from rounding import FACTOR, one_rounding_away

from dml_tf import data
from dml_tf.data.draws import Purpose, epoch_order, philox, random_window
from dml_tf.data.generated import imagenet_mini
from dml_tf.data.generated.__main__ import main
from dml_tf.data.pictures import central_window
from dml_tf.data.sources import imagenet_tfds
from dml_tf.data.stored import Pictures
from dml_tf.errors import FlagError, RunFailed
from dml_tf.export import write
from dml_tf.measures import evaluate
from dml_tf.runs import build, config, records, train
from dml_tf.runs.files import RunFiles

WNIDS = ("n01440764", "n02084071", "n02105855")
RED = (200, 40, 60)


def encoded(colour, size=(60, 44), mode="RGB", form="JPEG"):
    """A picture of one colour but for a darker left half, in an encoding of the real set's."""
    picture = Image.new("RGB", size, colour)
    picture.paste(tuple(level // 2 for level in colour), (0, 0, size[0] // 2, size[1]))
    content = io.BytesIO()
    picture.convert(mode).save(content, form, **({"quality": 95} if form == "JPEG" else {}))
    return content.getvalue()


def write_folders(root, test="validation", count=5):
    """A small ImageNet in class folders, with a grey, a CMYK and a disguised PNG picture."""
    for part, label in itertools.product(("train", test), range(len(WNIDS))):
        folder = root / part / WNIDS[label]
        folder.mkdir(parents=True)
        for number in range(count):
            mode = {1: "L", 2: "CMYK"}.get(number, "RGB")
            form = "PNG" if number == 3 else "JPEG"
            content = encoded((40 * label + 20, 10 * number, 90), (60 + label, 44), mode, form)
            (folder / f"{WNIDS[label]}_{number}.JPEG").write_bytes(content)
    return root


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "imagenet")


def settings(root, **changes):
    fields = dict(
        dataset="imagenet", data_dir=str(root), image_size=16, train_images=0, seed=3,
        validation_fraction=0.0, labelled_fraction=1.0, unlabelled="use", augment="inception",
        batch_size=4,
    )  # fmt: skip
    return SimpleNamespace(**fields | changes)


def collect(dataset, batches):
    return [(x.numpy(), y.numpy()) for x, y in itertools.islice(dataset, batches)]


def scaled(pixels):
    return pixels / 127.5 - 1


# Windows


@pytest.mark.parametrize("image", [0, 5, 50_000])
def test_a_window_follows_the_documented_arithmetic(image):
    height, width = 375, 500
    words = philox(9, Purpose.WINDOW, 4).random_raw(12 * (image + 1))[-12:].tolist()
    for word in words[:10]:
        area = height * width * (0.08 + 0.92 * (word // 2**32) / 2**32)
        ratio = np.exp(np.log(4 / 3) * (2 * (word % 2**32) / 2**32 - 1))
        rows, columns = int(np.rint((area / ratio) ** 0.5)), int(np.rint((area * ratio) ** 0.5))
        if rows <= height and columns <= width:
            break
    top, left = words[10] // 2**32 % (376 - rows), words[10] % 2**32 % (501 - columns)
    window = random_window(9, 4, image, height=height, width=width)
    assert window == (top, left, rows, columns, words[11] >= 2**63)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (300, 600)])
def test_windows_are_distributed_as_rejection_sampling_has_them(height, width):
    rng, wanted = np.random.default_rng(0), []
    while len(wanted) < 4000:  # the slow oracle: any pair, until one fits
        share, log_ratio = rng.uniform(0.08, 1), rng.uniform(np.log(3 / 4), np.log(4 / 3))
        area, ratio = share * height * width, np.exp(log_ratio)
        rows, columns = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        if rows <= height and columns <= width:
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            wanted.append((top, left, rows, columns, rng.random() < 0.5))
    found = [random_window(0, 0, i, height=height, width=width) for i in range(4000)]
    for ours, oracle in zip(_measures(found), _measures(wanted), strict=True):
        assert scipy.stats.ks_2samp(ours, oracle, method="asymp").pvalue > 1e-3
    top, left, rows, columns, _ = np.array(found).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + rows <= height).all() and (left + columns <= width).all()
    share, ratio = rows * columns / (height * width), columns / rows
    assert 0.08 - 0.003 < share.min() and share.max() <= 1
    assert 0.75 - 0.02 < ratio.min() < 0.78 and 1.28 < ratio.max() < 4 / 3 + 0.02


def _measures(windows):
    """Area, aspect ratio, where the middle is, and flips."""
    top, left, rows, columns, flip = np.array(windows, float).T
    return rows * columns, columns / rows, top + rows / 2, left + columns / 2, flip


def test_where_no_window_fits_it_is_the_middle_of_an_allowed_shape():
    for i in range(20):  # of 20:1, the smallest allowed area is too high
        assert random_window(0, 0, i, height=10, width=200)[:4] == (0, 93, 10, 13)
        assert random_window(0, 0, i, height=200, width=10)[:4] == (93, 0, 13, 10)
        assert random_window(0, 0, i, height=1, width=1)[:4] == (0, 0, 1, 1)


def test_windows_differ_by_seed_epoch_and_image():
    keys = itertools.product(range(2), range(3), range(4))
    windows = {random_window(*key, height=375, width=500) for key in keys}
    assert len(windows) == 24


def test_evaluation_takes_the_middle_seven_eighths():
    assert central_window(64, 96) == (4, 6, 56, 84, False)
    assert central_window(1, 3) == (0, 0, 1, 3, False)


# Pictures


def test_pixels_are_those_of_the_window(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    pictures = Pictures.of_files([tmp_path / "a.png"] * 8, 56)
    np.testing.assert_array_equal(pictures.central(7), pixels[4:60, 4:60])  # nothing to resize
    flips = set()
    for i in range(8):
        drawn = random_window(1, 2, i, height=64, width=64)
        cut = pixels[drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
        cut = np.asarray(Image.fromarray(cut).resize((56, 56), Image.Resampling.BILINEAR))
        of = {"seed": 1, "epoch": 2}
        cut = cut[:, ::-1] if drawn.flip else cut
        np.testing.assert_array_equal(pictures.augmented(i, **of, augment="inception"), cut)
        middle = pictures.central(i)
        np.testing.assert_array_equal(pictures.augmented(i, **of, augment="none"), middle)
        middle = middle[:, ::-1] if drawn.flip else middle
        np.testing.assert_array_equal(pictures.augmented(i, **of, augment="flip"), middle)
        flips.add(drawn.flip)
    assert flips == {True, False}


def test_a_picture_may_be_a_part_of_a_file(tmp_path):
    first, second = encoded(RED), encoded((0, 90, 200))
    (tmp_path / "both").write_bytes(b"head" + first + b"between" + second)
    (tmp_path / "second").write_bytes(second)
    ranges = np.array([(0, 4, len(first)), (0, 11 + len(first), len(second))])
    both = Pictures(np.array([bytes(tmp_path / "both")]), ranges, 20)
    alone = Pictures.of_files([tmp_path / "second"], 20)
    np.testing.assert_array_equal(both.central(1), alone.central(0))
    np.testing.assert_array_equal(both[np.array([1])].central(0), alone.central(0))
    assert both.shape == (2, 20, 20, 3) and both[:1].shape == (1, 20, 20, 3)


@pytest.mark.parametrize(
    ("mode", "form", "expected", "tolerance"),
    [
        ("RGB", "JPEG", RED, 4),
        ("CMYK", "JPEG", RED, 6),
        ("RGB", "PNG", RED, 0),
        ("L", "JPEG", (round(0.299 * 200 + 0.587 * 40 + 0.114 * 60),) * 3, 3),
    ],
)
def test_every_encoding_of_the_real_set_gives_its_colours(
    tmp_path, mode, form, expected, tolerance
):
    (tmp_path / "a.JPEG").write_bytes(encoded(RED, mode=mode, form=form))
    pixels = Pictures.of_files([tmp_path / "a.JPEG"], 32).central(0)
    right = pixels[4:-4, 20:-4].astype(int)
    assert np.abs(right - expected).max() <= tolerance
    assert pixels[16, 5].astype(int).sum() < 0.6 * right[10, 5].sum()


# From class folders


@pytest.mark.parametrize("test", ["validation", "val"])
def test_class_folders_are_found_and_nothing_is_decoded_before_it_is_needed(tmp_path, test):
    write_folders(tmp_path, test)
    for path in (tmp_path / test).rglob("*.JPEG"):
        path.write_bytes(b"not read")
    splits = data.load(settings(tmp_path, image_size=0))
    assert splits.train.images.shape == (15, 224, 224, 3)
    assert splits.test.images.shape == (15, 224, 224, 3)
    assert splits.class_names == WNIDS and splits.num_classes == 3
    assert splits.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert splits.name == "ImageNet (a part: 15 training images of 3 classes)"
    assert (splits.mean == 0.5).all() and (splits.std == 0.5).all()


def test_training_batches_are_the_drawn_windows_in_the_drawn_order(root):
    asked = settings(root)
    splits = data.load(asked)
    batches = data.train_batches(splits, asked)
    assert batches.element_spec[0].shape == (4, 16, 16, 3)
    found = collect(batches, 6)
    for epoch in (0, 1):
        order = epoch_order(3, epoch, images=15, batch_size=4)
        assert len(set(order)) == 12
        for number, (images, labels) in enumerate(found[3 * epoch : 3 * epoch + 3]):
            index = order[4 * number : 4 * number + 4]
            assert labels.tolist() == splits.train.labels[index].tolist()
            of = {"seed": 3, "epoch": epoch, "augment": "inception"}
            expected = [splits.train.images.augmented(i, **of) for i in index]
            np.testing.assert_allclose(images, scaled(np.stack(expected)), atol=1e-6)


def test_a_stream_from_a_later_epoch_is_the_rest_of_the_whole_stream(root):
    asked = settings(root)
    splits = data.load(asked)
    whole = collect(data.train_batches(splits, asked), 9)
    rest = collect(data.train_batches(splits, asked, initial_epoch=2), 3)
    for (images, labels), (again, labels_again) in zip(whole[6:], rest, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)


def test_evaluation_is_in_order_complete_and_not_augmented(root):
    splits = data.load(settings(root))
    found = collect(data.eval_batches(splits.test, splits, 6), 9)
    assert [len(labels) for _, labels in found] == [6, 6, 3]
    expected = np.stack([splits.test.images.central(i) for i in range(15)])
    images = np.concatenate([images for images, _ in found])
    np.testing.assert_allclose(images, scaled(expected), atol=1e-6)
    assert np.concatenate([y for _, y in found]).tolist() == splits.test.labels.tolist()


def test_subsets_by_seed_work_as_with_images_in_memory(root):
    asked = settings(root, validation_fraction=0.2, train_images=6, labelled_fraction=0.5)
    splits = data.load(asked)
    assert splits.validation.labels.tolist() == [0, 1, 2]
    assert splits.train.labels.tolist().count(-1) == 3 and len(splits.train) == 6
    kept, held = splits.train.images.ranges[:, 0], splits.validation.images.ranges[:, 0]
    assert not set(kept) & set(held)
    (_, labels), *_ = collect(data.train_batches(splits, asked), 1)
    assert set(labels) <= {-1, 0, 1, 2}


# Runs


def run_settings(root, tmp_path, **changes):
    base = {
        "dataset": "imagenet", "data_dir": str(root), "net": ("resnet8:4",), "image_size": 16,
        "batch_size": 4, "epochs": 3, "results_dir": str(tmp_path), "learning_rate": 0.01,
    }  # fmt: skip
    return config.load(**base | changes)


class Interruption(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_run_ends_as_if_it_had_never_stopped(root, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizers[0].iterations) == 5:  # in the second epoch
                raise Interruption

    whole, stopped = (run_settings(root, tmp_path / name) for name in ("a", "b"))
    uninterrupted = train.run(whole, verbose=0)
    with pytest.raises(Interruption):
        train.run(stopped, verbose=0, callbacks=[Interrupt()])
    record = train.run(stopped, verbose=0)
    assert record["history"] == uninterrupted["history"]
    assert record["test"] == uninterrupted["test"]
    first, second = (
        keras.saving.load_model(RunFiles.of(asked).model) for asked in (whole, stopped)
    )
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_picture_that_cannot_be_decoded_ends_the_run_with_its_path(root, tmp_path):
    broken = root / "train" / WNIDS[1] / f"{WNIDS[1]}_4.JPEG"
    asked = run_settings(root, tmp_path)
    for content in (broken.read_bytes()[:-200], b"<html>not found</html>"):
        broken.write_bytes(content)
        with pytest.raises(RunFailed, match=rf"{broken} cannot be read as a picture \("):
            train.run(asked, verbose=0)
    broken.unlink()
    assert train.run(asked, verbose=0)["images"] == {"train": 14, "test": 15}


def test_many_images_are_measured_a_part_at_a_time(root, tmp_path, monkeypatch):
    asked = run_settings(root, tmp_path, cohort=2, net=("resnet8:2",))
    splits = build.load_data(asked)
    cohort = build.build_cohort(asked, splits)
    whole = evaluate.measure(cohort, splits.test, splits)
    monkeypatch.setattr(evaluate, "_AT_ONCE", 4)
    parts = evaluate.measure(cohort, splits.test, splits)
    rng = np.random.default_rng(0)
    cohort.set_weights([one_rounding_away(weight, rng) for weight in cohort.get_weights()])
    twin = evaluate.measure(cohort, splits.test, splits)
    assert parts.keys() == whole.keys() and parts["peers"].keys() == whole["peers"].keys()
    rows = [(m["peers"] | {"ensemble": m["ensemble"]}) for m in (parts, whole, twin)]
    found, expected, rounded = (
        np.array([value for row in measures.values() for value in row.values()])
        for measures in rows
    )
    tolerance = FACTOR * np.max(np.abs(rounded - expected))
    assert np.max(np.abs(found - expected)) <= tolerance < 1e-3


def test_settings_that_do_not_fit_are_refused(root, tmp_path):
    with pytest.raises(FlagError, match=r"--augment=crop_flip .* none \| flip \| inception"):
        run_settings(root, tmp_path, augment="crop_flip")
    with pytest.raises(FlagError, match="--augment=inception is not for --dataset=digits"):
        config.load(dataset="digits", net=("resnet8",), augment="inception")
    with pytest.raises(FlagError, match="these stay on disk"):
        write.export(run_settings(root, tmp_path), tmp_path / "step")
    splits = data.load(settings(root))
    with pytest.raises(ValueError, match="--augment=crop_flip: give one of none, flip, inception"):
        data.train_batches(splits, settings(root, augment="crop_flip"))


# Missing data


def test_the_message_about_missing_data_says_where_it_looked_and_what_to_do(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError) as caught:
        data.load(settings(tmp_path))
    message = str(caught.value)
    for place in (tmp_path / "downloads" / "manual", tmp_path):
        assert f"{place} lacks ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in message
    assert "no train/ folder" in message and "image-net.org" in message
    assert "--dataset=imagenet_mini" in message
    (tmp_path / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} lacks ILSVRC2012_img_val\.tar;"):
        data.load(settings(tmp_path))


def test_incomplete_class_folders_are_named(root):
    (root / "validation").rename(root / "test")
    with pytest.raises(FileNotFoundError, match=r"neither validation/ nor val/: put"):
        data.load(settings(root))
    flat = root / "val"
    flat.mkdir()
    (flat / "ILSVRC2012_val_00000001.JPEG").write_bytes(encoded(RED))
    with pytest.raises(FileNotFoundError, match="val has no class folders"):
        data.load(settings(root))
    (flat / WNIDS[0]).mkdir()
    with pytest.raises(ValueError, match=f"differ in the classes {WNIDS[1]}, {WNIDS[2]}"):
        data.load(settings(root))


# From the official tar files

TRAIN_TAR = {  # file -> its encoding; the third and the fourth are of those that tfds mends
    "n01440764": {"n01440764_10026.JPEG": ("RGB", "JPEG"), "n01440764_18.JPEG": ("L", "JPEG")},
    "n01739381": {"n01739381_1309.JPEG": ("CMYK", "JPEG")},
    "n02105855": {"n02105855_2933.JPEG": ("RGB", "PNG")},
}
VAL_WNIDS = ("n01751748", "n09193705", "n02105855")  # of the first three validation pictures


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_tars(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid, files in TRAIN_TAR.items():
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as inner:
                for name, (mode, form) in files.items():
                    add(inner, name, encoded(RED, mode=mode, form=form))
            add(outer, f"{wnid}.tar", packed.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in (3, 1, 2):  # labels follow the names, not the places
            content = encoded((60 * number, 20, 20))
            add(tar, f"ILSVRC2012_val_{number:08d}.JPEG", content)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    write_tars(root / "downloads" / "manual")
    data.load(settings(root))
    return root


def test_the_official_tars_are_prepared_and_their_pictures_found(prepared):
    splits = data.load(settings(prepared, image_size=32))
    assert splits.num_classes == 1000 and splits.class_names[0] == "n01440764"
    assert splits.name == "ImageNet (a part: 4 training images of 1,000 classes)"
    counts = np.bincount(splits.train.labels, minlength=1000)
    assert {splits.class_names[i]: counts[i] for i in np.flatnonzero(counts)} == {
        "n01440764": 2, "n01739381": 1, "n02105855": 1,
    }  # fmt: skip
    grey = 0
    for i, label in enumerate(splits.train.labels):
        pixel = splits.train.images.central(i)[16, 26].astype(int)
        if label == 0 and np.ptp(pixel) <= 2:
            grey += 1
        else:
            assert np.abs(pixel - RED).max() <= 12
    assert grey == 1
    reds = {
        splits.class_names[label]: int(splits.test.images.central(i)[16, 26, 0])
        for i, label in enumerate(splits.test.labels)
    }
    assert reds == {wnid: pytest.approx(60 * n, abs=4) for n, wnid in enumerate(VAL_WNIDS, 1)}


def test_the_places_are_kept_and_found_again_if_files_changed(prepared, monkeypatch):
    before = data.load(settings(prepared))
    (version,) = (prepared / "imagenet2012").iterdir()
    kept = version / "dml_tf-train-index.npz"
    assert kept.exists()
    with monkeypatch.context() as patch:
        patch.setattr(imagenet_tfds, "_read_through", None)
        for place in (prepared, version):  # either folder may be given
            again = data.load(settings(place))
            np.testing.assert_array_equal(again.train.images.ranges, before.train.images.ranges)
    with np.load(kept) as saved:
        arrays = dict(saved)
    np.savez(kept, **arrays | {"sizes": arrays["sizes"] + 1, "labels": arrays["labels"] + 1})
    assert data.load(settings(prepared)).train.labels.tolist() == before.train.labels.tolist()


def test_a_batch_comes_from_prepared_records(prepared):
    asked = settings(prepared, batch_size=4)
    splits = data.load(asked)
    ((images, labels),) = collect(data.train_batches(splits, asked), 1)
    assert images.shape == (4, 16, 16, 3) and sorted(labels) == sorted(splits.train.labels)


def test_records_that_are_damaged_or_of_another_format_are_refused(tmp_path):
    write_tars(tmp_path)  # beside the folder, not in downloads/manual
    data.load(settings(tmp_path))
    (version,) = (tmp_path / "imagenet2012").iterdir()
    shard = next(version.glob("*train.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{shard.name} is damaged"):
        data.load(settings(tmp_path))


# The generated stand-in


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return imagenet_mini.ensure(tmp_path_factory.mktemp("data") / "imagenet_mini")


def test_the_stand_in_has_imagenets_layout_and_says_that_it_is_generated(generated):
    splits = data.load(settings(generated, dataset="imagenet_mini", image_size=0))
    assert splits.name == "imagenet_mini (generated)"
    assert splits.train.images.shape == (2000, 224, 224, 3)
    assert np.bincount(splits.train.labels).tolist() == [100] * 20
    assert np.bincount(splits.test.labels).tolist() == [25] * 20
    assert data.load(settings(generated)).name.startswith("ImageNet (a part")  # true format
    assert "no part of ImageNet" in (generated / "README.txt").read_text()
    sides = set()
    for path in itertools.islice(generated.glob("train/n00000007/n00000007_*.JPEG"), 20):
        with Image.open(path) as picture:
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            sides.add(picture.size)
    assert len(sides) > 10 and min(min(side) for side in sides) >= 96


def test_the_stand_in_is_made_once_and_nothing_is_overwritten(generated, tmp_path, capsys):
    before = (generated / "README.txt").stat().st_mtime_ns
    assert imagenet_mini.ensure(generated) == generated
    assert (generated / "README.txt").stat().st_mtime_ns == before
    (tmp_path / "mine").touch()
    with pytest.raises(FileExistsError, match="is not empty"):
        data.load(settings(tmp_path, dataset="imagenet_mini"))
    assert main(["imagenet_mini", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_run_on_the_stand_in_leaves_its_record(generated, tmp_path):
    asked = config.load(
        dataset="imagenet_mini", data_dir=str(generated), net=("resnet8:4",), cohort=2, steps=2,
        batch_size=4, train_images=40, image_size=16, results_dir=str(tmp_path),
    )  # fmt: skip
    record = train.run(asked, verbose=0)
    assert record["data"] == "imagenet_mini (generated)"
    assert record["images"] == {"train": 40, "test": 500}
    assert records.find(asked) == record
