"""The structure: which module may import which, and what starts without TensorFlow."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import dml_tf

ROOT = Path(dml_tf.__file__).parent

# Module -> what it may import of the package, directly.
ALLOWED = {
    "version": set(),
    "startup": set(),
    "losses": set(),
    "metrics": set(),
    "reid": set(),
    "networks": set(),
    "data": set(),
    "config": {"data"},
    "cohort": {"losses", "networks", "optimizers"},
    "entropy_sgd": set(),
    "optimizers": {"config", "entropy_sgd"},
    "records": {"config"},
    "evaluate": {"cohort", "data", "metrics", "reid"},
    "analysis": {"cohort", "config", "data", "evaluate", "metrics"},
    "cluster": {"config", "startup"},
    "placement": {"cluster", "cohort", "config"},
    "distribute": {"cohort"},
    "state": set(),
    "checkpoint": {"config", "records", "state"},
    "exported": {"data", "state"},
    "portable": {"data", "exported"},
    "run_step": {"exported", "portable", "state"},
    "check_step": {"exported", "portable"},
    "scales": set(),
    "experiments": {"config", "scales"},
    "estimate": {"config", "records"},
    "claims": {"experiments"},
    "tables": {"claims", "config", "experiments", "records", "scales"},
    "drawings": {"data", "experiments"},
    "figures": {"drawings", "experiments", "scales", "tables"},
    "markup": {"experiments", "tables"},
    "page": {
        "claims",
        "config",
        "drawings",
        "experiments",
        "figures",
        "markup",
        "scales",
        "tables",
    },
    "report": {"config", "experiments", "figures", "page", "records", "scales", "tables"},
    "workers": {"startup"},
    "ray_executor": {"config", "workers"},
}


def imported_by(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(module):
    folder = ROOT / module
    return folder.glob("*.py") if folder.is_dir() else [ROOT / f"{module}.py"]


@pytest.mark.parametrize("module", ALLOWED)
def test_imports_point_one_way(module):
    names = [name for file in files_of(module) for name in imported_by(file)]
    ours = {name.split(".")[1] for name in names if name.startswith("dml_tf.")}
    assert ours <= ALLOWED[module] | {module}


def test_only_the_executor_needs_ray():
    users = [
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if any(name.split(".")[0] == "ray" for name in imported_by(file))
    ]
    assert users == ["ray_executor.py"]


def test_only_config_reads_flags():
    readers = [
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if any(name.startswith("absl") for name in imported_by(file))
    ]
    assert readers == ["config.py"]


@pytest.mark.parametrize(
    "statement",
    [
        "import dml_tf",
        "from dml_tf import config; config.load(dataset='digits', net=('resnet8',))",
        "from dml_tf import report, run_all, tables",
        "from dml_tf.data import epoch_draws",
        "from dml_tf import reid",
        "from dml_tf import exported, state",
    ],
)
def test_what_needs_no_tensorflow_does_not_import_it(statement):
    code = f"{statement}\nimport sys\nassert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def modules_with_examples():
    for info in pkgutil.walk_packages(dml_tf.__path__, "dml_tf."):
        file = ROOT.joinpath(*info.name.split(".")[1:])
        file = file / "__init__.py" if info.ispkg else file.with_suffix(".py")
        if ">>> " in file.read_text():
            yield info.name


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_examples_in_docstrings_run(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("name", dml_tf.__all__)
def test_every_public_name_is_there(name):
    assert getattr(dml_tf, name) is not None


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Cohrt'"):
        dml_tf.Cohrt  # noqa: B018
