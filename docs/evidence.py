"""The tables on photographs and digits in the Markdown files, from the records in `results/`."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dml_tf import home
from dml_tf.paper import items as paper_items
from dml_tf.paper import over_seeds, scales, statistics, tables
from dml_tf.paper.cells import Claim, Contrast, Line, contrasts, unit
from dml_tf.paper.items import ITEMS
from dml_tf.paper.scales import Scale
from dml_tf.paper.verdicts import Conclusion, Judgement
from dml_tf.runs import records
from docs import formats

CPU = home.HOME / "results" / "cpu"
EXPLORATORY = CPU / "exploratory"
FIRST_INIT = CPU / "first_init"
# A table's kind of runs -> scale and folder.
CONFIRMATORY = (scales.BY_NAME["cpu"].available(CPU), CPU)
_EXPLORED = (scales.EXPLORATORY.available(EXPLORATORY), EXPLORATORY)


def verdict() -> str:
    """The protocol's primary hypothesis in one sentence."""
    pooled = _primary(*CONFIRMATORY)
    return (
        "On 2,000 small photographs without augmentation, the mean gain over Table 2's twelve "
        f"places is\n{formats.interval(pooled.pooled)} points (primary hypothesis; "
        f"{state(pooled)})."
    )


def opening() -> str:
    """Three sentences: what the protocol's primary hypothesis says, its limit, and what is open."""
    first, second = (textwrap.indent(text, "   ").strip() for text in (verdict(), with_crops()))
    return (
        f"1. {first}\n2. {second}\n"
        "3. No accuracy that the paper prints has been reproduced: no run here had the paper's "
        "networks\n   and data."
    )


def with_crops() -> str:
    """What two studies say of mutual learning with crops and flips."""
    [fitted], (he, near, *_) = (
        [tables.judge(claim, *CONFIRMATORY) for claim in ITEMS[study].claims]
        for study in ("augmented", "start")
    )
    return (
        "With crops and flips, pairs of WRN-10-2, which fit their 2,000 photographs, changed by\n"
        f"{formats.interval(fitted.pooled)} points ({state(fitted)}). Pairs of ResNet-8, which do "
        "not fit their 1,000, changed by\n"
        f"{formats.interval(he.pooled)} points with He's first weights ({state(he)}), and by\n"
        f"{formats.interval(near.pooled)} with first weights near the identity ({state(near)})."
    )


def labels() -> str:
    """What Figure 6a says of DML with few labels, in one sentence."""
    scale, folder = CONFIRMATORY
    every, unlabelled, more = [
        tables.judge(claim, scale, folder) for claim in ITEMS["figure6a"].claims
    ]
    return (
        f"Unlabelled images help by {formats.interval(unlabelled.pooled)} points "
        f"({state(unlabelled)}).\nDML gains {formats.interval(every.pooled)} points in the mean "
        f"over numbers of labels; at every one: {state(every)}.\nThat unlabelled images help more "
        f"where fewer have labels: {formats.interval(more.pooled)} points ({state(more)})."
    )


def results() -> str:
    """Table 2 on photographs, confirmatory: each small network over its places, and all."""
    return _by_network(*CONFIRMATORY)


def explored() -> str:
    """The same of the exploratory runs."""
    return _by_network(*_EXPLORED)


def photographs() -> str:
    """Table 2 at cpu scale: its twelve places, with simultaneous intervals."""
    command = "    bash run_all.sh --scale=cpu --only=table2 --data_dir=FOLDER"
    return f"{_places(*CONFIRMATORY)}\n\n{command}"


def explored_pairs() -> str:
    """Table 2's places in the exploratory runs."""
    return _places(*_EXPLORED)


def digits() -> str:
    """Table 2 at mini scale: its gains and their mean, as the last `run_all.sh` wrote them."""
    folder = home.HOME / "results" / "mini"
    table = pd.read_csv(folder / "table2.csv").set_index(["dataset", "row", "column"])
    claim = pd.read_csv(folder / "claims.csv").set_index("claim").loc[_primary_claim().text]
    rows = [_place(line, table, scales.BY_NAME["mini"]) for line in gains()]
    mean = f"{formats.interval(claim)} points, p = {claim.p:.2g}, {claim.seeds} seeds"
    return f"{formats.markdown(rows)}\n\nThe mean of the twelve: {mean}."


def claims() -> str:
    """The paper's claims and our hypotheses, by the confirmatory runs."""
    return _claims(*CONFIRMATORY)


def explored_claims() -> str:
    """The paper's claims in the exploratory runs, which decide nothing."""
    return _claims(*_EXPLORED)


def first_init() -> str:
    """The first runs, with Keras's and He's first weights, beside those with ours."""
    alone, dml = _first_start()
    rows = []
    for name, folder in (("Keras's and He's", FIRST_INIT), ("near the identity", EXPLORATORY)):
        pair, single, less = _first_gain(folder)
        rows.append(
            {
                "first weights": name,
                "independent": formats.mean_and_spread(single),
                "DML, mean of both peers": formats.mean_and_spread(pair),
                "difference [95% interval]": formats.interval(less),
                "seeds": less["seeds"],
            }
        )
    return (
        f"{formats.markdown(rows)}\n\n"
        f"The other first weights raised the independent network by {formats.interval(alone)} "
        f"points,\nand changed the one with mutual learning by {formats.interval(dml)} points "
        f"({alone['seeds']} seeds)."
    )


def explored_start() -> str:
    """The same differences in one sentence."""
    *_, he = _first_gain(FIRST_INIT)
    *_, near = _first_gain(EXPLORATORY)
    return (
        f"In exploratory runs before these, the gain was {formats.interval(he)} points with "
        f"Keras's and He's first\nweights ({he['seeds']} seeds), and {formats.interval(near)} "
        f"with those near the identity ({near['seeds']} seeds)."
    )


def article_state() -> str:
    """How many seeds of each confirmatory item have finished, of those that are planned."""
    scale, folder = CONFIRMATORY
    rows = []
    for item in ("table2", "table4", *scale.studies, "entropy", "figure6a"):
        finished = len(over_seeds.finished(item, scale, folder))
        planned = len(scale.planned(item, "CIFAR-10"))
        state = "finished" if finished >= planned else "unfinished"
        name = ITEMS[item].title if item in scales.STUDIES else ITEMS[item].short
        rows.append({"item": name, "finished seeds": f"{finished} of {planned}", "state": state})
    return formats.markdown(rows)


def article_claims() -> str:
    """The claims and hypotheses by verdict."""
    scale, folder = CONFIRMATORY
    by_verdict = {}
    for item, claim in paper_items.claims():
        judged = tables.judge(claim, scale, folder)
        by_verdict.setdefault(judged.conclusion, []).append(f"{claim.text} ({item.short})")
    rows = [
        {"verdict": f"**{conclusion}**", "claims": "; ".join(by_verdict[conclusion])}
        for conclusion in Conclusion
        if conclusion in by_verdict and conclusion is not Conclusion.NOT_RUN
    ]
    primary = _primary(scale, folder)
    shown = f"{formats.interval(primary.pooled)} points ({state(primary)})"
    return f"The primary contrast is {shown}.\n\n{formats.markdown(rows)}"


def smaller() -> str:
    """The difference in gain between the smaller and the larger network, for each pair."""
    scale, folder = CONFIRMATORY
    claim = next(claim for claim in ITEMS["table2"].claims if "smaller" in claim.text)
    rows = [
        {
            "pair": " + ".join(line.first.networks),
            "gain of the smaller less gain of the larger [95% interval]": formats.interval(found),
            "p": f"{found['p']:.2g}",
            "seeds": found["seeds"],
        }
        for line in claim.contrasts
        if (found := over_seeds.measure(line, scale, folder))["seeds"]
    ]
    return formats.markdown(rows)


def state(judgement: Judgement) -> str:
    """The verdict with its seeds; or that the runs are unfinished."""
    if judgement.conclusion is Conclusion.NO_VERDICT:
        return f"unfinished: {judgement.words}"
    return f"{judgement.words.lower()}, {judgement.pooled['seeds']} seeds"


FIGURES = {
    "smaller": smaller,
    "article_state": article_state,
    "article_claims": article_claims,
    "article_results": results,
    "labels": labels,
    "with_crops": with_crops,
    "opening": opening,
    "verdict": verdict,
    "results": results,
    "explored": explored,
    "photographs": photographs,
    "explored_pairs": explored_pairs,
    "digits": digits,
    "claims": claims,
    "explored_claims": explored_claims,
    "first_init": first_init,
    "explored_start": explored_start,
    "article_explored_start": explored_start,
}


def _primary(scale: Scale, folder: Path) -> Judgement:
    return tables.judge(_primary_claim(), scale, folder)


def _primary_claim() -> Claim:
    return ITEMS["table2"].claims[0]


def gains() -> list[Contrast]:
    """Table 2's gains on CIFAR-10."""
    return [line for line in contrasts(ITEMS["table2"].lines) if line.first.dataset == "CIFAR-10"]


def _network_here(line: Contrast, scale: Scale) -> str:
    return scale.data["CIFAR-10"].networks[line.first.networks[line.first.of]]


def lines_by_network(scale: Scale) -> dict[str, list[Contrast]]:
    """Small network -> the gains of its places in Table 2."""
    found: dict[str, list[Contrast]] = {}
    for line in gains():
        found.setdefault(f"`{_network_here(line, scale)}`", []).append(line)
    return found


def _by_network(scale: Scale, folder: Path) -> str:
    rows = []
    for name, lines in {**lines_by_network(scale), "all": gains()}.items():
        gain = over_seeds.measure(_mean_of(lines), scale, folder)
        dml, alone = (
            over_seeds.measure(_mean_of([line.terms[side][0] for line in lines]), scale, folder)
            for side in (0, 1)
        )
        rows.append(
            {
                "network": name,
                "places in Table 2": len(lines),
                "independent, %": f"{alone['measured']:.2f}",
                "DML, %": f"{dml['measured']:.2f}",
                "difference [95% interval]": formats.interval(gain),
                "seeds": _of_planned(gain["seeds"], scale, "table2"),
            }
        )
    return formats.markdown(rows)


def _of_planned(seeds: int, scale: Scale, item: str) -> str:
    planned = len(scale.planned(item, "CIFAR-10"))
    return f"{seeds} of {planned}" if scale.is_fixed and seeds < planned else str(seeds)


def _places(scale: Scale, folder: Path) -> str:
    frame = tables.table(scale, folder, "table2")
    frame = frame.set_index(["dataset", "row", "column"])
    return formats.markdown([_place(line, frame, scale) for line in gains()])


def _place(line: Contrast, table: pd.DataFrame, scale: Scale) -> dict[str, object]:
    """One of Table 2's places: its row of the written table."""
    dml, alone = (table.loc[cell.dataset, cell.row, cell.column] for cell, _ in line.terms)
    gain = table.loc[line.first.dataset, line.row, line.column]
    return {
        "in the place of": line.row,
        "network": f"`{_network_here(line, scale)}`, Net {line.first.of + 1}",
        "independent": f"{alone.measured:.2f} ± {alone['std']:.2f}",
        "DML": f"{dml.measured:.2f} ± {dml['std']:.2f}",
        "difference [95% interval]": formats.interval(gain),
        "seeds": int(gain.seeds),
    }


def _claims(scale: Scale, folder: Path) -> str:
    rows, not_run = [], []
    for item, claim in paper_items.claims():
        if not scale.has(item.name):
            continue
        judged = tables.judge(claim, scale, folder)
        if judged.conclusion is Conclusion.NOT_RUN:
            not_run.append(item.short)
            continue
        name = unit(claim.contrasts[0].first.metric)
        places = 4 if name == "nats" else 2
        run, of = sum(place["seeds"] > 0 for place in judged.places), len(judged.places)
        detectable = judged.pooled["detectable"]
        where = ", ".join(dict.fromkeys((f"Sec. {claim.section}", item.short)))
        rows.append(
            {
                "claim": f"{claim.text} ({where})",
                "here": f"**{judged.words}**",
                "difference [95% interval]": f"{formats.interval(judged.pooled, places)} {name}"
                + (f", margin {claim.margin:g}" if claim.margin else ""),
                "places": run if run == of else f"{run} of {of}",
                "could show": "" if np.isnan(detectable) else f"{detectable:.{places}f}",
                "p": "" if np.isnan(judged.decisive_p) else f"{judged.decisive_p:.2g}",
            }
        )
    names = ", ".join(dict.fromkeys(not_run))
    return formats.markdown(rows) + (f"\n\nNot run, or not finished: {names}." if names else "")


def _mean_of(lines: Sequence[Line]) -> Contrast:
    terms = tuple((cell, weight / len(lines)) for line in lines for cell, weight in line.terms)
    return Contrast("", "mean", terms)


def shared(*found: Mapping[int, object]) -> list[int]:
    """The seeds that all have, in order."""
    return sorted(set.intersection(*map(set, found))) if found else []


def _first_runs(folder: Path, method: str) -> dict[int, float]:
    """Seed -> mean accuracy of the first setting's runs: 1,000 images, crops and flips."""
    found = {}
    for file in sorted((folder / "runs").glob(f"cifar10-{method}-*.json")):
        record = records.read(file)
        run = record["config"]
        if (run["train_images"], run["augment"], run["epochs"]) == (1000, "crop_flip", 80):
            peers = record["test"]["peers"].values()
            found[run["seed"]] = 100 * float(np.mean([peer["accuracy"] for peer in peers]))
    return found


def _first_gain(folder: Path) -> tuple[list[float], list[float], dict]:
    """Accuracies of pairs and of single networks by seed, and the summary of their difference."""
    pair, single = (_first_runs(folder, method) for method in ("dml", "independent"))
    seeds = shared(pair, single)
    less = statistics.summary({seed: pair[seed] - single[seed] for seed in seeds})
    return [pair[seed] for seed in seeds], [single[seed] for seed in seeds], less


def _first_start() -> tuple[dict, dict]:
    """What our first weights changed against the first ones: independent, and with DML."""
    changed = []
    for method in ("independent", "dml"):
        before, after = (_first_runs(folder, method) for folder in (FIRST_INIT, EXPLORATORY))
        seeds = shared(before, after)
        changed.append(statistics.summary({seed: after[seed] - before[seed] for seed in seeds}))
    return changed[0], changed[1]
