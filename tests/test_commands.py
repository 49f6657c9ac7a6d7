"""The command `dml_tf`: its list, its help, and what it does with a wrong name."""

import importlib
import re
import runpy
import tomllib

import pytest

from dml_tf import home
from dml_tf.runs import flag_help, flags
from dml_tf.runs.config import FIELDS
from dml_tf.tools import commands, train

PYPROJECT = tomllib.loads((home.HOME / "pyproject.toml").read_text(encoding="utf-8"))


def test_help_lists_every_command_with_an_example(capsys):
    assert commands.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in commands.COMMANDS.items():
        assert command.summary in text
        assert command.example.startswith(f"dml_tf {name} ")
        assert command.example in text


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help(name, capsys):
    main = importlib.import_module(commands.COMMANDS[name].module).main
    try:
        status = main(["--help"])
    except SystemExit as exit:
        status = exit.code
    assert status == 0
    assert len(capsys.readouterr().out) > 100


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["trian"], "there is no command trian. Did you mean train?"), ([], "name a command")],
)
def test_a_wrong_command_is_refused(argv, message, capsys):
    assert commands.main(argv) == 2
    assert message in capsys.readouterr().err


def test_the_help_on_flags_is_grouped_and_shows_each_flag_once():
    text = flags.flag_help()
    assert re.findall(r"^[A-Z]\w+$", text, re.MULTILINE) == list(flag_help.GROUPS)
    assert sorted(re.findall(r"^  --(\w+)", text, re.MULTILINE)) == sorted(FIELDS)
    assert {name for names in flag_help.GROUPS.values() for name in names} <= set(FIELDS)


def test_a_flag_of_no_group_stands_at_the_end(monkeypatch):
    monkeypatch.setitem(flag_help.GROUPS, "Data", ("dataset",))
    assert flag_help.text(FIELDS).rindex("--data_dir ") > flag_help.text(FIELDS).index("Run\n")


def test_messages_name_the_command_that_was_called(capsys):
    assert train.main(["--dataset=digits"]) == 2
    assert capsys.readouterr().err.startswith("dml_tf train: --net is missing")


def test_a_module_that_is_no_command_does_not_end_well():
    with pytest.raises(SystemExit, match="Train with `dml_tf train`"):
        runpy.run_path(str(home.PACKAGE / "runs" / "train.py"), run_name="__main__")
    with pytest.raises(ImportError, match=r"dml_tf\.train"):
        runpy.run_module("dml_tf.train", run_name="__main__")


def test_the_extras_ask_for_what_the_requirements_files_ask_for():
    cluster = (home.HOME / "requirements-cluster.txt").read_text(encoding="utf-8")
    assert PYPROJECT["project"]["optional-dependencies"]["cluster"] == re.findall(
        r"^ray.*$", cluster, re.MULTILINE
    )
    assert {"gpu", "export", "docs"} < PYPROJECT["project"]["optional-dependencies"].keys()
