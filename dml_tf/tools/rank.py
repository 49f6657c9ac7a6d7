"""Ranks the pictures of a gallery by their likeness to query pictures, for re-identification."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dml_tf import reid
from dml_tf.data.sources.market1501_tree import parse_name
from dml_tf.errors import FlagError
from dml_tf.measures.evaluate import extractor
from dml_tf.tools import answers, sheets, trained


def show(run: trained.Trained, queries: Sequence[Path], options: argparse.Namespace):
    """Prints, writes and draws the ranking that the options of `dml_tf predict` ask for."""
    if not options.gallery:
        raise FlagError("this run is of re-identification: give --gallery=FOLDER to rank.")
    gallery = list(trained.expand([options.gallery]))
    if all(picture.samefile(query) for picture in gallery for query in queries):
        raise FlagError(f"--gallery={options.gallery} has no other picture than the query.")
    rows = ranking(run, queries, gallery, options.top)
    if not answers.is_on_terminal(options):
        print_table(rows)
    answers.write(options, rows)
    if options.sheet:
        sheets.of_ranking(Path(options.sheet).expanduser(), rows)


def print_table(rows: Sequence[dict]):
    """Prints rows of `ranking`: a line for each query, below it one for each picture."""
    for row in rows:
        if row["rank"] == 1:
            print(row["query"])
        print(f"  {row['rank']:3}  {row['similarity']:+.4f}  {row['picture']}  {row['identity']}")


def ranking(
    run: trained.Trained, queries: Sequence[Path], gallery: Sequence[Path], top: int
) -> list[dict]:
    """The most similar pictures of each query.

    Args:
        run: A run of re-identification.
        queries: Pictures to look for.
        gallery: Pictures that are ranked. The query's own file is left out.
        top: Pictures of each query.

    Returns:
        Rows of query, rank (from 1), picture, similarity (cosine of the ensemble's features) and
        identity: `same` or `other` where both file names are Market-1501's, else empty.
    """
    cohort = run.load()
    ours, theirs = (features(cohort, run.normalise(run.read(p))) for p in (queries, gallery))
    rows = []
    for query, similarities in zip(queries, ours @ theirs.T / len(cohort.networks), strict=True):
        order = [i for i in np.argsort(-similarities) if not gallery[i].samefile(query)][:top]
        rows += [
            {
                "query": str(query),
                "rank": place,
                "picture": str(gallery[i]),
                "similarity": round(float(similarities[i]), 6),
                "identity": _identity(query, gallery[i]),
            }
            for place, i in enumerate(order, start=1)
        ]
    return rows


def features(cohort, images: np.ndarray) -> np.ndarray:
    """The ensemble's features, each peer's of length 1, shape `(images, sum of dims)`."""
    found = extractor(cohort.peer_names, cohort.networks).predict(images, verbose=0)
    return np.concatenate([reid.l2_normalize(found[name]) for name in cohort.peer_names], axis=1)


def _identity(query: Path, picture: Path) -> str:
    names = parse_name(query.name), parse_name(picture.name)
    if None in names:
        return ""
    return "same" if names[0].pid == names[1].pid else "other"
