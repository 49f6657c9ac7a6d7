"""Draws the gallery images nearest to some queries in one PNG file.

Each row starts with a query; the nearest gallery images follow. A green frame marks an image of the
query's identity from another camera, a red frame another identity. Junk is left out, as in the
protocol. Above each image stand its camera and its identity.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dml_tf import home, reid
from dml_tf.atomic import write_whole
from dml_tf.data import identity
from dml_tf.data.arrays import read_npz
from dml_tf.data.pictures import decode_picture
from dml_tf.data.sources.market1501_tree import GALLERY, QUERY, find_tree, tree_files
from dml_tf.errors import exit_status

_PROGRAM = "python -m dml_tf.measures.rankings"
_EXAMPLE = f"""example:
  {home.TRAIN} --dataset=market1501 --data_dir=data --features_out=features.npz
  {_PROGRAM} --features=features.npz --data_dir=data --queries=0,5,9
"""
_KINDS = ("features", "pids", "camids", "names")
_ARRAYS = [f"{side}_{kind}" for side in ("query", "gallery") for kind in _KINDS]
_GREEN, _RED, _GREY = "#1a9850", "#d73027", "#333333"


def read_features(file: str | Path) -> dict[str, np.ndarray]:
    """Reads a features file, which a run with `--features_out=FILE` writes.

    Args:
        file: Its path, ending in `.npz`.

    Returns:
        `query_features`, `query_pids`, `query_camids`, `query_names`, and the same of `gallery`;
        `identity` of the data, if the file has it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a features file.
    """
    try:
        return _checked(read_npz(Path(file), _ARRAYS, optional=("identity",)))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file} does not exist. Write it with `{home.TRAIN} ... --features_out={file}`."
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file} is not a features file ({error}). Write one with `{home.TRAIN} ... "
            f"--features_out={file}`."
        ) from error


def _checked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    widths = set()
    for side in ("query", "gallery"):
        features, *labels = (arrays[f"{side}_{kind}"] for kind in _KINDS)
        if features.dtype.kind != "f" or features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError(f"{side}_features are no finite numbers for each image")
        if any(values.shape != features.shape[:1] for values in labels):
            raise ValueError(f"{side}_features has another number of images than its labels")
        if [values.dtype.kind for values in labels] != ["i", "i", "U"]:
            raise ValueError(f"{side}_pids, _camids or _names are of another type")
        if any(Path(name).name != name for name in labels[2].tolist()):
            raise ValueError(f"{side}_names has a path, not a file's name")
        widths.add(features.shape[1])
    if len(widths) > 1:
        raise ValueError("query and gallery have features of two widths")
    if not isinstance(json.loads(str(arrays.get("identity", "{}"))), dict):
        raise ValueError("its identity is no dictionary")
    return arrays


def nearest(arrays: dict[str, np.ndarray], query: int, top: int) -> np.ndarray:
    """The gallery images nearest to a query, without junk; equal distances in gallery order.

    Args:
        arrays: As `read_features` returns them.
        query: Number of the query, from 0.
        top: Number of images.

    Returns:
        Indices into the gallery, the nearest first, shape `(top,)` or fewer.

    Examples:
        >>> arrays = {
        ...     "query_features": np.eye(2), "query_pids": np.array([1, 2]),
        ...     "query_camids": np.array([1, 1]), "gallery_features": np.eye(2)[[0, 1, 0]],
        ...     "gallery_pids": np.array([1, 2, 1]), "gallery_camids": np.array([1, 1, 2])}
        >>> nearest(arrays, query=0, top=5).tolist()
        [2, 1]
    """
    pids, camids = arrays["gallery_pids"], arrays["gallery_camids"]
    own = (pids == arrays["query_pids"][query]) & (camids == arrays["query_camids"][query])
    is_junk = own | (pids == reid.JUNK)
    row = reid.distances(arrays["query_features"][query : query + 1], arrays["gallery_features"])[0]
    order = np.argsort(row, kind="stable")
    return order[~is_junk[order]][:top]


def draw_rankings(
    arrays: dict[str, np.ndarray], data_dir: str | Path, queries: Sequence[int], top: int
) -> Figure:
    """Draws one row for each query: the query, then the nearest gallery images.

    Args:
        arrays: As `read_features` returns them.
        data_dir: Folder of the data set, as for training.
        queries: Numbers of the queries, from 0.
        top: Number of gallery images in a row.

    Returns:
        The figure.

    Raises:
        ValueError: There is no such query, a picture cannot be read, or the features are of other
            data.
        FileNotFoundError: The data set, or a picture of it, is missing.
    """
    last = len(arrays["query_pids"]) - 1
    for query in queries:
        if not 0 <= query <= last:
            raise ValueError(
                f"--queries: there is no query {query}. Give numbers from 0 to {last}."
            )
    root = find_tree(data_dir)
    _refuse_other_pictures(arrays, data_dir)
    figure = Figure(figsize=(0.75 * (top + 1.3), 1.75 * len(queries)), layout="constrained")
    widths = [1, 0.3] + [1] * top  # a gap after the query
    grid = figure.subplots(len(queries), top + 2, squeeze=False, width_ratios=widths)
    for axis in grid.ravel():
        axis.set_axis_off()
    for row, query in zip(grid, queries, strict=True):
        pid = arrays["query_pids"][query]
        _show(row[0], root / QUERY, arrays, "query", query, _GREY, f"#{query} ")
        for axis, image in zip(row[2:], nearest(arrays, query, top), strict=False):
            colour = _GREEN if arrays["gallery_pids"][image] == pid else _RED
            _show(axis, root / GALLERY, arrays, "gallery", image, colour)
    return figure


def _refuse_other_pictures(arrays: dict[str, np.ndarray], data_dir: str | Path):
    kept = json.loads(str(arrays.get("identity", "{}")))
    if "parts" not in kept:
        return  # an old file, or generated data
    now = {"parts": identity.of_files(tree_files(data_dir))}
    if differing := identity.differences(kept, now):
        raise ValueError(
            f"The features are not those of the pictures in {data_dir}: {'; '.join(differing)}. "
            "Give the --data_dir with which they were made, or make them anew."
        )


def _show(axis, folder, arrays, side: str, index: int, colour: str, number: str = ""):
    """One picture in its frame, with its camera and identity above it."""
    pid, camid = arrays[f"{side}_pids"][index], arrays[f"{side}_camids"][index]
    axis.set_title(f"{number}c{camid} {pid:04d}", fontsize=7, color=colour, pad=2)
    axis.imshow(_picture(folder / str(arrays[f"{side}_names"][index])))
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=colour, linewidth=2.5)


def _picture(path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Give the --data_dir with which the features were made."
        )
    try:
        return decode_picture(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}). Replace it.") from error


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return exit_status(_PROGRAM, partial(_draw, _parse(argv)), also=(ValueError,))


def _draw(flags: argparse.Namespace):
    arrays = read_features(flags.features)
    figure = draw_rankings(arrays, flags.data_dir, flags.queries, flags.top)
    with write_whole(Path(flags.out)) as part:
        FigureCanvasAgg(figure).print_png(part)
    print(f"{flags.out}: {len(flags.queries)} queries, {flags.top} gallery images each")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        _PROGRAM,
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--features", required=True, help="file that `--features_out` wrote")
    parser.add_argument("--data_dir", required=True, help="folder of the data set")
    parser.add_argument("--queries", type=_numbers, default=[0], help="numbers, from 0; default 0")
    parser.add_argument("--top", type=int, default=10, help="images for a query; default 10")
    parser.add_argument("--out", default="rankings.png", help="the PNG; default rankings.png")
    flags = parser.parse_args(argv)
    if flags.top < 1:
        parser.error(f"argument --top: {flags.top} is below 1")
    return flags


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0,5,9") from None


if __name__ == "__main__":
    sys.exit(main())
