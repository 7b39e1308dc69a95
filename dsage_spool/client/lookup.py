"""From what a person types to the name of a job: any unique part of it, or `last`."""

from __future__ import annotations

from .. import layout, names
from ..errors import FileAnswer, UnknownJob, UsageError
from ..files import Files
from ..spool import journal, reading
from .ledger import Ledger

JOURNAL_TAIL = 8 << 20  # bytes of the journal that are searched, newest first


def find_job(part: str, files: Files, ledger: Ledger | None, local: bool) -> str:
    """The one job whose name contains `part`; UnknownJob if none or several do."""
    if names.is_job(part):
        return part
    if part == "last":
        return _last(ledger)
    if not part or set(part) - set(names.ALPHABET + "T-"):
        raise UnknownJob(f"{part!r}: no job goes by that name", "a job's name, or any part of one")
    for found in _places(part, files, ledger, local):
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise UnknownJob(f"{part}: {len(found)} jobs have it in their names: {shown}", "type more")
    raise UnknownJob(
        f"{part}: no job with that in its name", "dsage-spool status shows what is there"
    )


def _last(ledger: Ledger | None) -> str:
    job = ledger.last() if ledger else ""
    if not job:
        raise UnknownJob("last: nothing was submitted to this spool from here")
    return job


def _places(part: str, files: Files, ledger: Ledger | None, local: bool):
    """Where to look, cheapest first: own jobs, the folders of a local spool, queue and journal."""
    yield ledger.matching(part) if ledger else []
    if local:
        yield reading.find_part(files, part)
        return
    view = reading.read_queue(files)
    rows = [*view.running, *view.next] if view else []
    yield sorted({row.job for row in rows if part in row.job})
    yield _in_journal(part, files)


def _in_journal(part: str, files: Files) -> list[str]:
    found: set[str] = set()
    room = JOURNAL_TAIL
    for name in reversed(journal.names_in_order(files.names(layout.JOURNAL))):
        path = layout.journal(name)
        try:
            size = files.stat(path).size
            text = files.read_from(path, max(0, size - room), min(room, size))
        except FileAnswer:
            continue
        words = (line.split(b" ", 2)[1:2] for line in text.split(b"\n"))
        found |= {word[0].decode("ascii", "replace") for word in words if word}
        room -= len(text)
        if room <= 0:
            break
    return sorted(job for job in found if part in job and names.is_job(job))


def parse_duration(text: str) -> float:
    """Seconds from `90`, `90s`, `10m`, `1h30m`, `2d`; 0 from `none`."""
    if text.strip().lower() in ("none", "0"):
        return 0.0
    return _sum(text, {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}, "10m or 1h30m")


def parse_size(text: str) -> int:
    """Bytes from `512M`, `2G`, `1000`; powers of 1024."""
    units = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    units |= {f"{unit}b": size for unit, size in units.items() if unit not in ("", "b")}
    return int(_sum(text, units, "512M or 2G"))


def _sum(text: str, units: dict[str, int], example: str) -> float:
    import re

    pieces = re.findall(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)", text)
    if not pieces or "".join(n + u for n, u in pieces) != re.sub(r"\s", "", text):
        raise UsageError(f"{text!r}: not an amount", f"like {example}")
    try:
        return sum(float(number) * units[unit.lower()] for number, unit in pieces)
    except KeyError as error:
        raise UsageError(f"{text!r}: no unit {error.args[0]!r}", f"like {example}") from None
