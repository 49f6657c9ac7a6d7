"""The runs that tables and figures need, and the order in which they can be trained."""

from collections.abc import Iterable, Sequence

from dml_tf.paper import items as paper_items
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.runs.config import Config


def runs(
    scale: Scale,
    items: Sequence[str] = tuple(ITEMS),
    *,
    results_dir: str,
    data_dir: str = "",
    seeds: int = 0,
) -> list[Config]:
    """The runs that some items need at one scale, each once.

    Args:
        scale: Where they run.
        items: Names of tables and figures.
        results_dir: Where records belong.
        data_dir: Where data are.
        seeds: Seeds of each run; 0 for the scale's own number.

    Returns:
        Their settings; the first seed of every run comes first. The runs of other items whose
        weights they start from come last.
    """
    places = {"results_dir": results_dir, "data_dir": data_dir, "seeds": seeds}
    wanted = _of_cells(scale, items, **places)
    lacking = {run.pretrained for run in wanted.values() if run.pretrained} - {"imagenet", *wanted}
    if lacking:
        everything = _of_cells(scale, ITEMS, **places)
        wanted |= {name: run for name, run in everything.items() if name in lacking}
    return list(wanted.values())


def _of_cells(
    scale: Scale, items: Iterable[str], results_dir: str, data_dir: str, seeds: int
) -> dict[str, Config]:
    """Run id -> the run, of the cells of some items."""
    wanted: dict[str, Config] = {}
    counts = [
        (cell, seeds or len(scale.planned(cell.item, cell.dataset)))
        for cell in paper_items.cells(items)
    ]
    for number, seed in enumerate(scale.seed_range):
        for cell, count in counts:
            if number < count and (run := cell.run(scale, seed, results_dir, data_dir)):
                known = wanted.setdefault(run.run_id, run)
                wanted[run.run_id] = known.replace(analyse=known.analyse or run.analyse)
    return wanted


def waves(runs: Sequence[Config]) -> list[list[Config]]:
    """Runs in up to two groups: those of the second start from weights of the first."""
    later = [run for run in runs if run.teachers or run.pretrained]
    first = [run for run in runs if run not in later]
    return [wave for wave in (first, later) if wave]
