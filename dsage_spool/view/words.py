"""Numbers, times and names as people read them, and foreign text as harmless rich `Text`.

Pure. Numbers come out of files that others wrote: what is no sensible number becomes `?`.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Iterable

from rich.text import Text

from ..clock import stamp
from ..text import clean

_AGES = ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h"), (math.inf, 86_400, "d"))
_SIZES = ("B", "kB", "MB", "GB", "TB")
_LATEST = 253_402_300_799  # the last second of the year 9999


def age(seconds: float | None) -> str:
    """A span of time in one unit: `3 s`, `2 min`, `4 h`, `3 d`; a negative one counts as none."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    seconds = max(0.0, seconds)
    for below, unit, word in _AGES:
        if seconds < below:
            return f"{number(int(seconds // unit))} {word}"
    return "?"


def span(seconds: float) -> str:
    """How long something took, a little finer than `age`: `0.24 s`, `12.3 s`, `2 min 5 s`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{number(int(seconds // 3600))} h {int(seconds % 3600 // 60)} min"


def size(count: float) -> str:
    """Bytes in decimal units: `312 B`, `1.2 kB`, `35 MB`."""
    if not math.isfinite(count):
        return "?"
    for unit in _SIZES:
        if abs(count) < 999.5 or unit == _SIZES[-1]:
            break
        count /= 1000
    return f"{count:.1f} {unit}" if unit != "B" and count < 9.95 else f"{count:,.0f} {unit}"


def limit(count: int) -> str:
    """Bytes as people set them: whole binary units where it is one, `64 MiB`."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift:,} {unit}"
    return size(count)


def number(count: float) -> str:
    """With a comma between thousands."""
    return f"{count:,.0f}" if math.isfinite(count) else "?"


def several(count: int, thing: str) -> str:
    """`1 job`, `3 jobs`."""
    return f"{number(count)} {thing}{'' if count == 1 else 's'}"


def moment(seconds: float) -> str:
    """`2026-11-22 23:21:40 UTC`."""
    if not 0 <= seconds <= _LATEST:
        return "?"
    return stamp(seconds).replace("T", " ").replace("Z", " UTC")


def short_names(jobs: Iterable[str]) -> dict[str, str]:
    """Each job's name after its date; the whole name where two of these share that part."""
    tails = {job: job.rpartition("-")[2] for job in jobs}
    times = Counter(tails.values())
    return {job: tail if times[tail] == 1 else job for job, tail in tails.items()}


def safe(text: object, style: str = "", limit: int = 500) -> Text:
    """One line of foreign text, without markup, cut with `…` where the room ends."""
    return Text(clean(str(text), limit), style, no_wrap=True, overflow="ellipsis", end="")


def folded(text: object, style: str = "", limit: int = 2000) -> Text:
    """Foreign text that may go on in the next line."""
    return Text(clean(str(text), limit), style, overflow="fold", end="")
