"""Which data a run belongs to: names, sizes and contents of files, none of which is decoded.

Reading all files again at each start would take too long. So the result for a set of files is
kept in the user's cache folder, and counts until a file's size, time of change or name differs.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dml_tf.atomic import write_text

_SETTLED_NS = 2_000_000_000  # a file that is younger may change again within the same time stamp


def of_files(parts: Mapping[str, Sequence[Path]]) -> dict[str, dict]:
    """The identity of the files of each part of a data set.

    Args:
        parts: Name of a part, such as `train`, and its files.

    Returns:
        For each part `files` (how many), `bytes`, and `digest`, a hash of the files' names, sizes
        and contents. The folder's own name and place do not count.

    Raises:
        OSError: A file cannot be read.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "picture.png"
        >>> _ = file.write_bytes(b"12345")
        >>> found = of_files({"train": [file]})["train"]
        >>> found["files"], found["bytes"]
        (1, 5)
    """
    return {name: _of_part(list(files)) for name, files in parts.items()}


def differences(kept: Mapping | None, now: Mapping | None) -> list[str]:
    """How two identities differ, in words; an empty list where one is unknown.

    Args:
        kept: What a record keeps: `version`, `parts`, or both.
        now: The same of the data that are there now.

    Returns:
        A phrase for each difference.

    Examples:
        >>> part = {"files": 2, "bytes": 9, "digest": "a"}
        >>> more = {"files": 5, "bytes": 20, "digest": "b"}
        >>> differences({"parts": {"train": part}}, {"parts": {"train": more}})
        ['train has 3 files more (5, before 2)']
    """
    if not kept or not now:
        return []
    if "version" in kept and "version" in now and kept["version"] != now["version"]:
        return [f"it is {now['version']}, before {kept['version']}"]
    if "parts" in kept and "parts" in now:
        names = dict.fromkeys([*kept["parts"], *now["parts"]])
        found = [_difference(n, kept["parts"].get(n), now["parts"].get(n)) for n in names]
        return [phrase for phrase in found if phrase]
    if "version" in kept and "version" in now:
        return []
    return [f"it is {_origin(now)}, before {_origin(kept)}"]


def _origin(identity: Mapping) -> str:
    return identity.get("version") or "files of --data_dir"


def _difference(name: str, kept: Mapping | None, now: Mapping | None) -> str:
    if kept == now:
        return ""
    if not kept or not now:
        return f"{name} is {'new' if now else 'missing'}"
    more = now["files"] - kept["files"]
    if more:
        word = "more" if more > 0 else "fewer"
        return f"{name} has {abs(more)} files {word} ({now['files']}, before {kept['files']})"
    return (
        f"{name} has as many files as before ({now['files']}), with other names or contents "
        f"({now['bytes']:,} bytes, before {kept['bytes']:,})"
    )


def _of_part(files: list[Path]) -> dict:
    stamp, is_settled = _stamp(files)
    cache = _cache_folder() / f"{_hash(os.fsencode(files[0].absolute()))[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        saved = json.loads(cache.read_text(encoding="utf-8"))
        if saved["stamp"] == stamp:
            return saved["part"]
    part = _read(files)
    if is_settled and _stamp(files)[0] == stamp:
        with contextlib.suppress(OSError):  # without a cache, files are read at each start
            write_text(cache, json.dumps({"stamp": stamp, "part": part}))
    return part


def _stamp(files: Sequence[Path]) -> tuple[str, bool]:
    """A hash of names, sizes and times, and whether all times are old enough to be trusted."""
    digest, newest = hashlib.sha256(), 0
    for file in files:
        seen = file.stat()
        newest = max(newest, seen.st_mtime_ns, seen.st_ctime_ns)
        numbers = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
        digest.update(os.fsencode(file) + repr(numbers).encode())
    return digest.hexdigest(), newest + _SETTLED_NS < time.time_ns()


def _read(files: Sequence[Path]) -> dict:
    from tqdm import tqdm

    top = os.path.commonpath([file.parent for file in files])
    digest, total = hashlib.sha256(), 0
    for file in tqdm(files, "Reading the data once, to recognise them", disable=None, delay=5):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
        name = os.fsencode(file.relative_to(top))
        digest.update(_hash(name).encode() + f"{size} {content}\n".encode())
        total += size
    return {"files": len(files), "bytes": total, "digest": digest.hexdigest()}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dml_tf"
