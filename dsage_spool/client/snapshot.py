"""One look at a whole spool, for `status`: the same data for the table and for JSON. No listing grows
with the backlog: it reads the queue file and one small file for each worker.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .. import layout
from ..errors import FileAnswer
from ..files import Files
from ..queuefile import Next, QueueView, Running
from ..spool import reading, settings
from ..spool.reading import WorkerSeen
from ..worker.match import why_not

JSON_VERSION = 1
STOPPED = "-"  # what a server that has stopped leaves as its name
SERVER_SILENT = 60.0  # seconds; three times as long as an idle server takes to write again


@dataclass(frozen=True)
class WorkerRow:
    name: str
    host: str
    slots: int
    busy: int
    heard: float  # seconds ago
    alive: bool
    python: str
    offers: tuple[str, ...]


@dataclass(frozen=True)
class OwnerRow:
    name: str
    queued: int
    running: int
    use: float  # recent slot seconds


@dataclass(frozen=True)
class WaitingRow:
    job: str
    attempt: int
    priority: int
    owner: str
    title: str
    needs: tuple[str, ...]
    why: str  # why it waits, in words


@dataclass
class Snapshot:
    """Ages in seconds by the spool host's clock. `server` is empty where none was heard of yet."""

    place: str
    spool: str
    taken: float
    server: str = ""
    server_age: float | None = None
    server_alive: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    incoming: int = 0  # dropped, not yet looked at; counted up to 1000, local spools only
    workers: list[WorkerRow] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    waiting: list[WaitingRow] = field(default_factory=list)
    owners: list[OwnerRow] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"version": JSON_VERSION, **asdict(self)}


def take(files: Files, place: str, local: bool) -> Snapshot:
    """Look at a spool. `local` allows one bounded listing of incoming/."""
    spool = settings.load(files, place)
    now = files.now()
    view = reading.read_queue(files) or QueueView()
    shot = Snapshot(place=place, spool=spool.id, taken=now, counts=view.counts, running=view.running)
    shot.server, shot.server_age = view.server, _age(files, now)
    serving = shot.server_age is not None and view.server != STOPPED
    shot.server_alive = serving and shot.server_age < SERVER_SILENT
    shot.incoming = len(files.names(layout.INCOMING, 1000)) if local else 0
    shot.workers = _workers(reading.read_workers(files), view, now, spool.lease)
    shot.waiting = [_waiting(row, shot) for row in view.next]
    shot.owners = [
        OwnerRow(name, int(n.get("queued", 0)), int(n.get("running", 0)), n.get("use", 0.0))
        for name, n in view.owners.items()
    ]
    return shot


def _age(files: Files, now: float) -> float | None:
    try:
        return max(0.0, now - files.stat(layout.QUEUE).mtime)
    except FileAnswer:
        return None


def _workers(seen: list[WorkerSeen], view: QueueView, now: float, lease: float) -> list[WorkerRow]:
    rows = []
    for one in seen:
        worker, age = one.worker, max(0.0, now - one.heard)
        busy = sum(row.worker == worker.worker for row in view.running)
        rows.append(
            WorkerRow(
                worker.worker, worker.host, worker.slots, busy, age, age < lease, worker.python,
                worker.offers,
            )  # fmt: skip
        )
    return rows


def _waiting(row: Next, shot: Snapshot) -> WaitingRow:
    return WaitingRow(
        row.job, row.attempt, row.priority, row.owner, row.title, row.needs, why_waits(row.needs, shot)
    )


def why_waits(needs: tuple[str, ...], shot: Snapshot) -> str:
    """Why a queued job with these needs is not running, in one sentence."""
    if not shot.server_alive:
        return "no server is running"
    alive = {row.name: frozenset(row.offers) for row in shot.workers if row.alive}
    if not alive:
        return "no worker was heard lately"
    cannot = why_not(needs, alive)
    if len(cannot) == len(alive):
        return "; ".join(cannot)
    return "waits for a free slot"
