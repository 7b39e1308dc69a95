"""What clients and workers do to a spool: submit, request, claim, renew, deliver. Drop boxes only.

Each verb works on many things at once, so that over SSH the requests of all are in flight together
and one flush serves all. docs/format.md numbers the file operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

from .. import layout, names, pack, records
from ..errors import Exists, Gone, SpoolError, Unreachable
from ..files import Files
from ..records import Request, Worker


SIZES = 64  # of a heartbeat file, in turn


@dataclass(frozen=True)
class Drop:
    """A whole file on its way into a drop box."""

    box: str
    name: str
    data: bytes


def job_drop(job: str, envelope: bytes, signature: str, payload: bytes) -> Drop:
    parts = {layout.ENVELOPE: envelope, layout.SIGNATURE: signature.encode(), layout.PAYLOAD: payload}
    return Drop(layout.INCOMING, names.drop_name(job), pack.join(parts))


def request_drop(request: Request, text: bytes, signature: str) -> Drop:
    parts = {"request": text, "request.sig": signature.encode()}
    return Drop(layout.INCOMING, names.request_name(request.job, request.nonce), pack.join(parts))


def result_drop(job: str, attempt: int, data: bytes) -> Drop:
    return Drop(layout.RESULTS, names.claim_name(job, attempt, "result"), data)


def put(files: Files, nonce: str, drops: Sequence[Drop]) -> list[Any]:
    """Submit, request and deliver. None or a SpoolError for each drop.

    1 write tmp/<nonce>.<name>, 2 flush it, 3 rename it into the box, 4 flush the box. Step 3 is the
    commit point, and after step 4 it outlasts a power failure. Repeating is harmless.
    """
    rows = [
        (layout.in_tmp(f"{nonce}.{drop.name}"), layout.in_box(drop.box, drop.name), drop.data)
        for drop in drops
    ]
    outcomes = files.many("drop", rows)
    if any(outcome is None for outcome in outcomes):
        files.sync(sorted({drop.box for drop in drops}))
    return outcomes


def enrol(files: Files, worker: Worker) -> str:
    """Put a worker's heartbeat file in place; its path. All its claims will be links to it."""
    path = layout.heartbeat(worker.run)
    files.drop(layout.in_tmp(worker.run), path, records.make(worker))
    files.sync([layout.WORKERS])
    return path


def renew(files: Files, run: str, size: int, beat: int) -> None:
    """Renew every lease of a worker by one small write: another size, by NUL bytes after the text.

    The size must change, or some file systems leave the time stamp alone. With so many sizes in turn it
    does so however many beats were lost before. Gone if the server took the file away.
    """
    files.resize(layout.heartbeat(run), size + beat % SIZES)


def claim(files: Files, run: str, wanted: Sequence[tuple[str, int]]) -> list[bool]:
    """Claim attempts at jobs by exclusive hard links to the heartbeat file; which were won.

    1 link workers/<run> to locks/<job>.<attempt>.lock: the commit point, one winner.
    2 flush locks/: a claim is on stable storage before its job starts, so that no power failure of
    the host lets one attempt run twice.
    """
    source = layout.heartbeat(run)
    rows = [(source, layout.lock(job, attempt)) for job, attempt in wanted]
    outcomes = files.many("link", rows)
    won = [_won(files, outcome, run, row[1]) for outcome, row in zip(outcomes, rows)]
    if any(won):
        files.sync([layout.LOCKS])
    return won


def _won(files: Files, outcome: Any, run: str, lock: str) -> bool:
    if outcome is None:
        return True
    if isinstance(outcome, Exists):
        return False
    if isinstance(outcome, (Gone, Unreachable)):
        # Lost in between: the link may have been made. What the lock says is the answer; if it
        # cannot be read either, Unreachable goes up and the caller looks again after reconnecting.
        return holds(files, run, lock)
    raise outcome


def claimed_after_all(
    files: Files, run: str, doubtful: Sequence[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Of the claims on whose way the connection was lost, those that were won; flushed like others."""
    won = [key for key in doubtful if holds(files, run, layout.lock(*key))]
    if won:
        files.sync([layout.LOCKS])
    return won


def holds(files: Files, run: str, lock: str) -> bool:
    """Whether a lock is there and names this run of this worker."""
    try:
        found = read_worker(files.read(lock, records.RECORD_LIMIT))
    except SpoolError as error:
        if isinstance(error, Gone):
            return False
        raise
    return found.run == run


def read_worker(data: bytes) -> Worker:
    """The worker record of a heartbeat or lock file, without its padding."""
    return records.parse(Worker, data.rstrip(b"\0"))
