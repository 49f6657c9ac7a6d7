"""A run belongs to its data: other pictures never get its record, checkpoint or teacher."""

import hashlib
import os
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dml_tf import data
from dml_tf.data import identity
from dml_tf.errors import RecordMismatch, RunFailed
from dml_tf.runs import build, config, records, train
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.files import RunFiles


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_pictures(root, seed=0, each=4):
    rng = np.random.default_rng(seed)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def settings(tmp_path, folder, **changes):
    small = {"net": "resnet8:4", "image_size": 8, "batch_size": 4, "augment": "none", "steps": 1}
    places = {"data_dir": str(folder), "results_dir": str(tmp_path / "results")}
    return config.load(**{"dataset": "image_folder", **small, **places, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with pictures, and with the results of a run on them."""
    root = tmp_path_factory.mktemp("trained")
    train.run(settings(root, write_pictures(root / "pictures")), verbose=0)
    return root


@pytest.fixture
def finished(tmp_path, trained):
    """A finished run on pictures in folders, and its record."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    asked = settings(tmp_path, tmp_path / "pictures")
    return asked, records.read(RunFiles.of(asked).record)


def test_a_record_counts_for_the_same_pictures_wherever_they_are(tmp_path, finished):
    asked, record = finished
    assert record["identity"]["parts"]["train"]["files"] == 8
    moved = shutil.copytree(asked.data_dir, tmp_path / "moved")
    (moved / "notes.txt").write_text("no picture")
    assert train.run(asked.replace(data_dir=str(moved)), verbose=0) == record


def more(root):
    for i in range(20):
        shutil.copy(root / "train/cat/0.png", root / f"train/cat/more{i}.png")
    return "train has 20 files more \\(28, before 8\\)"


def fewer(root):
    (root / "test/dog/0.png").unlink()
    return "test has 1 files fewer"


def changed(root):
    shutil.copy(root / "train/cat/1.png", root / "train/cat/0.png")
    return "train has as many files as before \\(8\\), with other names or contents"


def swapped(root):
    (root / "train/cat/0.png").rename(root / "train/cat/9.png")
    return "train has as many"


def new_part(root):
    shutil.copytree(root / "test", root / "validation")
    return "validation is new"


def renamed_class(root):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / "cats")
    return "with other names"


@pytest.mark.parametrize("change", [more, fewer, changed, swapped, new_part, renamed_class])
def test_the_record_of_other_pictures_is_refused_with_what_differs(finished, tmp_path, change):
    asked, record = finished
    message = change(tmp_path / "pictures")
    with pytest.raises(RecordMismatch, match=message):
        train.run(asked, verbose=0)
    assert records.read(RunFiles.of(asked).record) == record


def test_weights_that_were_altered_after_their_run_are_refused(finished, tmp_path):
    asked, record = finished
    weights = RunFiles.of(asked).model
    assert record["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    splits = build.load_data(asked)
    pupil = asked.replace(method="distill", net=("resnet8:4",) * 2, cohort=2, teacher=asked.run_id)
    assert build.load_teacher(pupil, splits).name == "resnet8"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    for other in (pupil, asked.replace(pretrained=asked.run_id), asked.replace(analyse=True)):
        with pytest.raises(RecordMismatch, match="not the file that its run left"):
            train.run(other, verbose=0)


def test_other_pictures_are_trained_anew_with_overwrite(finished, tmp_path):
    asked, record = finished
    more(tmp_path / "pictures")
    again = train.run(asked.replace(overwrite=True), verbose=0)
    assert again["images"]["train"] == 28 and again["identity"] != record["identity"]
    assert train.run(asked, verbose=0) == again


def test_a_data_folder_that_is_gone_or_empty_is_an_error_after_the_run_too(finished, tmp_path):
    asked, _ = finished
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match="pictures does not exist"):
        train.run(asked, verbose=0)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FileNotFoundError, match="pictures is empty"):
        train.run(asked, verbose=0)
    (tmp_path / "pictures" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(RunFailed, match="single class"):
        train.run(asked, verbose=0)


def test_an_analysis_is_not_added_for_other_pictures(finished, tmp_path):
    asked, _ = finished
    more(tmp_path / "pictures")
    with pytest.raises(RecordMismatch, match="made with other data"):
        train.run(asked.replace(analyse=True), verbose=0)


def test_a_record_from_before_data_were_compared_still_counts(finished):
    asked, record = finished
    old = {key: value for key, value in record.items() if key not in ("identity", "digest")}
    records.write(old, RunFiles.of(asked).record)
    assert train.run(asked, verbose=0) == old


def test_a_record_with_a_digest_only_is_compared_by_its_images(finished, tmp_path):
    asked, record = finished
    records.write({**record, "identity": {}}, RunFiles.of(asked).record)
    assert train.run(asked, verbose=0) == {**record, "identity": {}}
    changed(tmp_path / "pictures")
    with pytest.raises(RecordMismatch, match="images, labels or classes"):
        train.run(asked, verbose=0)


def test_a_teacher_of_other_pictures_is_refused_and_trained_anew_with_overwrite(finished, tmp_path):
    asked, record = finished
    pair = settings(tmp_path, asked.data_dir, net="resnet8:4,resnet8:4", method="distill")
    assert pair.default_teacher.run_id == asked.run_id
    more(tmp_path / "pictures")
    for taught in (pair, pair.replace(teacher=asked.run_id)):
        with pytest.raises(RecordMismatch, match="train has 20 files more"):
            train.run(taught, verbose=0)
    train.ensure_teacher(pair.replace(overwrite=True))
    assert records.read(RunFiles.of(asked).record)["images"]["train"] == 28


def test_a_teacher_of_another_data_set_is_refused(finished, tmp_path):
    asked, record = finished
    other = {**record, "config": {**record["config"], "dataset": "cifar10"}}
    records.write(other, RunFiles.of(asked).record)
    pair = settings(tmp_path, asked.data_dir, cohort=2, method="distill", teacher=asked.run_id)
    with pytest.raises(RecordMismatch, match="trained on cifar10, this run is on image_folder"):
        train.run(pair, verbose=0)


def test_a_checkpoint_of_other_pictures_is_refused_or_left_behind_with_overwrite(tmp_path, capsys):
    asked = settings(tmp_path, write_pictures(tmp_path / "pictures"))

    def checkpoint(run):
        splits = build.load_data(run)
        cohort = build.build_cohort(run, splits)
        made = Checkpoint(tmp_path / "state", run, splits=splits)
        made.set_model(cohort)
        return made, cohort

    made, cohort = checkpoint(asked)
    made.on_train_begin()
    made.on_epoch_end(0, {"resnet8_accuracy": 0.5})
    made.on_train_end()
    assert checkpoint(asked)[0].restore(cohort) == 1
    changed(tmp_path / "pictures")
    with pytest.raises(RecordMismatch, match="other names or contents"):
        checkpoint(asked)[0].restore(cohort)
    assert checkpoint(asked.replace(overwrite=True))[0].restore(cohort) == 0
    assert "starts from its first epoch" in capsys.readouterr().out


def test_a_record_with_digests_of_fewer_parts_counts(finished):
    asked, record = finished
    old = {**record, "identity": {}, "digest": dict(list(record["digest"].items())[:1])}
    records.write(old, RunFiles.of(asked).record)
    assert records.reusable(asked) == old


# Files


def test_unchanged_files_are_read_once_and_touched_ones_again(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(identity, "_SETTLED_NS", 0)
    files = sorted(write_pictures(tmp_path / "pictures").glob("train/*/*"))
    first = identity.of_files({"train": files})
    assert len(list((cache / "dml_tf").iterdir())) == 1
    reads = []
    read = identity._read
    monkeypatch.setattr(identity, "_read", lambda files: reads.append(1) or read(files))
    assert identity.of_files({"train": files}) == first and not reads
    os.utime(files[0])
    assert identity.of_files({"train": files}) == first and reads == [1]


def test_files_that_have_just_changed_are_not_trusted(tmp_path, cache):
    file = tmp_path / "a.bin"
    file.write_bytes(b"1234")
    first = identity.of_files({"files": [file]})
    file.write_bytes(b"4321")
    assert identity.of_files({"files": [file]}) != first
    assert not cache.exists()


def cifar(folder):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        pixels = rng.integers(0, 256, (4, 3073), np.uint8)
        pixels[:, 0] %= 10
        (folder / name).write_bytes(pixels.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    return folder


def test_the_same_images_packed_or_unpacked_are_the_same_data(tmp_path):
    folder = cifar(tmp_path / "plain" / "cifar-10-batches-bin")
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    asked = settings(tmp_path, folder.parent, dataset="cifar10", image_size=8)
    record = train.run(asked, verbose=0)
    assert train.run(asked.replace(data_dir=str(packed)), verbose=0) == record
    (folder / "test_batch.bin").write_bytes((folder / "data_batch_1.bin").read_bytes())
    with pytest.raises(RecordMismatch, match="test has as many files as before"):
        train.run(asked, verbose=0)


@pytest.mark.parametrize("dataset", ["digits", "shapes100", "imagenet_mini", "pedestrians"])
def test_what_we_make_ourselves_has_a_version_and_needs_no_files(dataset):
    found = data.identify(SimpleNamespace(dataset=dataset, data_dir=""))
    assert found == {"version": f"{dataset} 1"}


def test_a_generated_folder_of_the_users_own_is_compared_by_its_files(tmp_path):
    from dml_tf.data.generated import pedestrians

    sizes = pedestrians.Sizes(train_identities=2, test_identities=2, distractors=1, junk=1)
    pedestrians.write(tmp_path / "people", sizes)
    asked = SimpleNamespace(dataset="pedestrians", data_dir=str(tmp_path / "people"))
    first = data.identify(asked)
    assert set(first["parts"]) == {"bounding_box_train", "query", "bounding_box_test", "gt_bbox"}
    next((tmp_path / "people" / "query").iterdir()).unlink()
    assert data.differences(first, data.identify(asked))[0].startswith("query has 1 files fewer")


def test_a_prepared_version_stands_in_place_of_files(tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    asked = SimpleNamespace(dataset="cifar10", data_dir=str(tmp_path))
    assert data.identify(asked) == {"version": "TensorFlow Datasets cifar10 3.0.2"}
    files = {"parts": {"files": {"files": 1, "bytes": 1, "digest": ""}}}
    (phrase,) = data.differences(files, data.identify(asked))
    assert phrase == "it is TensorFlow Datasets cifar10 3.0.2, before files of --data_dir"
