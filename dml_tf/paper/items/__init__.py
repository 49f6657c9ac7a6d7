"""The paper's tables and figures by their names, such as `table2`, with their cells and claims."""

from collections.abc import Iterable, Mapping

from dml_tf.paper.cells import Cell, Claim, Item
from dml_tf.paper.items.figures import FIGURES
from dml_tf.paper.items.studies import STUDIES
from dml_tf.paper.items.tables import TABLES

ITEMS: Mapping[str, Item] = {item.name: item for item in (*TABLES, *FIGURES, *STUDIES)}


def cells(items: Iterable[str] = tuple(ITEMS)) -> list[Cell]:
    """The cells of some items."""
    return [cell for name in items for cell in ITEMS[name].cells]


def claims(items: Iterable[str] = tuple(ITEMS)) -> list[tuple[Item, Claim]]:
    """The claims of some items, in the order of the paper's sections."""
    found = [(ITEMS[name], claim) for name in items for claim in ITEMS[name].claims]
    return sorted(found, key=lambda pair: [int(part) for part in pair[1].section.split(".")])
