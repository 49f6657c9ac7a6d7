"""One command for a borrowed accelerator machine: a check, step times, and whole runs.

Example, from the root of the repository; benchmarks/README.md has the whole way:
  bash benchmarks/accelerator.sh exported/out --minutes=8

The work is done in pieces. Each leaves its result in OUT, and a repeated command continues. OUT
holds `record.json`, `log.txt`, and the states of the runs in `states-*.tar`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator import output, planning
from benchmarks.accelerator.inputs import INPUTS, Inputs
from benchmarks.accelerator.output import Out
from benchmarks.accelerator.stages import STAGES, Session
from dml_tf.errors import CUT, DONE, FlagError, RunFailed, exit_status

_SPARE_S = 20.0  # for packing and for ending, out of the minutes of a call


def main(argv: Sequence[str]) -> int:
    """Does what the flags ask for; 3 if there is more to do."""
    return exit_status("benchmarks/accelerator.sh", lambda: _main(argv), (ValueError,))


def _main(argv: Sequence[str]) -> int:
    asked = _parse(argv)
    if asked.smoke:
        return _smoke()
    if asked.prepare:
        from benchmarks.accelerator.prepare import prepare

        prepare(asked.prepare, asked.data_dir, asked.photographs)
        return DONE
    if asked.out is None:
        raise FlagError("Name the folder OUT for the results, or give --prepare or --smoke.")
    inputs = Inputs(asked.inputs)
    if asked.collect:
        output.collect(inputs, Out(asked.out), asked.collect)
        return DONE
    return _measure(inputs, Out(asked.out), 60 * asked.minutes, asked.only, 60 * asked.budget)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bash benchmarks/accelerator.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="of this call; default: 8")
    parser.add_argument(
        "--budget", type=float, default=15.0, metavar="MINUTES", help="of all calls; default: 15"
    )
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
    from benchmarks.accelerator.prepare import prepare

    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # it compiles in half the time
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place / "inputs", None, None, smoke=True)
        inputs, out = Inputs(place / "inputs"), place / "out"
        for seconds, only in ((3600, STAGES[:3]), (11, STAGES[3:]), (3600, STAGES[3:])):
            status = _measure(inputs, Out(out), seconds + _SPARE_S, only, 7200)
        if status != DONE:
            raise RunFailed(f"The rehearsal ended with status {status}.")
        output.collect(inputs, Out(out), place / "runs")
        files = [file.stat().st_size for file in out.iterdir()]
    print(f"rehearsed: OUT had {len(files)} files of at most {max(files) / 1e6:.1f} MB")
    return DONE


def _measure(inputs: Inputs, out: Out, seconds: float, only: Sequence[str], budget_s: float) -> int:
    """Does the stages that are not done, until the time is over."""
    session = Session(inputs, out, max(seconds - _SPARE_S, 1), budget_s)
    inputs.unpack(out)
    status = session.work(only)
    if status == CUT:
        out.say("There is more to do. To continue, repeat the command.")
    if status == DONE:
        out.say(planning.table(out.record))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
