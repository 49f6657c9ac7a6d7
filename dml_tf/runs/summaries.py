"""What TensorBoard shows of a run.

Keras's own callback writes every metric of every step under a name of its own: seven charts for a
pair, each alone, and a tenth of a small run's time. Here a peer is a line of a chart.
"""

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as layout_summary
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.scalar import summary_v2 as scalars

from dml_tf.data import Split, Splits
from dml_tf.errors import RunFailed
from dml_tf.measures import evaluate, posteriors
from dml_tf.runs.config import Config

TAGS = (
    "accuracy", "supervised_loss", "mimicry_loss", "kl", "agreement", "entropy", "learning_rate",
)  # fmt: skip
_EVERY_S = 30.0  # seconds between two looks at the posteriors
_AT_END_S = 15.0  # in a shorter run, looking would take more than its share
_SHARE = 0.02  # of the time that these looks may take
_IMAGES, _PIXELS = 256, 2**22  # looked at, at the most


class Summaries(keras.callbacks.Callback):
    """Writes `accuracy/<peer>` and so on after every epoch, and how alike the peers are.

    The latter, and the learning rates, are written twice a minute at the most, and after the last
    epoch of a run that takes 15 seconds or more. They are of up to 256 validation images or, where
    there are none, training images.

    Args:
        folder: The run's folder; training and validation have a folder each in it.
        config: The run's settings, for TensorBoard's HParams.
        splits: The run's data; None where this process does not have every peer.
    """

    def __init__(self, folder: Path, config: Config, splits: Splits | None):
        super().__init__()
        self._folder, self._config, self._splits = folder, config, splits
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._looked_at = -1

    def on_train_begin(self, logs=None):
        """Writes the settings, and which lines share a chart."""
        self._begun = time.monotonic()
        self._next = self._begun + _EVERY_S
        settings = {name: _plain(value) for name, value in self._config.comparable().items()}
        self._write("train", 0, [hparams.hparams_pb(settings)])
        self._write("train", 0, [_layout()])

    def on_epoch_end(self, epoch, logs=None):
        """Writes the epoch's metrics and, now and then, the rest."""
        for part, prefix in (("train", ""), ("validation", "val_")):
            self._write(part, epoch, [scalars.scalar_pb(*pair) for pair in self._of(prefix, logs)])
        self._epoch = epoch
        if time.monotonic() >= self._next:
            self._look()

    def on_train_end(self, logs=None):
        """Writes the rest after the last epoch, and closes the files."""
        is_long = time.monotonic() - self._begun >= _AT_END_S
        if logs and is_long and self._looked_at != self._epoch:
            self._look()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _of(self, prefix: str, logs: dict) -> Iterator[tuple[str, float]]:
        """Tag and value of the metrics of one part."""
        for name, value in logs.items():
            if name.startswith("val_") == bool(prefix):
                yield tag(name.removeprefix(prefix), self.model.peer_names), value

    def _look(self):
        begun = time.monotonic()
        rates = [
            scalars.scalar_pb(f"learning_rate/{self.model.peer_names[k]}", float(o.learning_rate))
            for k, o in zip(self.model.trained, self.model.optimizers, strict=True)
        ]
        self._write("train", self._epoch, rates)
        if self._splits:
            part = "validation" if self._splits.validation else "train"
            found = self._predict(getattr(self._splits, part))
            pairs = [scalars.scalar_pb(*pair) for pair in likeness(found).items()]
            self._write(part, self._epoch, pairs)
        self._looked_at = self._epoch
        took = time.monotonic() - begun
        self._next = begun + max(_EVERY_S, took / _SHARE)

    def _predict(self, split: Split) -> dict:
        """Posteriors of the first images, by the function that measures the trained cohort."""
        pixels = math.prod(split.images.shape[1:])
        few = split.take(slice(0, max(2, min(_IMAGES, _PIXELS // pixels))))
        # That function takes single batches; the traced training step keeps its own number.
        at_once, self.model.steps_per_execution = self.model.steps_per_execution, 1
        try:
            return evaluate.predict(self.model, few, self._splits)
        except RunFailed:  # not finite: if it lasts, the run ends when it is measured
            return {}
        finally:
            self.model.steps_per_execution = at_once

    def _write(self, part: str, step: int, summaries: list):
        if not summaries:
            return
        if part not in self._writers:
            folder = str(self._folder / part)
            self._writers[part] = tf.summary.create_file_writer(
                folder, max_queue=1000, flush_millis=10_000
            )
        whole = summaries[0]
        for summary in summaries[1:]:
            whole.value.extend(summary.value)
        with self._writers[part].as_default():
            tf.summary.experimental.write_raw_pb(whole.SerializeToString(), step)


def tag(name: str, peers: tuple[str, ...]) -> str:
    """TensorBoard's name of a metric: `<peer>_accuracy` is `accuracy/<peer>`."""
    for peer in sorted((*peers, "ensemble"), key=len, reverse=True):
        if name.startswith(f"{peer}_"):
            return f"{name.removeprefix(f'{peer}_')}/{peer}"
    return name


def likeness(found: dict) -> dict[str, float]:
    """Entropy of each peer's posteriors; divergence and agreement of each pair; by tag."""
    values = {f"entropy/{name}": posteriors.entropy(p) for name, p in found.items()}
    peers = [name for name in found if name != "ensemble"]
    for one, other in itertools.permutations(peers, 2):
        values[f"kl/{one}_to_{other}"] = posteriors.divergence(found[one], found[other])
    for one, other in itertools.combinations(peers, 2):
        values[f"agreement/{one}_and_{other}"] = posteriors.agreement(found[one], found[other])
    return values


def _layout():
    charts = [
        layout_pb2.Chart(
            title=name, multiline=layout_pb2.MultilineChartContent(tag=[f"^{name}/.*"])
        )
        for name in TAGS
    ]
    categories = [layout_pb2.Category(title="The cohort", chart=charts)]
    return layout_summary.pb(layout_pb2.Layout(category=categories))


def _plain(value):
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
