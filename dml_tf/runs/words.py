"""Quantities and runs in words, for people who watch."""


def duration(seconds: float) -> str:
    """Some time in words: `40 s`, `5 min`, `3.5 h`, `12 days`."""
    for size, unit, least in ((86400, "days", 3), (3600, "h", 2), (60, "min", 2), (1, "s", 0)):
        if seconds >= least * size:
            digits = 1 if unit == "h" and seconds < 10 * size else 0
            return f"{seconds / size:.{digits}f} {unit}"
    return "0 s"
