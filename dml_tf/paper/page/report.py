"""Writes the page beside the tables and figures: `python -m dml_tf.paper report`."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jinja2

from dml_tf.atomic import write_text
from dml_tf.errors import RunFailed, exit_status
from dml_tf.paper import checksums, figures, scales, tables
from dml_tf.paper.items import ITEMS
from dml_tf.paper.page.contents import Page
from dml_tf.paper.scales import Scale


def main(argv: Sequence[str]) -> int:
    """The command `python -m dml_tf.paper report`; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dml_tf.paper report",
        description="Writes the tables, the figures and the page from the records of one scale.",
        allow_abbrev=False,
    )
    parser.add_argument("--scale", choices=scales.BY_NAME, default="mini")
    parser.add_argument("--results_dir", default="", help="default: results/<scale>")
    parser.add_argument("--seeds", type=int, default=0, help="seeds of each run; 0: the scale's")
    parser.add_argument(
        "--exploratory",
        nargs="?",
        default="",
        const="exploratory",
        choices=scales.EXPLORED,
        help="the first runs at cpu scale, in results/cpu/exploratory, or the study of that name; "
        "they decide nothing",
    )
    options = parser.parse_args(argv)
    if options.exploratory and options.scale != "cpu":
        parser.error("--exploratory: only --scale=cpu has exploratory runs")
    scale = scales.EXPLORED.get(options.exploratory) or scales.BY_NAME[options.scale]
    folder = Path(options.results_dir or scale.results_dir).expanduser()
    return exit_status("report", partial(_report, scale.with_seeds(options.seeds), folder))


def write(scale: Scale, folder: Path, items: Sequence[str] = tuple(ITEMS)) -> list[Path]:
    """Writes each item's CSV, the figures' PNG and `report.html` from `<folder>/runs`.

    Args:
        scale: Which runs they show.
        folder: Results folder; made if it is missing.
        items: Names of tables and figures; the page has all.

    Returns:
        The files written, the page last.

    Raises:
        RecordMismatch: A record was made with other settings.
    """
    with checksums.listed(folder, items) as written:
        written += [*tables.write(scale, folder, items), *figures.write(scale, folder, items)]
        write_text(folder / "report.html", render(scale, folder))
    return [*written, folder / "report.html"]


def render(scale: Scale, folder: Path) -> str:
    """The page's HTML, from the records of a results folder, with the figures written there."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(page=Page(scale, folder))


def _report(scale: Scale, folder: Path):
    if not folder.is_dir():
        raise RunFailed(f"there is no folder {folder}. Give the --results_dir of run_all.sh.")
    if not any((folder / "runs").glob("[!.]*.json")):
        raise RunFailed(f"no run has finished in {folder / 'runs'}. Train with run_all.sh first.")
    items = list(filter(scale.has, ITEMS))
    print(*(f"wrote {file}" for file in write(scale.available(folder), folder, items)), sep="\n")
