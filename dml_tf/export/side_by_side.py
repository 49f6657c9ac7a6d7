"""Several processes that train exported runs at once on one device, with its memory shared out.

No JAX here: a process that has started it holds memory of the device.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dml_tf.errors import CUT, DONE, FAILED, FlagError

_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_SHARED = 0.9  # of the device's memory; the rest is for what each process has beside its arrays


def environment(processes: int) -> dict[str, str]:
    """Of each process: its part of the memory, and no folder of XLA's that all would write to."""
    part = {_MEMORY: f"{_SHARED / processes:.3f}", "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none"}
    return part | os.environ


def train(folders: Sequence[Path], processes: int, flags: Sequence[str]) -> int:
    """Trains runs in processes of their own, which take turns at the device.

    Args:
        folders: The exported runs.
        processes: How many processes. A process with several runs trains them as one program.
        flags: Further arguments of `python -m dml_tf.export run`, for each of them.

    Returns:
        `FAILED` if a run failed or a process died, else `CUT` if a run can be resumed, else
        `DONE`.

    Raises:
        FlagError: There are fewer runs than processes.
    """
    if not 1 <= processes <= len(folders):
        raise FlagError(f"--processes={processes}: give 1 to {len(folders)}, the number of runs.")
    shares = [list(map(str, folders[i::processes])) for i in range(processes)]
    command = [sys.executable, "-m", "dml_tf.export", "run"]
    started = [
        subprocess.Popen([*command, *share, "--together", *flags], env=environment(processes))
        for share in shares
    ]
    try:
        statuses = [process.wait() for process in started]
    except BaseException:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in started:  # each saves what it has done
            process.wait()
        raise
    failed = [(n, share) for n, share in zip(statuses, shares, strict=True) if n not in (DONE, CUT)]
    for status, share in failed:
        print(
            f"The process of {', '.join(share)} ended with status {status}. What has a finite loss "
            "can be resumed: repeat the command.",
            file=sys.stderr,
        )
    if failed:
        return FAILED
    return CUT if CUT in statuses else DONE
