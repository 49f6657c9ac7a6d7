"""The commands on the page, complete: they can be copied and run."""

import shlex
from pathlib import Path

from dml_tf import home
from dml_tf.data import WITHOUT_FILES
from dml_tf.paper import plan, scales
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale

DATA, RESULTS = "FOLDER", "RESULTS"  # what the reader puts in


def run(scale: Scale, folder: Path, item: str = "") -> str:
    """The command that trains what an item needs, or everything; '' if nothing is to be run."""
    items = [item] if item else list(filter(scale.has, ITEMS))
    items = [name for name in items if _is_planned(scale, name)]
    if not items or (scale.is_exploratory and not scale.is_study):
        return ""
    words = ["bash run_all.sh", f"--scale={scale.name}", *_explored(scale), *_seeds(scale)]
    words += [f"--only={item}"] if item else []
    datasets = set().union(*(_datasets(scale, name) for name in items))
    words += [] if datasets <= set(WITHOUT_FILES) else [f"--data_dir={DATA}"]
    return " ".join(words + _results(scale, folder))


def report(scale: Scale, folder: Path) -> str:
    """The command that writes the page again."""
    words = ["python -m dml_tf.paper report", f"--scale={scale.name}", *_seeds(scale)]
    return " ".join(words + _explored(scale) + _results(scale, folder))


def _explored(scale: Scale) -> list[str]:
    """The name of runs that decide nothing; the first ones need none."""
    if scale.is_study:
        return [f"--exploratory={scale.exploratory}"]
    return ["--exploratory"] if scale.is_exploratory else []


def _is_planned(scale: Scale, item: str) -> bool:
    """Whether `run_all.sh` has something to do for an item."""
    return any(
        cell.metric == "millions" or (cell.method and scale.planned(item, cell.dataset))
        for cell in ITEMS[item].cells
    )


def _datasets(scale: Scale, item: str) -> set[str]:
    """The data sets on which an item's runs train, and those whose weights they start from."""
    cells = [cell for cell in ITEMS[item].cells if cell.method]
    if any(cell.pretrained for cell in cells):
        return {run.dataset for run in plan.runs(scale, [item], results_dir="", seeds=1)}
    places = [scale.place(item, cell.dataset) for cell in cells]
    return {place.dataset for place in places if place}


def _seeds(scale: Scale) -> list[str]:
    """The number of seeds, where it is not the scale's own."""
    own = scales.EXPLORED.get(scale.exploratory) or scales.BY_NAME[scale.name]
    counts = {name: data.seeds for name, data in scale.data.items()}
    if all(own.data[name].seeds == count for name, count in counts.items()):
        return []
    return [f"--seeds={next(iter(counts.values()))}"]


def _results(scale: Scale, folder: Path) -> list[str]:
    """Where the results are, if not in their usual place; no path of the machine."""
    folder = folder.resolve()
    if folder == scale.results_dir:
        return []
    inside = home.HOME in folder.parents
    place = shlex.quote(str(folder.relative_to(home.HOME))) if inside else RESULTS
    return [f"--results_dir={place}"]
