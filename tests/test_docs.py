"""The documents: their code runs, their tables are the records', and what they name exists."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dml_tf import home
from dml_tf.export import TESTED_JAX
from dml_tf.paper import tables
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import BY_NAME
from dml_tf.runs import flags
from docs import figures

ROOT = home.HOME
PAGES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "CONTRIBUTING.md",
        ROOT / "results" / "cpu" / "README.md",
        ROOT / "benchmarks" / "README.md",
    )
}
FLAG_FILES = sorted((ROOT / "flags").rglob("*.flags"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RECIPES = ("sources/stripes.py", "flags/stripes.flags", "networks/plain.py")  # the reader's files


# The Python blocks


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The line at which each block starts, and its code."""
    return [
        (text.count("\n", 0, block.start()) + 2, block[2])
        for block in FENCED.finditer(text)
        if block[1] == "python" and not re.search(r"<!-- not run: .+ -->\n$", text[: block.start()])
    ]


def train_on_a_folder_of_pictures(page: str):
    """Makes what the page on own data needs: a finished run of the page's name, and `new.jpg`."""
    from dml_tf.runs import config, train
    from dml_tf.runs.files import RunFiles

    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            Path("PICTURES", part, name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(pixels).save(f"PICTURES/{part}/{name}/{i}.jpg")
    Image.fromarray(pixels).save("new.jpg")
    run = config.load(
        dataset="image_folder", data_dir="PICTURES", net=("resnet8:4",), cohort=2, image_size=8,
        steps=1, batch_size=8, results_dir="results/PICTURES",
    )  # fmt: skip
    train.run(run, verbose=0)
    named = re.search(r'^run = "(.+?)"', page, re.MULTILINE)[1]
    made, needed = RunFiles.of(run), RunFiles(Path("results/PICTURES"), named)
    made.record.rename(needed.record)
    made.model.rename(needed.model)


PREPARED = {"docs/your-own-data.md": train_on_a_folder_of_pictures}


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(PAGES[page])])
def test_the_python_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if page in PREPARED:
        PREPARED[page](PAGES[page])
    pixels = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    labels = np.arange(8) % 10
    names = {
        "images": pixels, "labels": labels, "test_images": pixels[:4], "test_labels": labels[:4],
    }  # fmt: skip
    blocks = python_blocks(PAGES[page])
    for line, code in blocks:  # an exception names the page and the line
        exec(compile("\n" * (line - 1) + code, ROOT / page, "exec"), names)
    assert blocks and names.keys() - {"images", "labels", "test_images", "test_labels"}


def test_ten_lines_of_pandas_give_the_pooled_gain_of_the_page(monkeypatch):
    ((_, code),) = python_blocks(PAGES["docs/results.md"])
    lines = [line for line in code.splitlines() if line.strip() and "import" not in line]
    assert len(lines) == 10
    monkeypatch.chdir(ROOT)
    names = {}
    exec(code, names)
    cpu, folder = BY_NAME["cpu"], ROOT / "results" / "cpu"
    pooled = tables.judge(ITEMS["table2"].claims[0], cpu.available(folder), folder).pooled
    assert len(names["gain"]) == pooled["seeds"] >= 6
    assert names["gain"].mean() == pytest.approx(pooled["measured"])
    assert names["gain"].std() == pytest.approx(pooled["std"])


# The measured tables


@pytest.mark.parametrize("page", PAGES)
def test_every_table_is_what_the_records_say(page):
    assert figures.fill(PAGES[page]) == PAGES[page]


def test_a_changed_number_is_found():
    stale = PAGES["README.md"].replace("<!-- end of fig", "| 100.00 |\n<!-- end of fig", 1)
    assert figures.fill(stale) == PAGES["README.md"]


def test_every_table_stands_once():
    names = re.findall(r"^<!-- figures: (\w+) -->$", "\n".join(PAGES.values()), re.MULTILINE)
    assert sorted(names) == sorted(figures.FIGURES)


def test_the_gains_in_the_readme_are_those_of_table_2():
    claims = pd.read_csv(ROOT / "results" / "cpu" / "claims.csv").set_index("claim")
    each = claims.loc["Each network of each pair gains from mutual learning"]
    assert (each.conclusion, each.places, each.seeds) == ("Shows", 12, 16)
    text = PAGES["README.md"].replace("\n", " ")
    assert "small networks gain in all twelve places of Table 2: 16 new seeds" in text


def test_messages_name_the_version_of_jax_that_the_requirements_ask_for():
    assert f"\n{TESTED_JAX}  #" in (ROOT / "requirements-pjrt.txt").read_text(encoding="utf-8")


# The commands


def commands(text: str, program: str) -> list[str]:
    """The lines of a page that call a program, without comments."""
    lines = (line.strip().partition("  #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line.startswith(program) and "--help" not in line]


TRAINING = [line for text in PAGES.values() for line in commands(text, "python train.py --")]


@pytest.mark.parametrize("command", dict.fromkeys(TRAINING))
def test_every_training_command_has_flags_that_are_taken(command):
    assert flags.parse(command.split()[2:]).run_id


def test_every_flag_of_run_all_exists():
    given = [line for text in PAGES.values() for line in commands(text, "bash run_all.sh")]
    command = [sys.executable, "-m", "dml_tf.paper", "run", "--help"]
    known = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"--\w+", " ".join(given)))
    assert len(named) > 5
    assert [flag for flag in named if not re.search(rf"{flag}\b", known)] == []


NOT_OURS = ("pip", "venv")
MODULES = sorted(set(re.findall(r"python -m ([\w.]+)", "".join(PAGES.values()))) - set(NOT_OURS))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_a_command_names_can_be_run(module):
    spec = importlib.util.find_spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    assert importlib.util.find_spec(f"{module}.__main__") if is_package else spec


# Files and links


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    text = FENCED.sub("", PAGES[page])
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    broken = []
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        found = file.exists() and (not anchor or anchor in anchors(file.read_text("utf-8")))
        broken += [] if found else [link]
    assert broken == []


NAMED = re.compile(r"`((?:flags|results|tests|dml_tf|docs|benchmarks|examples)/[a-z0-9_./*-]*)`")


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    named = [path for path in set(NAMED.findall(PAGES[page])) if not path.endswith(RECIPES)]
    assert [path for path in named if not list(ROOT.glob(path))] == []


def test_the_page_on_architecture_names_what_is_in_the_files():
    text = PAGES["docs/architecture.md"]
    named = [(f"dml_tf/{file}", name) for file, name in re.findall(r"`([\w/]+\.py): (\w+)`", text)]
    named += re.findall(r"\[(dml_tf/[\w/]+\.py)\]\(\S+\), `(?:\w+\.)?(\w+)`", text)
    assert len(named) > 15
    missing = [
        (file, name)
        for file, name in named
        if not re.search(rf"^\s*(def|class) {name}\b|^{name}\b", (ROOT / file).read_text(), re.M)
    ]
    assert missing == []


# The flag files


@pytest.mark.parametrize("file", FLAG_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_flag_file_opens_with_its_command_time_result_and_section(file):
    header = file.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in header)
    labels = [line[2:].partition(": ")[0] for line in header[1:] if not line.startswith("#  ")]
    assert labels == ["Command", "Time", "Result", "Paper"]
    words = header[1].split()
    assert words[2:4] == ["python", "train.py"]
    run = flags.parse(words[4:])
    scale = file.parent.name
    if scale != "flags":
        assert run.scale == scale
    assert file.stem.startswith(run.dataset)
