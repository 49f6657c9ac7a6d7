"""The state of an unfinished run in one file: what a step reads and writes, and how far it came.

NumPy only, so that a machine without TensorFlow can go on with a run, and hand it back.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def save(file: Path, progress: dict, arrays: Sequence[np.ndarray]):
    """Writes a state so that at every moment one whole file is on disk.

    Args:
        file: Where to, ending in `.npz`; its folder is made.
        progress: How far the run came; JSON's types.
        arrays: Values of the run's variables, in their fixed order.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "state.npz"
        >>> save(file, {"epoch": 3}, [np.zeros(2)])
        >>> load(file)
        ({'epoch': 3}, [array([0., 0.])])
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".part{os.getpid()}.{file.name}")
    try:
        named = {f"variable{i}": array for i, array in enumerate(arrays)}
        np.savez(part, state=json.dumps(progress), **named)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def load(file: Path) -> tuple[dict, list[np.ndarray]]:
    """Reads a state.

    Args:
        file: What `save` wrote.

    Returns:
        The progress and the variables' values.
    """
    with np.load(file) as saved:
        arrays = [saved[f"variable{i}"] for i in range(len(saved.files) - 1)]
        return json.loads(str(saved["state"])), arrays
