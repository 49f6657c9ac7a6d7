"""Disks that fail: a message with path and remedy, the last good state, and the way on."""

import errno
import math
import os
import shutil
import subprocess
import time

import keras
import numpy as np
import pytest

from dml_tf import Cohort, atomic
from dml_tf.data.generated import pedestrians
from dml_tf.errors import RecordMismatch, exit_status
from dml_tf.paper import checksums, page
from dml_tf.paper.page import report
from dml_tf.paper.ray_executor import _place
from dml_tf.paper.scales import BY_NAME
from dml_tf.runs import checkpoint, config, files, records, train
from dml_tf.runs.checkpoint import Checkpoint
from dml_tf.runs.files import RunFiles
from tests.disk import FailingDisk, fail_each_change, small_disk

SMALL = {"dataset": "digits", "net": "resnet8:2", "image_size": 8, "batch_size": 16}


def settings(folder, **changes):
    return config.load(**{**SMALL, "steps": 1, "results_dir": str(folder), **changes})


@pytest.fixture(scope="module")
def cohort():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], name="resnet8")
    made = Cohort([network])
    made.compile([keras.optimizers.SGD()])
    return made


@pytest.fixture(autouse=True)
def every_epoch_is_saved(monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", math.inf)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


# The n-th change fails, for each n


def saved(folder, cohort, epochs):
    """A checkpoint after so many epochs, whose first weight is the epoch's number."""
    saver = Checkpoint(folder / "state", settings(folder))
    saver.set_model(cohort)
    saver.restore(cohort)
    saver.on_train_begin()
    for epoch in range(saver._epoch, epochs):
        weight = cohort.networks[0].weights[0]
        weight.assign(np.full(weight.shape, epoch + 1, "float32"))
        saver.on_epoch_end(epoch, {"resnet8_accuracy": 0.5})
    return saver


def restored(folder, cohort):
    """Epoch of the checkpoint, which must hold that epoch's weights."""
    epoch = Checkpoint(folder / "state", settings(folder)).restore(cohort)
    assert np.all(cohort.networks[0].weights[0].numpy() == epoch)
    return epoch


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(folder, cohort, number):
    saved(folder, cohort, 2)

    def is_intact(done):
        assert restored(folder, cohort) in ((3,) if done else (2, 3))

    tried = fail_each_change(folder, lambda: saved(folder, cohort, 3), is_intact, number=number)
    assert tried >= 6  # to rename, open, write, flush, rename, and flush the folder


def test_a_record_that_cannot_be_written_leaves_the_old_one(folder):
    old, new = {"run_id": "a", "test": [1]}, {"run_id": "a", "test": [2] * 5000}
    records.write(old, folder / "runs" / "a.json")

    def is_intact(done):
        assert records.read(folder / "runs" / "a.json") in ((new,) if done else (old, new))

    command = lambda: records.write(new, folder / "runs" / "a.json")  # noqa: E731
    assert fail_each_change(folder, command, is_intact) >= 5


def test_tables_and_the_page_that_cannot_be_written_leave_the_old_ones(
    folder, synthetic_records, monkeypatch
):
    synthetic_records(folder, ["table3"], 2)
    scale, written = BY_NAME["mini"], {}
    monkeypatch.setattr(report.figures, "write", lambda *_: [])
    monkeypatch.setattr(report, "render", lambda *_: "<html>new</html>" * 1000)
    page.write(scale, folder, ["table3"])
    written |= {name: (folder / name).read_bytes() for name in ("table3.csv", "report.html")}

    def is_intact(done):
        assert written == {name: (folder / name).read_bytes() for name in written}
        assert checksums.altered(folder) == []

    tried = fail_each_change(folder, lambda: page.write(scale, folder, ["table3"]), is_intact)
    assert tried >= 15


def test_generated_data_appear_whole_or_not_at_all(folder):
    sizes = pedestrians.Sizes(train_identities=1, test_identities=1, distractors=0, junk=0)
    parts = {"bounding_box_train", "query", "bounding_box_test", "gt_bbox", "pedestrians.json"}

    def is_intact(done):
        found = {path.name for path in folder.glob("people/*")}
        assert found == (parts if done else set())

    command = lambda: pedestrians.write(folder / "people", sizes)  # noqa: E731
    assert fail_each_change(folder, command, is_intact, every=23) >= 4


def test_files_from_another_machine_arrive_whole_or_not_at_all(folder):
    contents = {folder / "runs" / f"{i}.json": b"%d" % i * 9000 for i in range(3)}

    def is_intact(done):
        left = {file: file.read_bytes() for file in contents if file.exists()}
        assert left.items() <= contents.items() and (left == contents or not done)

    assert fail_each_change(folder, lambda: _place(contents), is_intact) >= 15


def test_a_run_whose_record_cannot_be_written_is_resumed_and_ends_with_the_same_record(folder):
    asked = settings(folder, steps=2, train_images=16)
    with FailingDisk(folder, np.inf) as disk:
        whole = train.run(asked, verbose=0)
    shutil.rmtree(folder)
    with (
        FailingDisk(folder, len(disk.changes) - 2),
        pytest.raises(OSError, match="No space .*runs"),
    ):
        train.run(asked, verbose=0)
    assert not RunFiles.of(asked).record.exists()
    record = train.run(asked, verbose=0)
    for part in ("test", "train", "history"):
        assert record[part] == whole[part]


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of 300 kB, and a call that gives it another size."""
    try:
        with small_disk(tmp_path / "disk", "300k") as resize:
            yield tmp_path / "disk", resize
    except PermissionError as error:
        pytest.skip(str(error))


def test_a_full_disk_ends_a_run_in_words_and_with_more_room_it_goes_on(disk, capsys):
    folder, resize = disk
    asked = settings(folder / "r", net="resnet8:8", steps=4, train_images=32)
    assert exit_status("train.py", lambda: train.run(asked, verbose=0) and 0) == 1
    message = capsys.readouterr().err
    assert f"train.py: {folder}/r/" in message and "Make room there" in message
    resize("20m")
    assert train.run(asked, verbose=0)["steps"] == 4


# What was damaged after it was written


def test_each_byte_of_a_checkpoint_that_changes_is_noticed_or_changes_nothing(folder):
    file = folder / "state.npz"
    progress, arrays = {"epoch": 1}, [np.arange(3.0), np.zeros((0,)), np.ones(2, "int8")]
    files.save_state(file, progress, arrays)
    whole = file.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found, values = files.load_state(file)
        except ValueError as error:
            noticed += str(file) in str(error)
            continue
        assert found == progress, place
        for ours, theirs in zip(values, arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert noticed > len(whole) / 2


def test_each_shorter_checkpoint_is_noticed(folder):
    file = folder / "state.npz"
    files.save_state(file, {"epoch": 1}, [np.arange(3.0)])
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="state.npz"):
            files.load_state(file)


def test_the_checkpoint_before_a_damaged_one_is_used_and_kept(folder, cohort, capsys):
    saved(folder, cohort, 2)
    state = folder / "state" / "state.npz"
    state.write_bytes(state.read_bytes()[:-100])
    assert restored(folder, cohort) == 1
    printed = capsys.readouterr().out
    assert f"{state} is damaged" in printed and "after epoch 1 is used" in printed
    assert restored(folder, cohort) == 1 and not capsys.readouterr().out
    saved(folder, cohort, 3)
    assert restored(folder, cohort) == 3
    for file in state.parent.iterdir():
        file.write_bytes(b"")
    with pytest.raises(RecordMismatch, match="state.npz is damaged"):
        restored(folder, cohort)


def test_a_checkpoint_of_other_networks_is_refused(folder, cohort):
    saved(folder, cohort, 1)
    state = folder / "state" / "state.npz"
    progress, arrays = files.load_state(state)
    files.save_state(state, progress, [np.zeros(5), *arrays[1:]])
    with pytest.raises(RecordMismatch, match="is of other networks"):
        restored(folder, cohort)


def test_each_byte_of_a_record_that_changes_is_noticed_or_changes_nothing(folder):
    file, record = folder / "a.json", {"run_id": "a", "test": {"accuracy": 0.125}, "identity": {}}
    records.write(record, file)
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert records.read(file) == record, place
        except RecordMismatch as error:
            assert str(file) in str(error) and "Move it away" in str(error)


def test_a_table_that_was_altered_is_named_and_written_again(folder, synthetic_records, capsys):
    synthetic_records(folder, ["table3"], 2)
    page.write(BY_NAME["mini"], folder, ["table3"])
    table = folder / "table3.csv"
    good = table.read_bytes()
    assert checksums.altered(folder) == [] and "altered" not in capsys.readouterr().out
    subprocess.run(["sha256sum", "--check", "--quiet", checksums.SUMS], cwd=folder, check=True)
    table.write_bytes(good[:-9])
    page.write(BY_NAME["mini"], folder, ["table3"])
    assert f"{table} is damaged, missing, or was altered" in capsys.readouterr().out
    assert table.read_bytes() == good


# What killed processes leave


def test_parts_of_ended_processes_are_swept_and_those_of_others_stay(folder):
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = atomic._HOST
    gone = [f".part{ended.pid}-{host}.a.json", f".part{ended.pid}.b.json"]
    kept = [f".part{os.getppid()}-{host}.a.json", f".part{ended.pid}-00000000.a.json", "a.json"]
    for name in (*gone, *kept):
        (folder / name).write_text("")
    (folder / f".part{ended.pid}-{host}.people.x").mkdir()
    old = folder / f".part{ended.pid}-11111111.a.json"
    old.write_text("")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    atomic.write_text(folder / "new.json", "{}")
    assert {path.name for path in folder.iterdir()} == {*kept, "new.json"}


def test_a_folder_that_vanished_is_made_again(folder, cohort):
    saver = saved(folder, cohort, 1)
    shutil.rmtree(folder)
    saver.on_epoch_end(1, {"resnet8_accuracy": 0.5})
    assert Checkpoint(folder / "state", settings(folder)).restore(cohort) == 2


def test_two_processes_that_do_not_see_each_others_locks_leave_one_whole_checkpoint(folder, cohort):
    saved(folder, cohort, 1)
    first, second = (Checkpoint(folder / "state", settings(folder)) for _ in range(2))
    for saver in (first, second):
        saver.set_model(cohort)
        assert saver.restore(cohort) == 1
        saver.on_train_begin()
    first.on_epoch_end(1, {"resnet8_accuracy": 0.5})
    second.on_epoch_end(1, {"resnet8_accuracy": 0.5})
    assert Checkpoint(folder / "state", settings(folder)).restore(cohort) == 2
    first.delete()  # it was faster
    second.on_epoch_end(2, {"resnet8_accuracy": 0.5})
    assert Checkpoint(folder / "state", settings(folder)).restore(cohort) == 3
