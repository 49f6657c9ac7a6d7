"""The command that draws rankings: wrong input becomes one line and an exit status."""

import numpy as np
import pytest

from dml_tf.measures import rankings


def error_of(capsys, *flags):
    assert rankings.main(flags) == 1
    line, end = capsys.readouterr().err.split("\n")
    assert line.startswith("python -m dml_tf.measures.rankings: ") and not end
    return line


def test_a_missing_features_file_is_an_error_that_names_the_command(tmp_path, capsys):
    file = tmp_path / "features.npz"
    line = error_of(capsys, f"--features={file}", f"--data_dir={tmp_path}")
    assert f"{file} does not exist. Write it with `python train.py" in line


def test_a_file_without_features_is_an_error_that_names_what_it_lacks(tmp_path, capsys):
    file = tmp_path / "features.npz"
    np.savez(file, query_features=np.eye(2))
    line = error_of(capsys, f"--features={file}", f"--data_dir={tmp_path}")
    assert "is not a features file (without query_pids, " in line


def test_a_missing_data_set_is_an_error(tmp_path, capsys):
    sides = ("query", "gallery")
    kinds = {"features": np.eye(2), "pids": np.arange(2), "camids": np.arange(2), "names": ["", ""]}
    arrays = {f"{side}_{kind}": values for side in sides for kind, values in kinds.items()}
    file = tmp_path / "features.npz"
    np.savez(file, **arrays)
    assert str(tmp_path) in error_of(capsys, f"--features={file}", f"--data_dir={tmp_path}")
    line = error_of(capsys, f"--features={file}", f"--data_dir={tmp_path}", "--queries=2")
    assert "there is no query 2. Give numbers from 0 to 1." in line


@pytest.mark.parametrize("flag", ["--top=0", "--queries=one", "--queries="])
def test_bad_arguments_are_refused(flag, capsys):
    with pytest.raises(SystemExit, match="2"):
        rankings.main(["--features=f.npz", "--data_dir=data", flag])
    assert flag.partition("=")[0] in capsys.readouterr().err
