"""The structure: which module may import which, and what starts without TensorFlow."""

import ast
import doctest
import graphlib
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import dml_tf

ROOT = Path(dml_tf.__file__).parent

# The rooms from left to right. A room imports only from rooms to its left.
ROOMS = (
    ("reid", "networks", "data"),
    ("method",),
    ("measures",),
    ("runs",),
    ("paper", "export"),
    ("tools",),
)
FOR_ALL = {"after_keras", "atomic", "errors", "home", "version"}


def imported_by(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """The room of `dml_tf.room.module`, None for other packages and the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "dml_tf" and len(parts) > 1 else None


def module_of(file):
    return ".".join(["dml_tf", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    )


FILES = {module_of(file): file for file in ROOT.rglob("*.py")}


def test_every_module_stands_in_a_room():
    rooms = {room for column in ROOMS for room in column}
    assert {room_of(module) for module in FILES} == rooms | FOR_ALL | {None, "__main__"}


@pytest.mark.parametrize("column", range(len(ROOMS)))
def test_a_room_imports_only_from_rooms_to_its_left(column):
    allowed = FOR_ALL | {room for left in ROOMS[:column] for room in left}
    for room in ROOMS[column]:
        used = {
            room_of(name)
            for module, file in FILES.items()
            if room_of(module) == room
            for name in imported_by(file)
        }
        assert used <= allowed | {room, None}, room


def test_no_modules_import_each_other_in_a_circle():
    graph = {}
    for module, file in FILES.items():
        names = set(imported_by(file))
        parents = {name.rpartition(".")[0] for name in names}
        graph[module] = ({n for n in names if n in FILES} | (parents & FILES.keys())) - {
            module, "dml_tf", module.rpartition(".")[0],
        }  # fmt: skip
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names a circle
    assert len(order) == len(FILES)


def test_only_the_executor_needs_ray():
    users = [
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if any(name.split(".")[0] == "ray" for name in imported_by(file))
    ]
    assert users == ["paper/ray_executor.py"]


def test_only_one_module_defines_flags():
    readers = [
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if any(name.startswith("absl") for name in imported_by(file))
    ]
    assert readers == ["runs/flags.py"]


@pytest.mark.parametrize(
    "statement",
    [
        "import dml_tf",
        "from dml_tf.runs import config; config.load(dataset='digits', net=('resnet8',)).run_id",
        "from dml_tf.paper import page, run_all, tables",
        "from dml_tf.data import epoch_draws",
        "from dml_tf import reid",
        "from dml_tf.export import folder",
        "from dml_tf.measures import analysis, evaluate, posteriors, rankings",
        "from dml_tf.tools import commands; commands.main(['--help'])",
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
