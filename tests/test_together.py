"""Several processes in one folder: locked or merged, never corrupted."""

import errno
import fcntl
import itertools
import os
import subprocess
import threading

import pytest

from dml_tf.errors import RunFailed, exit_status
from dml_tf.paper import checksums, page, workers
from dml_tf.paper.scales import BY_NAME
from dml_tf.runs import config, records, train
from dml_tf.runs.files import RunFiles, hold
from tests.disk import small_disk

SMALL = {"dataset": "digits", "net": "resnet8:2", "image_size": 8, "batch_size": 16}


def settings(folder, **changes):
    changes = {"steps": 1, "train_images": 16, **changes}
    return config.load(**{**SMALL, "results_dir": str(folder), **changes})


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with hold(tmp_path / "lock", RunFailed("busy")):
            os.write(write, b"1")
            threading.Event().wait()
    os.read(read, 1)
    with pytest.raises(RunFailed, match="busy"), hold(tmp_path / "lock", RunFailed("busy")):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)
    with hold(tmp_path / "lock", RunFailed("busy")):
        pass


def test_a_report_sees_each_record_whole_while_runs_finish(tmp_path, synthetic_records):
    runs = synthetic_records(tmp_path, ["table3"], 2)
    found = [(RunFiles.of(run).record, records.read(RunFiles.of(run).record)) for run in runs]
    page.tables.write(BY_NAME["mini"], tmp_path, ["table3"])
    table = (tmp_path / "table3.csv").read_bytes()
    ended, written = threading.Event(), 0

    def finish_runs():
        nonlocal written
        for file, record in itertools.cycle(found):
            records.write(record, file)
            written += 1
            if ended.is_set():
                return

    thread = threading.Thread(target=finish_runs)
    thread.start()
    try:
        while written < 2 * len(found):
            page.tables.write(BY_NAME["mini"], tmp_path, ["table3"])
            assert (tmp_path / "table3.csv").read_bytes() == table
    finally:
        ended.set()
        thread.join()


def write_tables(folder, text):
    for _ in range(20):
        with checksums.listed(folder, ["table2"]) as written:
            checksums.write_text(folder / "table2.csv", text)
            written.append(folder / "table2.csv")


def test_two_reports_at_a_time_wait_for_each_other(tmp_path, capsys):
    threads = [threading.Thread(target=write_tables, args=(tmp_path, text)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checksums.altered(tmp_path) == [] and capsys.readouterr().out == ""


def test_on_a_disk_without_locks_a_run_goes_on(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with hold(tmp_path / "lock", RunFailed("busy")), pytest.raises(RunFailed, match="busy"):
        with hold(tmp_path / "lock", RunFailed("busy")):
            pass
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with hold(tmp_path / "lock", RunFailed("busy")), hold(tmp_path / "lock", RunFailed("busy")):
        pass


def test_a_read_only_folder_still_shows_its_runs_and_refuses_new_ones_at_once(tmp_path, capsys):
    asked = settings(tmp_path / "disk")
    try:
        with small_disk(tmp_path / "disk", "20m"):
            record = train.run(asked, verbose=0)
            options = ["mount", "-o", "remount,ro", str(tmp_path / "disk")]
            subprocess.run(options, check=True, capture_output=True)
            assert train.run(asked, verbose=0) == record
            new = asked.replace(seed=1)
            assert exit_status("train.py", lambda: train.run(new, verbose=0)) == 1
            expected = f"train.py: {tmp_path}/disk: It cannot be written. Use a folder that can"
            assert capsys.readouterr().err.startswith(expected)
    except PermissionError as error:
        pytest.skip(str(error))


def die_of_memory(report):
    raise MemoryError


def test_a_task_without_enough_memory_fails_alone(tmp_path):
    task = workers.Task("a", die_of_memory, (), tmp_path / "a.log")
    kind, text = workers.perform(task, lambda text: None)
    assert kind == "failed" and "too little memory" in text


def test_a_task_whose_log_cannot_be_written_fails_in_words(tmp_path):
    (tmp_path / "logs").write_text("")
    task = workers.Task("a", die_of_memory, (), tmp_path / "logs" / "a.log")
    kind, text = workers.perform(task, lambda text: None)
    assert kind == "failed" and "A file has the name of the folder" in text
