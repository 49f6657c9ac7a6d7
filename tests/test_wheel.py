"""The wheel: installed into an empty folder, it trains with the same settings as the checkout."""

import json
import shutil
import subprocess
import sys

import pytest

from dml_tf import home
from dml_tf.data import DATASETS
from dml_tf.errors import FlagError
from dml_tf.runs import config, flag_files

SHIPPED = ("results/paper.csv", "results/benchmarks/step_times.json")
PRINT_SETTINGS = """
import json, sys
from dml_tf import home
from dml_tf.runs import config
asked, files = json.loads(sys.argv[1])
settings = [config.load(**each).comparable() for each in asked]
print(json.dumps([settings, str(home.HOME), [home.shipped(f).is_file() for f in files]]))
"""


def every_setting():
    scales = [{}, {"scale": "cpu"}, {"scale": "paper"}]
    return [{"dataset": d, "net": ["resnet8"], **scale} for d in DATASETS for scale in scales]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An empty folder into which pip has built and installed the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("dml_tf", "flags"):
        shutil.copytree(home.HOME / name, source / name, ignore=shutil.ignore_patterns("__pyc*"))
    for name in ("pyproject.toml", "README.md", "requirements.txt", *SHIPPED):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home.HOME / name, source / name)
    site = folder / "site"
    command = [
        sys.executable, "-m", "pip", "install", ".", "--no-deps", "--no-build-isolation", "--quiet",
        "--disable-pip-version-check", f"--target={site}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def run_installed(installed, folder, *arguments):
    command = [sys.executable, *arguments]
    environment = {"PYTHONPATH": str(installed), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_has_every_module_and_every_flag_file(installed):
    package = home.HOME / "dml_tf"
    modules = {file.relative_to(package) for file in package.rglob("*.py")}
    assert modules == {f.relative_to(installed / "dml_tf") for f in installed.rglob("*.py")}
    flags = {file.relative_to(home.HOME) for file in (home.HOME / "flags").rglob("*.flags")}
    assert flags == {f.relative_to(installed / "dml_tf") for f in installed.rglob("*.flags")}


def test_an_installed_package_loads_the_settings_of_the_checkout(installed, tmp_path):
    asked = every_setting()
    finished = run_installed(
        installed, tmp_path, "-c", PRINT_SETTINGS, json.dumps([asked, SHIPPED])
    )
    assert finished.returncode == 0, finished.stderr
    settings, place, shipped = json.loads(finished.stdout)
    assert settings == [config.load(**each).comparable() for each in asked]
    assert place == str(tmp_path)  # results are written to the present folder
    assert shipped == [True] * len(SHIPPED)


def test_a_missing_flag_file_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(flag_files, "FLAG_FILES", tmp_path)
    flag_files.settings_of.cache_clear()
    with pytest.raises(FlagError, match=r"Cannot read the flag file .*digits\.flags"):
        config.load(dataset="digits", net=("resnet8",))
    flag_files.settings_of.cache_clear()


def test_a_flag_file_with_another_line_is_refused(monkeypatch, tmp_path):
    (tmp_path / "digits.flags").write_text("--epochs=3\nepochs 4\n")
    monkeypatch.setattr(flag_files, "FLAG_FILES", tmp_path)
    flag_files.settings_of.cache_clear()
    with pytest.raises(FlagError, match="'epochs 4' is not of the form --name=value"):
        config.load(dataset="digits", net=("resnet8",))
    flag_files.settings_of.cache_clear()
