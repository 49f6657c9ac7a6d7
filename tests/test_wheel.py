"""The wheel: installed into an empty folder, it trains with the same settings as the checkout."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv

import numpy as np
import pytest
from PIL import Image

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


def files_of(package):
    """All files of a package but what Python compiles, by their place in it."""
    files = {file.relative_to(package) for file in package.rglob("*") if file.is_file()}
    return {file for file in files if "__pycache__" not in file.parts}


def test_the_wheel_has_every_file_of_the_package_and_every_flag_file(installed):
    package = installed / "dml_tf"
    assert files_of(home.HOME / "dml_tf") <= files_of(package)
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


@pytest.mark.slow
def test_each_command_works_in_an_empty_folder(installed, tmp_path):
    """As docs/deploying.md goes: own pictures, a run, its list, predictions, files to deploy."""

    def dml_tf(line):
        done = run_installed(installed, tmp_path, "dml_tf", *line.split())
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    draw_pictures(tmp_path / "pictures")
    dml_tf(
        "train --dataset=image_folder --data_dir=pictures --net=resnet8:4 --cohort=2 --epochs=3 "
        "--image_size=16 --batch_size=8"
    )
    (record,) = tmp_path.glob("results/pictures/runs/*.json")
    run = record.stem
    assert run in dml_tf("runs")
    answers = dml_tf(f"predict {run} pictures/red/0.png --json=-")
    assert "0.png" in answers and "ensemble" in json.dumps(json.loads(answers))
    assert "100.00%" in dml_tf(f"deploy {run} phone --data_dir=pictures --format=keras,litert")
    assert {"model.keras", "model.tflite"} <= {file.name for file in (tmp_path / "phone").iterdir()}
    assert "red" in dml_tf("predict phone/model.tflite pictures/red/0.png")
    dml_tf("paper run --scale=smoke --only=section31 --seeds=1 --jobs=1")
    assert (tmp_path / "results" / "smoke" / "report.html").stat().st_size > 10_000
    dml_tf("export write --dataset=digits --net=resnet8:4 --cohort=2 --steps=2 exported/pair")
    assert (tmp_path / "exported" / "pair" / "step.mlir").is_file()


def draw_pictures(folder):
    """Class folders with twenty noisy pictures each, of one colour."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 100, (16, 16, 3), np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


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
