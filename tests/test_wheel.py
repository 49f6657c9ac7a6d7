"""The wheel: installed into an empty folder, it trains with the same settings as the checkout."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv

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
    """An environment of its own into which pip has installed the wheel that it built."""
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "environment"
    for name in ("dml_tf", "flags"):
        shutil.copytree(home.HOME / name, source / name, ignore=shutil.ignore_patterns("__pyc*"))
    for name in ("pyproject.toml", "README.md", "requirements.txt", *SHIPPED):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(home.HOME / name, source / name)
    pip("wheel", source, "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}")
    venv.create(environment, with_pip=False)
    (wheel,) = folder.glob("*.whl")
    pip(f"--python={environment}/bin/python", "install", "--no-deps", wheel)
    (site,) = environment.glob("lib/python*/site-packages")
    # What the package needs comes from this environment: to install it takes minutes.
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return site


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    command += ["--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_installed(installed, folder, program, *arguments):
    """Runs a program of the environment in a folder."""
    command = [installed.parents[2] / "bin" / program, *arguments]
    environment = {"PATH": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_has_every_module_and_every_flag_file(installed):
    package = home.HOME / "dml_tf"
    modules = {file.relative_to(package) for file in package.rglob("*.py")}
    package = installed / "dml_tf"
    assert modules == {file.relative_to(package) for file in package.rglob("*.py")}
    flags = {file.relative_to(home.HOME) for file in (home.HOME / "flags").rglob("*.flags")}
    assert flags == {file.relative_to(package) for file in package.rglob("*.flags")}


def test_an_installed_package_loads_the_settings_of_the_checkout(installed, tmp_path):
    asked = every_setting()
    finished = run_installed(
        installed, tmp_path, "python", "-c", PRINT_SETTINGS, json.dumps([asked, SHIPPED])
    )
    assert finished.returncode == 0, finished.stderr
    settings, place, shipped = json.loads(finished.stdout)
    assert settings == [config.load(**each).comparable() for each in asked]
    assert place == str(tmp_path)  # results are written to the present folder
    assert shipped == [True] * len(SHIPPED)


def test_the_installed_command_trains_in_an_empty_folder(installed, tmp_path):
    train = "train --dataset=digits --net=resnet8:4 --steps=1 --train_images=64 --image_size=8"
    done = run_installed(installed, tmp_path, "dml_tf", *train.split())
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert len(list(tmp_path.glob("results/mini/models/*.keras"))) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["results"]


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
