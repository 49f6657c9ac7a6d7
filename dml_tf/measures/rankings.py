"""Draws whom a network finds: the gallery images nearest to some queries, as one PNG.

Green frames are the query's identity in another camera, red ones are not; junk is left out as in
the protocol. Each picture is marked with its camera and identity.
"""

import argparse
import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from dml_tf import reid
from dml_tf.data.sources.market1501_tree import GALLERY, QUERY, find_tree

_PARTS = ("features", "pids", "camids", "names")
_GOOD, _WRONG, _ASKED = "#1a9850", "#d73027", "#333333"


def read_features(file: str | Path) -> dict[str, np.ndarray]:
    """Reads what `--features_out` has written.

    Args:
        file: `.npz` file with `query_features`, `query_pids`, `query_camids`, `query_names` and the
            same of the gallery.

    Returns:
        The arrays by name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file.
    """
    wanted = [f"{side}_{part}" for side in ("query", "gallery") for part in _PARTS]
    try:
        with np.load(file) as arrays:
            missing = [name for name in wanted if name not in arrays]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            return {name: arrays[name] for name in wanted}
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file} is missing: write it with `python train.py ... --features_out={file}`."
        ) from None
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(
            f"{file} is no features file ({error}): write it with --features_out."
        ) from error


def nearest(arrays: dict[str, np.ndarray], query: int, top: int) -> np.ndarray:
    """The gallery images nearest to a query, junk left out, equal distances in gallery order.

    Args:
        arrays: As `read_features` returns them.
        query: Which query, from 0.
        top: How many images.

    Returns:
        Indices into the gallery, the nearest first, shape `(top,)` or fewer.

    Example:
        >>> arrays = {
        ...     "query_features": np.eye(2), "query_pids": np.array([1, 2]),
        ...     "query_camids": np.array([1, 1]), "gallery_features": np.eye(2)[[0, 1, 0]],
        ...     "gallery_pids": np.array([1, 2, 1]), "gallery_camids": np.array([1, 1, 2])}
        >>> nearest(arrays, query=0, top=5).tolist()
        [2, 1]
    """
    pids, camids = arrays["gallery_pids"], arrays["gallery_camids"]
    row = reid.distances(arrays["query_features"][query : query + 1], arrays["gallery_features"])[0]
    own = (pids == arrays["query_pids"][query]) & (camids == arrays["query_camids"][query])
    order = np.argsort(row, kind="stable")
    return order[~(own | (pids == reid.JUNK))[order]][:top]


def draw_rankings(
    arrays: dict[str, np.ndarray], data_dir: str | Path, queries: Sequence[int], top: int
) -> Figure:
    """Draws one row a query: its picture, then the nearest of the gallery.

    Args:
        arrays: As `read_features` returns them.
        data_dir: Where the pictures are, as for the data set itself.
        queries: Which queries, from 0.
        top: How many gallery images each.

    Returns:
        The figure.

    Raises:
        ValueError: There is no such query, or a picture cannot be read.
        FileNotFoundError: The data set, or a picture of it, is missing.
    """
    count = len(arrays["query_pids"])
    for query in queries:
        if not 0 <= query < count:
            raise ValueError(f"--queries: there is no query {query}; give numbers below {count}.")
    root = find_tree(data_dir)
    figure = Figure(figsize=(0.75 * (top + 1.3), 1.75 * len(queries)), layout="constrained")
    widths = [1, 0.3] + [1] * top  # a gap after the query
    grid = figure.subplots(len(queries), top + 2, squeeze=False, width_ratios=widths)
    for axis in grid.ravel():
        axis.set_axis_off()
    for row, query in zip(grid, queries, strict=True):
        asked = arrays["query_pids"][query]
        _show(row[0], root / QUERY, arrays, "query", query, _ASKED)
        for axis, image in zip(row[2:], nearest(arrays, query, top), strict=False):
            colour = _GOOD if arrays["gallery_pids"][image] == asked else _WRONG
            _show(axis, root / GALLERY, arrays, "gallery", image, colour)
    return figure


def _show(axis, folder, arrays: dict[str, np.ndarray], side: str, index: int, colour: str):
    """One picture in its frame, with camera and identity above."""
    pid, camid = arrays[f"{side}_pids"][index], arrays[f"{side}_camids"][index]
    who = f"#{index} " if side == "query" else ""
    axis.set_title(f"{who}c{camid} {pid:04d}", fontsize=7, color=colour, pad=2)
    axis.imshow(_picture(folder / str(arrays[f"{side}_names"][index])))
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=colour, linewidth=2.5)


def _picture(path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the --data_dir the features came from.")
    try:
        return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a picture: replace it.") from error


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main(argv: Sequence[str] | None = None) -> int:
    """Draws from the command line.

    Args:
        argv: Arguments, those of the process by default.

    Returns:
        Exit status: 0 done, 1 data missing or refused; bad arguments exit with 2.
    """
    parser = argparse.ArgumentParser("python -m dml_tf.rankings", description=__doc__)
    parser.add_argument("--features", required=True, help="file that --features_out has written")
    parser.add_argument("--data_dir", required=True, help="where the pictures are")
    parser.add_argument("--queries", type=_numbers, default=[0], help="as in 0,5,9; default 0")
    parser.add_argument("--top", type=int, default=10, help="images for each; default 10")
    parser.add_argument("--out", default="rankings.png", help="default rankings.png")
    flags = parser.parse_args(argv)
    if flags.top < 1:
        parser.error(f"argument --top: {flags.top} is not at least 1")
    try:
        arrays = read_features(flags.features)
        figure = draw_rankings(arrays, flags.data_dir, flags.queries, flags.top)
        FigureCanvasAgg(figure).print_png(flags.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{flags.out}: {len(flags.queries)} queries, the {flags.top} nearest of each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
