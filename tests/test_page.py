"""The page: complete, in one file, plain about what it shows, and without TensorFlow."""

import html
import html.parser
import re
import shlex
import subprocess
import sys

import pandas as pd
import pytest

from dml_tf import home
from dml_tf.paper import items as paper_items
from dml_tf.paper import page as paper_page
from dml_tf.paper import plan, run_all, tables
from dml_tf.paper.page import commands
from dml_tf.paper.scales import BY_NAME, EXPLORATORY, STUDIES, TEACHERS
from dml_tf.runs import records
from dml_tf.runs.files import RunFiles

ITEMS = tuple(paper_items.ITEMS)
MINI = BY_NAME["mini"]


class Reader(html.parser.HTMLParser):
    """Collects a page's ids, links, sources and text, and holds that its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.alts, self.tags = [], [], [], [], set()
        self.text, self._open = "", []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "br", "path", "circle"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.alts += [attrs["aria-label"]] if attrs.get("role") == "img" else []

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(folder, items=ITEMS, scale="mini", seeds=0):
    return paper_page.write(BY_NAME[scale].with_seeds(seeds), folder, items)[-1].read_text()


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("empty")
    paper_page.write(MINI, folder, ITEMS)
    return folder


def test_every_item_has_a_csv_with_the_papers_number_or_claim(empty):
    for item in ITEMS:
        lines = pd.read_csv(empty / f"{item}.csv")
        is_explored = item in TEACHERS.studies  # which has neither
        assert lines.paper.notna().any() or lines.claim.notna().any() or is_explored, item
        assert lines[["seeds", "status"]].notna().all(axis=None), item


def test_without_records_the_page_says_not_run_and_how_to_run_it(empty):
    seen = Reader((empty / "report.html").read_text())
    assert "none has finished yet" in seen.text
    assert not seen.sources
    for item in [name for name in ITEMS if name not in STUDIES]:
        assert item in seen.ids
        assert f"bash run_all.sh --scale=mini --only={item} " in seen.text
    assert "reproduced" not in seen.text.replace("differs", "")


def test_a_study_without_claims_has_no_part_for_them(tmp_path):
    paper_page.write(TEACHERS, tmp_path, ["teachers"])
    seen = Reader((tmp_path / "report.html").read_text())
    assert "exploratory comparison: it decides nothing" in seen.text
    assert "claims" not in seen.ids and "What the paper claims, and" not in seen.text


def test_the_page_has_every_claim_and_the_papers_numbers(empty):
    seen = Reader((empty / "report.html").read_text())
    for _, claim in paper_items.claims([name for name in ITEMS if name not in STUDIES]):
        assert claim.text in seen.text
    for number in ("92.47", "80.08", "92.81", "58.47", "1.7099", "36.5 M", "39.55"):
        assert f"paper {number}" in seen.text


def test_the_page_stands_alone(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["table3", "figure6a"], 3)
    text = page(tmp_path, ("table3", "figure6a"))
    seen = Reader(text)
    assert not seen.sources and not seen.tags & {"script", "link", "iframe", "img", "image"}
    assert set(re.findall(r"url\((.)", text)) == {"#"}  # figures clip their own curves
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert len(seen.ids) == len(set(seen.ids))
    assert len(text) < 1_000_000
    assert any(alt.startswith("Figure 6a") and "Independent 5" in alt for alt in seen.alts)


SCRIPT = """</dd><script>alert("x")</script><img src=x onerror='alert(1)'>"""


def with_script(value):
    """A record's part with a script in every text and in the names of peers."""
    if isinstance(value, dict):
        return {
            f"{key}{SCRIPT}" if key.startswith("peer") and key != "peers" else key: with_script(v)
            for key, v in value.items()
        }
    if isinstance(value, list):
        return [with_script(each) for each in value]
    return f"{value}{SCRIPT}" if isinstance(value, str) else value


def test_a_script_in_any_name_of_a_record_or_folder_is_shown_and_not_run(
    synthetic_records, tmp_path
):
    folder = tmp_path / "<script>alert(3)<"
    for run in synthetic_records(folder, ["section31"], 2):
        file = RunFiles.of(run).record
        record = records.read(file)
        own = {key: record[key] for key in ("run_id", "config", "finished")}
        curves = {"history": record["history"]}
        records.write(with_script(record) | own | curves, file)
    text = page(folder, ["section31"])
    seen = Reader(text)
    assert (
        "digits &lt;made up&gt;" in text
        and "<script" not in text
        and not seen.tags & {"script", "iframe", "object"}
    )
    assert "x" not in seen.sources
    assert (
        f"digits <made up>{SCRIPT}" in seen.text and f"a machine & its cores{SCRIPT}" in seen.text
    )


def test_the_first_screen_says_what_was_run(synthetic_records, tmp_path):
    runs = synthetic_records(tmp_path, ["section31"], 2)
    seen = Reader(page(tmp_path, ["section31"])).text
    start, _, rest = seen.partition("Contents")[0].partition("What the paper claims")
    for words in (
        f"{len(runs)} finished", "0, 1", "never with its numbers", "no verdict: 1",
        "Table 2 was not run",
    ):  # fmt: skip
        assert words in start
    run = rest[rest.rindex("What was run") : rest.index("Mean ± standard")]
    for words in ("2026-01-02", "dml_tf 0, keras 3", "a stand-in", "ResNet-32: resnet8:16"):
        assert words in run


def test_a_gain_is_stated_with_its_interval_and_seeds(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure3b"], 6)
    seen = Reader(page(tmp_path, ["figure3b"], seeds=6)).text
    assert "Shows" in seen and "Mean of 4 places: +" in seen
    assert ", p = 0.031; 6 seeds; digits" in seen and "could have been shown (80% power)" in seen


def test_the_page_opens_with_what_showed_in_one_sentence(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["table2"], 6)
    seen = Reader(page(tmp_path, ["table2"]))
    assert "opening" in seen.ids
    assert (
        "On digits <made up>, the mean of Table 2's places gains from mutual learning: +"
    ) in seen.text


def test_without_all_planned_seeds_there_is_no_verdict(synthetic_records, tmp_path):
    runs = synthetic_records(tmp_path, ["table2"], 6)
    for run in runs:
        if run.seed == 5:
            (tmp_path / "runs" / f"{run.run_id}.json").unlink()
    seen = Reader(page(tmp_path, ["table2"])).text
    assert "5 of 6 seeds: no verdict" in seen and "Shows" not in seen


def test_a_gain_in_loss_is_stated_in_nats(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure4b"], 1)
    seen = Reader(page(tmp_path, ["figure4b"]))
    assert "one seed: no verdict" in seen.text
    assert "Difference +" in seen.text and " nats; 1 seed; digits" in seen.text
    assert seen.alts[0].startswith("Figure 4b") and "sigma 0.05 2." in seen.alts[0]


def test_a_difference_is_against_a_claim_of_equality(synthetic_records, tmp_path):
    for run in synthetic_records(tmp_path, ["section31"], 6):
        if run.mimicry == "js":
            record = records.read(RunFiles.of(run).record)
            for peer in record["test"]["peers"].values():
                peer["accuracy"] += 0.1
            records.write(record, RunFiles.of(run).record)
    text = page(tmp_path, ["section31"])
    assert "A difference shows" in text and "as claimed" not in text
    lines = pd.read_csv(tmp_path / "section31.csv").set_index("column")
    assert lines.loc["Eq. (7) - KL"].status.tolist() == [
        "stand-in: difference", "stand-in: not run",
    ]  # fmt: skip


def test_a_difference_of_which_nothing_is_claimed_is_no_gain(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure2b"], 6)
    table = page(tmp_path, ["figure2b"], seeds=6).partition("Distributed - Sequential</th>")[2]
    row = table.partition("</tr>")[0].split("<td>")[2:]  # after the seeds
    claimed = [any(words in cell for words in ("claim", "not clear")) for cell in row]
    assert claimed == [False, False, True, False]  # the average only


def test_comparisons_that_a_claim_leaves_out_are_shown_without_a_verdict(
    synthetic_records, tmp_path
):
    synthetic_records(tmp_path, ["table4"], 1)
    page(tmp_path, ["table4"])
    lines = pd.read_csv(tmp_path / "table4.csv")
    generated = lines[(lines.dataset == "Market-1501") & lines.column.str.contains("-")]
    assert len(generated) == 8 and (generated.seeds == 1).all() and generated.measured.notna().all()
    assert set(generated.status) == {"stand-in: one seed: no verdict"}


def test_generated_pictures_are_no_evidence(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6b"], 6)
    text = page(tmp_path, ["figure6b"], seeds=6)
    assert "they are no evidence" in text
    assert 'class="badge ">Shows</span> <small>on generated pictures' in text
    assert "on generated pictures only: " in text


def test_a_stand_in_never_reproduces(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["table4"], 3)
    assert "reproduced" not in Reader(page(tmp_path, ["table4"], seeds=3)).text
    synthetic_records(tmp_path / "paper", ["table4"], 3, "paper")
    assert "differs" in Reader(page(tmp_path / "paper", ["table4"], "paper")).text


def test_the_page_is_built_without_tensorflow(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure6a"], 2)
    code = (
        "import sys, pathlib\nfrom dml_tf.paper import page, scales\n"
        f"page.write(scales.BY_NAME['mini'], pathlib.Path({str(tmp_path)!r}), ['figure6a'])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_in_the_repository_the_page_links_to_the_deviations(monkeypatch, tmp_path):
    monkeypatch.setattr(home, "HOME", tmp_path)
    assert 'docs/deviations.md"' not in page(tmp_path / "results" / "mini", ["table1"])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "deviations.md").touch()
    text = page(tmp_path / "results" / "mini", ["table1"])
    assert "bash run_all.sh --scale=mini --only=table1</code>" in text
    assert 'href="../../docs/deviations.md">docs/deviations.md</a>' in text


def test_a_missing_folder_is_an_error_that_names_it(tmp_path, capsys):
    assert paper_page.main([f"--results_dir={tmp_path / 'absent'}"]) == 1
    assert f"there is no folder {tmp_path / 'absent'}" in capsys.readouterr().err


def shown_commands(scale, folder):
    text = html.unescape(paper_page.render(scale, folder))
    return re.findall(r"<code>(bash run_all\.sh [^<]*)</code>", text)


@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(name, marks=[] if name in ("mini", "cpu") else pytest.mark.slow)
        for name in BY_NAME
    ],
)
def test_each_command_on_the_page_is_complete(scale, tmp_path):
    """run_all takes it; its runs need no data that it does not name, and no run that it lacks."""
    shown = shown_commands(BY_NAME[scale].available(tmp_path), tmp_path)
    assert len(shown) > 10
    for command in shown:
        options = run_all._parse(shlex.split(command)[2:])
        assert (options.scale, options.results_dir) == (scale, "RESULTS")
        used = BY_NAME[scale].available(tmp_path)
        runs = plan.runs(used, options.only, results_dir="x", data_dir=options.data_dir)
        assert runs or options.only == ("table1",)
        files = {run.dataset for run in runs} & {"cifar10", "cifar100", "market1501", "imagenet"}
        assert options.data_dir == ("FOLDER" if files else "")
        ids = {run.run_id for run in runs} | {"", "imagenet"}
        assert {run.pretrained for run in runs} <= ids, command


def test_an_item_without_planned_runs_has_no_command(tmp_path):
    """At cpu scale nothing stands in ImageNet's place, and Fig. 3 has exploratory runs only."""
    shown = " ".join(shown_commands(BY_NAME["cpu"], tmp_path))
    assert "--only=table2 --data_dir" in shown and "figure2a" not in shown
    assert "figure3a" not in shown and "--only=table5 --results" in shown
    assert not shown_commands(EXPLORATORY, tmp_path)


def test_a_command_names_its_seeds_and_a_folder_inside_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(home, "HOME", tmp_path)
    more = BY_NAME["mini"].with_seeds(9)
    folder = tmp_path / "results" / "my runs"
    assert commands.run(more, folder, "table2") == (
        "bash run_all.sh --scale=mini --seeds=9 --only=table2 --results_dir='results/my runs'"
    )
    usual = tmp_path / "results" / "cpu" / "exploratory"
    assert commands.report(EXPLORATORY, usual) == (
        "python -m dml_tf.paper report --scale=cpu --exploratory"
    )


def test_every_claim_stands_once_in_the_plot_or_among_those_not_run(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure4b"], 1)
    text = page(tmp_path, ["figure4b"])
    top = text[text.index('id="claims"') : text.index('id="circumstances"')]
    claims = paper_items.claims([name for name in ITEMS if name not in STUDIES])
    for _, claim in claims:
        assert html.escape(claim.text, quote=False) in html.unescape(top)
    rows = [row.partition("</li>")[0] for row in re.split("<li[ >]", top)[1:]]
    run = [row for row in rows if "<svg" in row]
    assert len(run) == (tables.conclusions(MINI, tmp_path).seeds > 0).sum() > 3
    assert len(rows) == len(claims)
    assert top.index("Mutual learning gains, in the mean") < top.index("nats of training loss")


def test_items_that_were_not_run_are_folded_away(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["table2"], 1)
    text = page(tmp_path, ["table2"])
    folded = set(re.findall(r'<details id="(\w+)" class="item">', text))
    assert {"table3", "figure2a", "figure6b"} <= folded and "table2" not in folded
    assert '<section id="table2">' in text
    assert re.search(r'<summary class="soft"><b>CIFAR-100</b>: [^<]*, not run</summary>', text)


def test_wide_tables_can_be_scrolled_with_the_keyboard_and_have_names(empty):
    text = (empty / "report.html").read_text()
    boxes = re.findall(r'<div class="scroll" ([^>]*)><table', text)
    assert len(boxes) == text.count("<table") >= 10
    assert all('role="region"' in box and 'tabindex="0"' in box for box in boxes)
    assert all(re.search(r'aria-label="[^"]{5,}"', box) for box in boxes)


def test_figures_take_the_pages_colours_and_are_the_same_each_time(synthetic_records, tmp_path):
    synthetic_records(tmp_path, ["figure3b", "figure6a"], 2)
    first = page(tmp_path, ["figure3b", "figure6a"])
    assert first == paper_page.render(MINI, tmp_path)
    figures = re.findall(r'<div class="drawing"[^>]*>(<svg.*?</svg>)</div>', first)
    assert len(figures) == 2
    for figure in figures:
        assert not re.search("#(0072b2|d55e00|009e73|cc79a7|000000|ffffff|dddddd)", figure, re.I)
        assert "var(--series-0)" in figure and "currentColor" in figure
        assert "<style" not in figure and "font-family" not in figure
    marks = [set(re.findall(r'id="([^"]*)"', figure)) for figure in figures]
    assert len(set.union(*marks)) == sum(map(len, marks))
    for name in re.findall(r"var\((--[\w-]+)\)", first):
        assert f"{name}:" in first, name
