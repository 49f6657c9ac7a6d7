"""One command for a borrowed accelerator machine: a check, step times, and whole runs.

Example, from the root of the repository; benchmarks/README.md has the whole way:
  bash benchmarks/accelerator.sh exported/out --minutes=8

The work is done in pieces. Each leaves its result in OUT, and a repeated command continues. OUT
holds `record.json`, `log.txt`, and the states of the runs, at most 12, in `states-*.tar`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import accelerator_out, accelerator_plan
from benchmarks.accelerator_out import Out
from benchmarks.accelerator_plan import INPUTS, Inputs
from dml_tf.errors import CUT, DONE, FAILED, FlagError, RunFailed, exit_status

STAGES = ("check", "times", "pytorch", "train")
_SPARE_S = 20.0  # for packing and for ending, out of the minutes of a call


def main(argv: Sequence[str]) -> int:
    """Does what the flags ask for; 3 if there is more to do."""
    return exit_status("benchmarks/accelerator.sh", lambda: _main(argv), (ValueError,))


def _main(argv: Sequence[str]) -> int:
    asked = _parse(argv)
    if asked.smoke:
        return _smoke()
    if asked.prepare:
        from benchmarks import accelerator_prepare

        accelerator_prepare.prepare(asked.prepare, asked.data_dir, asked.photographs)
        return DONE
    if asked.out is None:
        raise FlagError("Name the folder OUT for the results, or give --prepare or --smoke.")
    inputs = Inputs(asked.inputs)
    if asked.collect:
        accelerator_out.collect(inputs, Out(asked.out), asked.collect)
        return DONE
    return _measure(inputs, Out(asked.out), 60 * asked.minutes, asked.only)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bash benchmarks/accelerator.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="of this call; default: 8")
    parser.add_argument(
        "--inputs", type=Path, default=INPUTS, help=f"what --prepare wrote; default: {INPUTS}"
    )
    parser.add_argument("--only", type=_stages, default=STAGES, help=f"of {','.join(STAGES)}")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="write the inputs")
    parser.add_argument("--data_dir", type=Path, help="for --prepare: folder with CIFAR-10")
    parser.add_argument("--photographs", type=Path, help="for --prepare: the JPEG copy's archive")
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="take the runs out of OUT")
    parser.add_argument("--smoke", action="store_true", help="rehearse all with tiny networks")
    return parser.parse_args(argv)


def _stages(text: str) -> list[str]:
    if set(text.split(",")) - {*STAGES}:
        raise argparse.ArgumentTypeError(f"choose from {','.join(STAGES)}")
    return text.split(",")


def _smoke() -> int:
    """Prepares, measures, trains in two calls and collects, with tiny networks."""
    from benchmarks import accelerator_prepare

    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # it compiles in half the time
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        accelerator_prepare.prepare(place / "inputs", None, None, smoke=True)
        inputs, out = Inputs(place / "inputs"), place / "out"
        for seconds, only in ((120, STAGES[:3]), (11, STAGES[3:]), (120, STAGES[3:])):
            status = _measure(inputs, Out(out), seconds + _SPARE_S, only)
        if status != DONE:
            raise RunFailed(f"The rehearsal ended with status {status}.")
        accelerator_out.collect(inputs, Out(out), place / "runs")
        files = [file.stat().st_size for file in out.iterdir()]
    print(f"rehearsed: OUT had {len(files)} files of at most {max(files) / 1e6:.1f} MB")
    return DONE


def _measure(inputs: Inputs, out: Out, seconds: float, only: Sequence[str]) -> int:
    """Does the stages that are not done, until the time is over."""
    until = time.monotonic() + max(seconds - _SPARE_S, 1)
    inputs.unpack(out)
    session = Session(inputs, out, until)
    for stage in only:
        status = getattr(session, stage)()
        out.save()
        if status != DONE:
            if status == CUT:
                out.say("The time is over. To continue, repeat the command.")
            return status
    out.say(accelerator_plan.table(out.record))
    return DONE


class Session:
    """One call of the command: what it reads, what it writes, and until when it may work."""

    def __init__(self, inputs: Inputs, out: Out, until: float):
        self._inputs, self._out, self._until = inputs, out, until

    @property
    def _left(self) -> float:
        return self._until - time.monotonic()

    def check(self) -> int:
        """20 steps against the CPU, by each way to load the step until one is right."""
        record = self._out.record
        if "loader" in record:
            return DONE
        from dml_tf.export.load import LOADERS

        run = self._inputs.run(*self._inputs.plan.first_run)
        for loader in LOADERS:
            ended = self._python(
                "dml_tf.export", "check", run, f"--loader={loader}", *self._inputs.data_flags
            )
            self._out.say(f"check, loaded by {loader}: {ended.stdout}{ended.stderr}".strip())
            if ended.returncode == CUT:
                return CUT
            if ended.returncode == DONE:
                record |= {"loader": loader, "check": ended.stdout.splitlines()}
                record |= accelerator_plan.machine()
                return DONE
        return FAILED

    def times(self) -> int:
        """Step times, each in a process of its own."""
        return self._rows("times", accelerator_plan.time_pieces, "benchmarks.accelerator_times")

    def pytorch(self) -> int:
        """The same steps in PyTorch, where it is installed."""
        if importlib.util.find_spec("torch") is None:
            self._out.say("PyTorch is not installed.")
            return DONE
        return self._rows("pytorch", accelerator_plan.torch_pieces, "benchmarks.accelerator_torch")

    def _rows(self, table: str, pieces, module: str) -> int:
        """Measures the pieces of a table that have no row yet."""
        rows = self._out.record.setdefault(table, [])
        while piece := next(pieces(self._inputs, rows), None):
            if self._left < 30 and rows:
                return CUT
            flags = [f"--{name}={value}" for name, value in piece.items()]
            ended = self._python(module, f"--inputs={self._inputs.folder}", *flags)
            if ended.returncode == CUT and not self._out.count_attempt(table, piece):
                return CUT
            rows.append(piece | accelerator_plan.result_of(ended))
            self._out.say(f"{table}: {rows[-1]}")
            self._out.save()
        return DONE

    def train(self) -> int:
        """Whole runs, as many together as was fastest."""
        record, inputs = self._out.record, self._inputs
        way, together = accelerator_plan.fastest(inputs.plan, record)
        for group in accelerator_plan.groups(inputs.plan, record, together):
            folders = [inputs.run(*each) for each in group if not self._out.is_done(*each)]
            if not folders:
                continue
            if self._left < 10:
                return CUT
            status = self._run(folders, way, together)
            if status == CUT:
                return CUT
            for each in group:
                finished = accelerator_plan.is_finished(inputs.run(*each))
                self._out.note(*each, "trained" if finished else "failed")
        return DONE

    def _run(self, folders: Sequence[Path], way: str, together: int) -> int:
        """Trains runs; their states go to OUT every minute."""
        record = self._out.record
        flags = [f"--max_seconds={self._left}", "--dispatch=10", *self._inputs.data_flags]
        flags += ["--together"] if len(folders) > 1 else []
        if way == "processes":
            flags += [f"--processes={min(together, len(folders))}"]
        else:
            flags += [f"--program={way}"]
        if way != "batched":
            flags += [f"--loader={record['loader']}"]
        command = [sys.executable, "-m", "dml_tf.export", "run", *map(str, folders), *flags]
        names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
        self._out.say(f"training: {', '.join(names)}")
        environment = self._inputs.environment
        with self._out.log.open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            while True:
                try:
                    status = process.wait(60)
                    break
                except subprocess.TimeoutExpired:
                    self._out.pack(self._inputs)
                except BaseException:
                    process.terminate()
                    process.wait()
                    raise
                finally:
                    self._out.save()
        self._out.pack(self._inputs)
        return status

    def _python(self, module: str, *arguments) -> subprocess.CompletedProcess:
        """Runs a module in a process of its own, which ends with `CUT` when the time is over."""
        command = [sys.executable, "-m", module, *map(str, arguments)]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=False,
                timeout=max(self._left, 20), env=self._inputs.environment,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return subprocess.CompletedProcess(
                command, CUT, stdout="", stderr=f"it took more than {late.timeout:.0f} s"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
