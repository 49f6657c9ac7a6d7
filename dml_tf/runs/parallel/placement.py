"""Where the peers of a cohort are: on one device, on one each, in one process each, or mirrored.

With one peer on each device only posteriors are sent (Secs. 3.2, 4.5); with mirrored peers,
gradients.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import tensorflow as tf

from dml_tf.data import Splits
from dml_tf.errors import FlagError, RunFailed
from dml_tf.method.cohort import Cohort, Outputs
from dml_tf.runs.config import Config
from dml_tf.runs.files import RunFiles, hold
from dml_tf.runs.parallel.cluster import Cluster, from_environment


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices and processes of one run; `arrange` makes it.

    Attributes:
        kind: Value of `--placement`: `one`, `peers` or `data`.
        devices: The devices of this process that are used.
        cluster: The processes of the run.
        strategy: TensorFlow's strategy that mirrors the peers; only for `data`.
    """

    kind: str = "one"
    devices: tuple[str, ...] = ()
    cluster: Cluster = dataclasses.field(default_factory=Cluster)
    strategy: tf.distribute.Strategy | None = None

    @property
    def replicas(self) -> int:
        """Number of parts into which a batch is split."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def devices_used(self) -> int:
        """Number of devices that train, over all processes."""
        if self.kind == "data":
            return self.replicas
        return self.cluster.size if self.peer_a_process else len(self.devices)

    @property
    def peer_a_process(self) -> bool:
        """Whether each process trains one peer."""
        return self.kind == "peers" and self.cluster.size > 1

    @property
    def is_whole(self) -> bool:
        """Whether this process alone has every peer."""
        return not self.strategy and self.cluster.size == 1

    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which a cohort is made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def on(self, k: int) -> contextlib.AbstractContextManager:
        """Context in which peer k's variables are made and its work is done."""
        on_own_device = self.kind == "peers" and not self.peer_a_process
        return tf.device(self.devices[k]) if on_own_device else contextlib.nullcontext()

    def trains(self, k: int) -> bool:
        """Whether this process has peer k."""
        return not self.peer_a_process or k == self.cluster.rank

    def exchange(self, outputs: Sequence[Outputs]) -> list[Outputs]:
        """The outputs of all peers; those of other processes are gathered, in float32.

        Args:
            outputs: For each peer, name -> values of shape `(batch, width)`; empty for a peer of
                another process.

        Returns:
            The same for all peers.
        """
        if not self.peer_a_process:
            return list(outputs)
        own = outputs[self.cluster.rank]
        together = tf.concat([tf.cast(value, tf.float32) for value in own.values()], axis=1)
        gathered = tf.unstack(self.cluster.gather(together), num=len(outputs))
        widths = [value.shape[1] for value in own.values()]
        return [dict(zip(own, tf.split(each, widths, axis=1), strict=True)) for each in gathered]

    def bytes_per_step(self, cohort: Cohort, batch_size: int, classes: int) -> int:
        """Bytes that one device, or process, receives from the others in a training step.

        With one peer on each device: the other peers' outputs, in processes once more for every
        refresh. With mirrored peers: the least that an all-reduce of the gradients must send.
        """
        if self.kind == "data":
            elements = sum(v.shape.num_elements() for v in cohort.trainable_variables)
            return 2 * (self.replicas - 1) * 4 * elements // self.replicas
        peers = len(cohort.networks)
        if self.kind == "one" or peers == 1:
            return 0
        width = classes
        if cohort.feature_weight:
            width += cohort.networks[cohort.trained[0]].output["features"].shape[-1]
        times = 1 + (cohort.refreshes if self.peer_a_process else 0)
        return times * (peers - 1) * batch_size * width * 4

    @property
    def process_name(self) -> str:
        """Suffix of the files that only a process with the same part can use; empty for one."""
        size = self.cluster.size
        split = f".split{self.replicas}" if self.kind == "data" else ""
        return split + (f".worker{self.cluster.rank}of{size}" if size > 1 else "")

    @contextlib.contextmanager
    def locked(self, files: RunFiles) -> Iterator[None]:
        """Context that keeps other processes away from this run, or from this process's part."""
        busy = RunFailed(
            f"Another process is training {files.run_id} in {files.folder}. Wait for it, or use "
            "another --results_dir."
        )
        names = {self.process_name} | ({""} if self.cluster.is_chief else set())
        with contextlib.ExitStack() as locks:
            for name in sorted(names):
                locks.enter_context(hold(files.lock(name), busy))
            yield

    def describe(self, cohort: Cohort, config: Config, splits: Splits) -> dict:
        """Prints which process trains what, and returns it for the record; {} for one device."""
        if self.kind == "one":
            return {}
        received = self.bytes_per_step(cohort, config.batch_size, splits.num_classes)
        print(self._line(cohort, received), flush=True)
        return {
            "placement": {
                "kind": self.kind,
                "processes": self.cluster.size,
                "devices": self.devices_used,
                "bytes_per_step": received,
            }
        }

    def _line(self, cohort: Cohort, received: int) -> str:
        size, rank = self.cluster.size, self.cluster.rank
        if self.kind == "data":
            where = f"every peer on {self.replicas} devices of {size} process(es)"
        elif self.peer_a_process:
            where = f"a process each; worker {rank} trains {cohort.peer_names[rank]}"
        else:
            where = ", ".join(map("{} on {}".format, cohort.peer_names, self.devices))
        line = f"--placement={self.kind}: {where}; each receives {received:,} bytes a step."
        if self.kind == "peers" and cohort.refreshes:
            line += " Sequential updates wait for one another; --update=simultaneous does not."
        return line


def arrange(config: Config) -> Placement:
    """The placement that the settings and TF_CONFIG ask for; waits for the other processes.

    Raises:
        FlagError: These devices and processes do not allow it.
        ProcessLost: The other processes cannot be reached.
    """
    processes = from_environment()
    _refuse(config, processes.size)
    mirrored = config.placement == "data"
    if processes.size > 1:
        strategy = processes.connect(60 * config.wait_minutes)
        devices = tuple(strategy.extended.worker_devices)
        placement = Placement(config.placement, devices, processes, strategy if mirrored else None)
    else:
        devices = local_devices()
        if config.placement == "peers":
            _refuse_few(config, devices)
            devices = devices[: config.cohort]
        if mirrored and len(devices) < 2:
            raise FlagError(
                "--placement=data splits batches over several devices, and there is only "
                f"{devices[0]}. Leave it out, or start a process on every host with TF_CONFIG."
            )
        strategy = _mirrored(devices) if mirrored else None
        placement = Placement(config.placement, devices, processes, strategy)
    if config.batch_size % placement.replicas:
        raise FlagError(
            f"--batch_size={config.batch_size} cannot be split evenly over "
            f"{placement.replicas} devices."
        )
    return placement


def local_devices() -> tuple[str, ...]:
    """Names of this process's GPUs or, where there are none, of its logical CPUs."""
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tuple(device.name for device in found)


# One for all runs of a process: a second one's collectives would be taken for the first one's.
_mirrored = functools.cache(tf.distribute.MirroredStrategy)


def _refuse(config: Config, processes: int):
    """Refuses what several processes cannot do."""
    if processes == 1:
        return
    if config.placement == "one":
        raise FlagError(
            f"TF_CONFIG names {processes} processes, and --placement=one uses one: give "
            "--placement=peers or data, or unset TF_CONFIG."
        )
    if config.placement == "peers" and config.cohort != processes:
        raise FlagError(
            f"--placement=peers trains a peer in each process, and TF_CONFIG names {processes} "
            f"processes for --cohort={config.cohort}: give as many."
        )
    if config.teachers and (config.placement == "peers" or not config.teacher):
        raise FlagError(
            "A frozen teacher with several processes takes --placement=data and a --teacher that "
            "every process can read: the teacher is not trained there."
        )


def _refuse_few(config: Config, devices: Sequence[str]):
    if config.cohort > len(devices):
        raise FlagError(
            f"--placement=peers needs as many devices as peers: there are {len(devices)} "
            f"({', '.join(devices)}) for --cohort={config.cohort}. Use --placement=one, or "
            "processes on several hosts with TF_CONFIG."
        )
