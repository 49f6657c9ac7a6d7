"""Answers of `dml_tf predict` as CSV and JSON."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dml_tf.atomic import write_text

_TERMINAL = "-"


def is_on_terminal(options: argparse.Namespace) -> bool:
    """Whether the options ask for CSV or JSON on the terminal, in place of the usual table."""
    return _TERMINAL in (options.csv, options.json)


def write(options: argparse.Namespace, rows: Sequence[dict]):
    """Writes rows of the same keys where --csv and --json say."""
    if options.csv:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        _put(options.csv, text.getvalue())
    if options.json:
        _put(options.json, json.dumps(rows, indent=1) + "\n")


def _put(place: str, text: str):
    if place == _TERMINAL:
        sys.stdout.write(text)
    else:
        write_text(Path(place).expanduser(), text)
        print(f"wrote {place}", file=sys.stderr)
