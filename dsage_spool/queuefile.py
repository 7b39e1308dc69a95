"""The `queue` file: what the server tells everybody, small however long the queue is.

    dsage-spool-queue: 1
    check: 5d41402a
    written: 1795389700
    journal: 20261122.3
    server: box 4711
    counts: queued=100000 held=0 running=2 done=17 failed=0 cancelled=0 rejected=1
    owner: alice queued=99990 running=2 use=311.2
    running: <job> <attempt> <worker> <since> <owner> <title>
    next: <job> <attempt> <priority> <owner> <needs or -> <title>

`next` lines stand in the order in which jobs should be taken; for each distinct set of needs there
is a bounded number of them, so that no kind of worker is left without. Titles are for people only.
`check` is the CRC-32 of all that follows its line: a slow reader may see two versions mixed, since
the server writes into a few files in turn, and reads again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from . import names
from .errors import BadFormat, BadVersion, Torn
from .text import clean

FIRST = "dsage-spool-queue: 1"
LINES_PER_NEEDS = 128
LIMIT = 4 << 20  # bytes; what a reader is willing to read


@dataclass(frozen=True)
class Next:
    job: str
    attempt: int
    priority: int
    owner: str
    needs: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True)
class Running:
    job: str
    attempt: int
    worker: str
    since: float
    owner: str
    title: str = ""


@dataclass
class QueueView:
    written: float = 0.0
    journal: str = ""
    server: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    owners: dict[str, dict[str, float]] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)
    next: list[Next] = field(default_factory=list)


def next_line(row: Next) -> str:
    needs = ",".join(row.needs) or "-"
    return f"next: {row.job} {row.attempt} {row.priority} {row.owner} {needs} {clean(row.title, 60)}"


def running_line(row: Running) -> str:
    return (
        f"running: {row.job} {row.attempt} {row.worker} {row.since:.0f} {row.owner} "
        f"{clean(row.title, 60)}"
    )


def owner_line(owner: str, numbers: dict[str, float]) -> str:
    return f"owner: {owner} {_pairs(numbers)}"


def finish(lines: list[str]) -> bytes:
    """The bytes of the file, from the lines that follow the check."""
    body = "\n".join([*lines, ""]).encode()
    return b"%s\ncheck: %08x\n%s" % (FIRST.encode(), zlib.crc32(body), body)


def _checked(data: bytes) -> bytes:
    """What follows the check, if it is whole."""
    first, _, rest = data.partition(b"\n")
    if not first.startswith(b"dsage-spool-queue: "):
        raise BadFormat("queue: its first line is not `dsage-spool-queue: 1`")
    if first != FIRST.encode():
        raise BadVersion("queue: written by another release; this one reads version 1")
    check, _, body = rest.partition(b"\n")
    if check != b"check: %08x" % zlib.crc32(body):
        raise Torn("queue: two versions mixed; read it again")
    return body


def head_lines(written: float, journal: str, server: str, counts: dict[str, int]) -> list[str]:
    return [
        f"written: {written:.0f}",
        f"journal: {journal}",
        f"server: {clean(server, 80)}",
        f"counts: {_pairs(counts)}",
    ]


def _pairs(numbers: dict) -> str:
    return " ".join(f"{key}={value:.10g}" for key, value in numbers.items())


def parse(data: bytes) -> QueueView:
    """What stands in the file. It is advice: a line that cannot be read is passed over."""
    view = QueueView()
    for line in _checked(data).decode("utf-8", "replace").split("\n"):
        key, _, text = line.partition(": ")
        reader = _READERS.get(key)
        if reader:
            try:
                reader(view, text)
            except (ValueError, IndexError, OverflowError):
                continue
    return view


def _read_next(view: QueueView, text: str) -> None:
    job, attempt, priority, owner, needs, title = text.split(" ", 5)
    if names.is_job(job):
        wanted = () if needs == "-" else tuple(needs.split(","))
        view.next.append(Next(job, int(attempt), int(priority), owner, wanted, clean(title)))


def _read_running(view: QueueView, text: str) -> None:
    job, attempt, worker, since, owner, title = text.split(" ", 5)
    if names.is_job(job):
        row = Running(job, int(attempt), clean(worker), float(since), clean(owner), clean(title))
        view.running.append(row)


def _read_owner(view: QueueView, text: str) -> None:
    owner, _, numbers = text.partition(" ")
    view.owners[clean(owner)] = _numbers(numbers)


def _numbers(text: str) -> dict[str, float]:
    pairs = (pair.partition("=") for pair in text.split())
    return {clean(key): float(value) for key, _, value in pairs}


def _read_counts(view: QueueView, text: str) -> None:
    view.counts = {key: int(value) for key, value in _numbers(text).items()}


_READERS = {
    "written": lambda view, text: setattr(view, "written", float(text)),
    "journal": lambda view, text: setattr(view, "journal", clean(text, 40)),
    "server": lambda view, text: setattr(view, "server", clean(text)),
    "counts": _read_counts,
    "owner": _read_owner,
    "running": _read_running,
    "next": _read_next,
}
