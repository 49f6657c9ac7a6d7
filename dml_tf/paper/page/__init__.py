"""The page: everything that was measured, in one HTML file that loads nothing.

Its modules import in one direction: {claims, commands, pictures} <- {forest, item_tables} <-
contents <- report.
"""

from dml_tf.paper.page.claims import opening
from dml_tf.paper.page.report import main, render, write

__all__ = ["main", "opening", "render", "write"]
