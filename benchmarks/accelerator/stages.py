"""One call of `benchmarks/accelerator.sh` on a borrowed machine: its stages, and their time."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.accelerator import planning, processes
from benchmarks.accelerator.inputs import Inputs, is_finished, is_not_finite, steps_done
from benchmarks.accelerator.output import FULL, Out
from benchmarks.accelerator.planning import METHODS, RUN, Plan, Way
from dml_tf.errors import CUT, DONE, FAILED
from dml_tf.export.folder import Export

# Stage -> its share of the time that is left when it begins.
SHARES = {"check": 1.0, "times": 0.3, "pytorch": 0.15, "train": 1.0}
STAGES = tuple(SHARES)
_STARTS_S = 15.0  # until a process that trains counts its own time


class Session:
    """The stages of one call.

    Args:
        inputs: What it reads.
        out: What it writes.
        seconds: How long it may work.
        budget_s: Seconds of all calls together, with those before.
    """

    def __init__(self, inputs: Inputs, out: Out, seconds: float, budget_s: float):
        self._inputs, self._out, self._plan = inputs, out, inputs.plan
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._used_s = out.record.get("used_s", 0.0)
        self._budget_s = budget_s

    def work(self, only: Sequence[str]) -> int:
        """Does the stages that are not done; in a second round without shares."""
        statuses = {}
        for stage in only:
            statuses[stage] = self._do(stage, SHARES[stage])
            if stage == "check" and statuses[stage] != DONE:
                return statuses[stage]
        for stage in only:
            if statuses[stage] == CUT:
                statuses[stage] = self._do(stage, 1.0)
        return next((s for s in (FAILED, CUT) if s in statuses.values()), DONE)

    def _do(self, stage: str, share: float) -> int:
        """A stage, which begins nothing new after its share of the time."""
        self._stage_until = time.monotonic() + share * self._left
        do = {
            "check": self._check, "times": self._times, "pytorch": self._pytorch,
            "train": self._train,
        }[stage]  # fmt: skip
        try:
            return do()
        finally:
            self._save()

    @property
    def _left(self) -> float:
        return self._until - time.monotonic()

    def _save(self):
        """Writes the record, with the time that was used."""
        self._out.record["used_s"] = self._used_s + time.monotonic() - self._began
        self._out.save()

    def _check(self) -> int:
        """20 steps against the CPU, by each way to load the step until one is right."""
        record = self._out.record
        if record.get("check_passed") or "check_ended" in record:
            return DONE
        from dml_tf.export.load import LOADERS

        record |= planning.machine()
        self._save()
        run = self._inputs.run(*self._checked_runs()[0])
        tried = [check["loader"] for check in record.get("check", [])]
        for loader in [loader for loader in LOADERS if loader not in tried]:
            if self._left < self._plan.piece_s:
                return CUT
            passed, printed = self._compare([run], loader)
            if printed:
                record.setdefault("check", []).append({"loader": loader, "printed": printed})
            if passed or (printed and "loader" not in record):
                record |= {"loader": loader, "check_passed": passed}
            if passed:
                return DONE
        if "loader" not in record:
            return FAILED
        record["check_ended"] = True
        self._out.say("No check passed: steps are timed, but nothing is trained.")
        return DONE

    def _compare(self, runs: Sequence[Path], loader: str) -> tuple[bool, list[str]]:
        """Whether a comparison passed, and the numbers that it printed if it came so far."""
        ended = self._python(
            min(self._plan.check_s, self._left), "dml_tf.export", "check", *runs,
            f"--loader={loader}", *self._inputs.data_flags,
        )  # fmt: skip
        self._out.say(f"check, loaded by {loader}: {ended.stdout}{ended.stderr}".strip())
        return ended.returncode == DONE, ended.stdout.splitlines()

    def _checked_runs(self) -> list[RUN]:
        """Up to two runs of one step whose states are here."""
        for name in self._plan.seeds:
            for method in METHODS:
                runs = [(name, method, seed) for seed in range(self._plan.seeds[name])]
                if here := [run for run in runs if steps_done(self._inputs.run(*run)) >= 0]:
                    return here[:2]
        raise FileNotFoundError(f"{self._inputs.folder} has no seed<k>.tar.xz.")

    def _times(self) -> int:
        """Step times, each in a process of its own."""
        loader = self._out.record.get("loader")
        flags = [f"--inputs={self._inputs.folder}", *([f"--loader={loader}"] if loader else [])]
        return self._rows("times", planning.time_pieces, "benchmarks.accelerator.step_time", flags)

    def _pytorch(self) -> int:
        """The same steps in PyTorch, where it is installed."""
        if importlib.util.find_spec("torch") is None:
            self._out.say("PyTorch is not installed.")
            return DONE
        return self._rows("pytorch", planning.torch_pieces, "benchmarks.accelerator.pytorch", [])

    def _rows(
        self,
        table: str,
        pieces: Callable[[Plan, Sequence[dict]], Iterator[dict]],
        module: str,
        flags: Sequence[str],
    ) -> int:
        """Measures the pieces of a table that have no row yet."""
        rows = self._out.record.setdefault(table, [])
        while piece := next(pieces(self._plan, rows), None):
            limit = self._plan.piece_s
            if time.monotonic() > self._stage_until or self._left < limit:
                return CUT
            own = [f"--{name}={value}" for name, value in piece.items()]
            ended = self._python(limit, module, *flags, *own)
            rows.append(piece | planning.result_of(ended))
            self._out.say(f"{table}: {rows[-1]}")
            self._save()
        return DONE

    def _train(self) -> int:
        """Whole runs of the set that the time allows."""
        record = self._out.record
        if not record.get("check_passed"):
            self._out.say(
                "Nothing is trained before a check has passed: see `check` in the record."
            )
            return FAILED
        way = self._way()
        if way is None:
            return CUT
        groups = list(planning.groups(self._plan, self._set(way)))
        for group in groups:
            while runs := self._open(group):
                status = self._train_group(runs, way)
                if status != DONE:
                    return status
        absent = [run for group in groups for run in group if not self._out.is_done(run)]
        if absent:
            seeds = sorted({self._inputs.states(seed).name for _, _, seed in absent})
            self._out.say(f"Runs are left whose states are not here: {', '.join(seeds)}")
        return CUT if absent else DONE

    def _way(self) -> Way | None:
        """The fastest way; batched only if it agrees with each run's own program."""
        record = self._out.record
        ways = planning.ways(self._plan, record.get("times", []))
        runs = [self._inputs.run(*run) for run in self._checked_runs()]
        if ways[0].name == "batched" and "batched" not in record and len(runs) > 1:
            if self._left < self._plan.least_s:
                return None
            has_time = self._left >= self._plan.check_s
            passed, printed = self._compare(runs, record["loader"])
            if not (passed or printed or has_time):  # it was cut short, which says nothing
                return None
            record["batched"] = {"passed": passed, "printed": printed}
        if record.get("batched", {}).get("passed"):
            return ways[0]
        return next((way for way in ways if way.name != "batched"), Way("calls"))

    def _set(self, way: Way) -> str:
        """The set to train, which stays once the steps are timed."""
        record = self._out.record
        if "set" not in record:
            run = self._inputs.run("full", METHODS[0], 0)
            steps = Export.read(run).schedule.steps
            left = self._budget_s - self._used_s - (time.monotonic() - self._began)
            name = planning.set_in_time(self._plan, way, steps, left)
            if way.step_s is None:
                return name
            record["set"] = name
        return record["set"]

    def _open(self, group: Sequence[RUN]) -> list[RUN]:
        """The runs of a group that are not done and whose states are here."""
        return [
            run
            for run in group
            if not self._out.is_done(run) and steps_done(self._inputs.run(*run)) >= 0
        ]

    def _train_group(self, runs: Sequence[RUN], way: Way) -> int:
        """Trains until the runs end, or the time; `FAILED` if that did not bring them further."""
        if self._left < self._plan.least_s:
            return CUT
        if not self._out.has_room(self._inputs, runs):
            self._out.say(FULL)
            return CUT
        folders = [self._inputs.run(*run) for run in runs]
        before = sum(map(steps_done, folders))
        status = self._run(folders, way)
        is_packed = self._out.pack(self._inputs)
        for run, folder in zip(runs, folders, strict=True):
            if is_finished(folder) and is_packed:
                self._out.note(run, "trained")
            elif is_not_finite(folder):
                self._out.note(run, "not finite")
        self._save()
        if status == CUT or not is_packed:
            return CUT
        if sum(map(steps_done, folders)) == before and len(self._open(runs)) == len(runs):
            self._out.say(f"No run of the group came further: {self._out.log} says why.")
            return FAILED
        return DONE

    def _run(self, folders: Sequence[Path], way: Way) -> int:
        """Trains runs in processes of their own; their states go to OUT every minute."""
        seconds = max(self._left - _STARTS_S, 1)
        flags = [f"--max_seconds={seconds}", "--dispatch=10", *self._inputs.data_flags]
        flags += ["--together"] if len(folders) > 1 else []
        if way.name == "processes":
            flags += [f"--processes={len(folders)}"]
        else:
            flags += [f"--program={way.name}"]
        if way.name != "batched":
            flags += [f"--loader={self._out.record['loader']}"]
        names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
        self._out.say(f"training, {way.name}: {', '.join(names)}")

        def keep():
            self._out.pack(self._inputs)
            self._save()

        command = [sys.executable, "-m", "dml_tf.export", "run", *map(str, folders), *flags]
        return processes.run_until(
            self._until, command, self._out.log, self._inputs.environment, keep
        )

    def _python(self, seconds: float, module: str, *arguments):
        """Runs a module in a process of its own, for so many seconds."""
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return processes.run(command, seconds, self._inputs.environment)
