"""Tables, figures and the page of one scale from its records: `python -m dml_tf.report`.

Nothing is trained and TensorFlow is not imported.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dml_tf import home
from dml_tf.paper import figures, scales, tables
from dml_tf.paper import items as experiments
from dml_tf.paper.page import Page
from dml_tf.paper.scales import Scale
from dml_tf.runs.errors import RecordMismatch


def write(scale: Scale, folder: Path, items: Sequence[str] = tuple(experiments.ITEMS)) -> list:
    """Writes each item's CSV, the figures' PNG and `report.html` from `<folder>/runs`.

    Args:
        scale: Which runs they show.
        folder: Results folder; made if it is not there.
        items: Names of tables and figures; the page has all.

    Returns:
        The files written, the page last.

    Raises:
        RecordMismatch: A record was made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    written = [*tables.write(scale, folder, items), *figures.write(scale, folder, items)]
    page.write_text(Page(scale, folder, tuple(experiments.ITEMS)).render(), encoding="utf-8")
    return [*written, page]


def main(argv: Sequence[str]) -> int:
    """Rebuilds one scale's tables, figures and page.

    Args:
        argv: Command-line arguments.

    Returns:
        Exit status: 0 done; 1 no such folder, no run in it, or a record is refused; 2 (by argparse)
        bad arguments.
    """
    parser = argparse.ArgumentParser(prog="python -m dml_tf.report", description=__doc__)
    parser.add_argument("--scale", choices=scales.SCALES, default="mini")
    parser.add_argument("--results_dir", default="", help="default: results/<scale>")
    options = parser.parse_args(argv)
    folder = Path(options.results_dir or home.HOME / "results" / options.scale)
    if not folder.is_dir():
        print(
            f"report: there is no folder {folder}; give run_all.sh's --results_dir.",
            file=sys.stderr,
        )
        return 1
    if not any((folder / "runs").glob("*.json")):
        print(f"report: no run has finished in {folder / 'runs'}.", file=sys.stderr)
        return 1
    try:
        written = write(scales.SCALES[options.scale].available(folder), folder)
    except RecordMismatch as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(*(f"wrote {file}" for file in written), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
