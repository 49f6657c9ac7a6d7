"""The READMEs: their figures are the records', and what they name is there."""

import re

import pytest

from dml_tf import home, readme
from dml_tf.runs import flags

TEXTS = [file.read_text(encoding="utf-8") for file in readme.FILES]
TEXT = TEXTS[0]


@pytest.mark.parametrize("text", TEXTS, ids=map(str, readme.FILES))
def test_every_figure_is_what_the_records_say(text):
    assert readme.fill(text) == text


def test_a_changed_figure_is_found():
    stale = TEXT.replace("<!-- end of figures -->", "| 100.00 |\n<!-- end of figures -->", 1)
    assert readme.fill(stale) == TEXT


def test_every_block_is_filled():
    names = re.findall(r"<!-- figures: (\w+) -->\n(?!<!--)", "".join(TEXTS))
    assert sorted(names) == sorted(readme.FIGURES)


def commands():
    for line in "".join(TEXTS).splitlines():
        line = line.strip().partition("  #")[0].strip()
        if line.startswith("python train.py --") and "--help" not in line:
            yield line


@pytest.mark.parametrize("command", list(commands()))
def test_every_training_command_has_flags_that_are_taken(command):
    assert flags.parse(command.split()[2:]).run_id


NAMED = sorted(set(re.findall(r"`((?:flags|results|tests)/[a-z0-9_./]+)`", "".join(TEXTS))))


@pytest.mark.parametrize("path", NAMED)
def test_files_that_are_named_are_there(path):
    assert (home.HOME / path).exists()
