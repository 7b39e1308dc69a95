"""Make the book from the folders, and finish what a crash has left half done.

A verdict in the folder of a job that has not ended is a decision that was taken, maybe seen, and not
yet renamed: it is carried out if all that belongs to it is whole. Else what was written for it is
removed, and the delivery that caused it, still in results/, is settled again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from .. import layout, names, queuefile, records
from ..clock import stamp
from ..errors import Denied, DiskError, FileAnswer, Gone, SpoolError
from ..files import HOW_MANY, Choice
from ..records import Envelope, Lease, Receipt
from ..spool.dropping import read_worker
from ..spool.journal import Line
from ..spool.moving import SERVED, Change
from ..states import ENDS, State, target
from .book import Book, Entry
from .look import check_parts

_VERDICT = re.compile(rb"\S+ (done|failed|cancelled): [^\n]*\n")
_DELIVERED = layout.RESULT_PARTS
_LEASE = re.compile(r"lease\.([1-9][0-9]{0,5})")
_LATE = re.compile(r"late\.([1-9][0-9]{0,5})")
_VERBS = {"done": "settle", "failed": "fail", "cancelled": "cancel"}


_UNFINISHED = Choice(
    "folders of the server",
    lambda names: [n for n in names if n.startswith("server.") and not n.startswith(SERVED)],
)


@dataclass
class Recovered:
    book: Book
    changes: list[Change] = field(default_factory=list)  # decisions to carry out now
    notes: list[str] = field(default_factory=list)
    trusted: dict[str, bytes] = field(default_factory=dict)  # files that decided something, by path


def recover(files, roster_check, wall: float) -> Recovered:
    """`roster_check(receipt_bytes, signature_bytes)` raises if a receipt is not a worker's.

    First of all everything is flushed: a server that was killed may have left in memory alone what
    is now read and trusted, and told to others.
    """
    files.sync_all()
    found = Recovered(Book())
    _finish_refusals(files, found)
    for state in (State.RUNNING, State.QUEUED, State.HELD):
        for job in sorted(filter(names.is_job, files.names(str(state)))):
            _one_job(files, state, job, roster_check, found, wall)
    for state in ENDS:
        found.book.counts[str(state)] += files.names(str(state), None, HOW_MANY)
    _write_anew(files, found.trusted)
    _cancel_followers(files, found, wall)
    _offer(found.book)
    _old_uses(files, found.book)
    return found


def _finish_refusals(files, found: Recovered) -> None:
    """Folders of the server in tmp/: a refusal that holds its drop is kept, the rest is remade."""
    for name in files.names(layout.TMP, None, _UNFINISHED):
        path = layout.in_tmp(name)
        try:
            if _holds_drop(files, path):
                files.move(path, layout.job_folder(State.REJECTED, name.removeprefix("server.")))
            else:
                files.remove_tree(path)
        except SpoolError as error:
            found.notes.append(f"{path}: left alone: {error.message}")


def _holds_drop(files, path: str) -> bool:
    try:
        if files.stat(path).kind != "folder":
            return False
        files.stat(f"{path}/{layout.DROPPED}")
    except Gone:
        return False
    return True


def _write_anew(files, trusted: dict[str, bytes]) -> None:
    """A flush of these may have failed just before the server was killed: they can then be read, and
    will never reach the disk, whatever is flushed."""
    rows = [(layout.in_tmp(f"server.anew.{n}"), *row) for n, row in enumerate(trusted.items())]
    for outcome in files.many("drop", rows) if rows else ():
        if isinstance(outcome, SpoolError):
            raise outcome
    if rows:
        files.sync(sorted({path.rpartition("/")[0] for path in trusted}))


def can_be_read(files, state: State, job: str) -> bool:
    """Whether the disk gives a job again that it would not give before: all that `_one_job` reads."""
    folder = layout.job_folder(state, job)
    try:
        entry, inside = Entry(_envelope(files, folder), b"", state), set(files.names(folder))
        _read_leases(files, entry, inside, Recovered(Book()), 0.0)
        _decision(files, folder, inside, lambda text, signature: None)
    except SpoolError:
        return False
    return True


def _envelope(files, folder: str) -> Envelope:
    return records.parse(Envelope, files.read(f"{folder}/{layout.ENVELOPE}", records.RECORD_LIMIT))


def _one_job(files, state: State, job: str, roster_check, found: Recovered, wall: float) -> None:
    try:
        text = files.read(layout.in_job(state, job, layout.ENVELOPE), records.RECORD_LIMIT)
        envelope = records.parse(Envelope, text)
        inside = set(files.names(layout.job_folder(state, job)))
        entry = Entry(envelope, hashlib.sha256(text).digest(), state)
        lost = _read_leases(files, entry, inside, found, wall)
        decided = _decision(files, layout.job_folder(state, job), inside, roster_check)
    except SpoolError as error:
        found.notes.append(f"{state}/{job}: cannot be read, left alone: {error.message}")
        found.book.unreadable[job] = state
        return
    found.book.add(entry, offered=False)
    if _was_ending(inside) and _carry_out(files, entry, inside, decided, found):
        return
    if lost:
        found.changes.append(_mended(found.book, entry, lost))
    elif entry.losses >= entry.attempts:  # the crash came after the lease that used up the last one
        why = f"lost {entry.losses} times, the last time while it was held"
        found.changes.append(_ended(found.book, entry, "fail", why, wall))


def _was_ending(inside: set[str]) -> bool:
    """Whether a live folder holds what only an ended one may."""
    return bool(inside & (_DELIVERED | {layout.VERDICT})) or any(map(_LATE.fullmatch, inside))


def _read_leases(
    files, entry: Entry, inside: set[str], found: Recovered, wall: float
) -> Lease | None:
    """The attempt number follows from the leases; the lease that must be written, if one was lost."""
    attempts = sorted(int(match[1]) for match in map(_LEASE.fullmatch, inside) if match)
    last = None
    for attempt in attempts:
        path = layout.in_job(entry.state, entry.job, layout.lease_name(attempt))
        last = _lease(files, path)
        if last and last.ended:
            found.trusted[path] = records.make(last)
            entry.claims[attempt] = last.run
            entry.attempt = attempt + 1
            entry.losses += last.counts
    if entry.state is not State.RUNNING:
        return None  # a lease that has not ended: its start was undone, and the lock tells it again
    if attempts and not (last and last.ended):
        entry.attempt = attempts[-1]
    return _present_lease(files, entry, last, wall)


def _present_lease(files, entry: Entry, last: Lease | None, wall: float) -> Lease | None:
    """Take up the lease of a running job. A power failure may have kept the start without it.

    The lock then stands in for it: that one was on stable storage before the job ran. Without a lock
    nobody has run this attempt: either it was about to be taken back (`last` has ended), or it ends
    here.
    """
    if last and not last.ended:
        return _take_up(entry, last)
    lease = _by_lock(files, entry.job, entry.attempt)
    if lease:
        _take_up(entry, lease)
        return lease
    if last:
        entry.attempt, entry.losses = last.attempt, entry.losses - last.counts
        return _take_up(entry, last)
    why = "its claim was lost with the power"
    return Lease(entry.job, entry.attempt, "?", "?", "", wall, round(wall, 3), why, 0)


def _take_up(entry: Entry, lease: Lease) -> None:
    entry.claims[entry.attempt] = lease.run
    entry.run, entry.worker, entry.since = lease.run, lease.worker, lease.since


def _mended(book: Book, entry: Entry, lease: Lease) -> Change:
    """Write the lease that was lost; one that has ended takes the job back to the queue."""
    change = Change(entry.job, State.RUNNING, durable=True)
    change.writes[layout.lease_name(lease.attempt)] = records.make(lease)
    if lease.ended:
        change.target = State.QUEUED
        line = Line(entry.job, "return", "running", "queued", str(entry.attempt), lease.why)
        change.lines.append(line)
        book.move(entry, State.QUEUED, offered=False)
        entry.attempt += 1
    return change


def _lease(files, path: str) -> Lease | None:
    """None if it is torn or not there; what the disk does not give is not lost."""
    try:
        return records.parse(Lease, files.read(path, records.RECORD_LIMIT))
    except (DiskError, Denied):
        raise
    except SpoolError:
        return None


def _by_lock(files, job: str, attempt: int) -> Lease | None:
    """A lease made anew from the lock, which stands until the lease has ended."""
    try:
        path = layout.lock(job, attempt)
        since = round(files.stat(path).mtime, 3)
        worker = read_worker(files.read(path, records.RECORD_LIMIT))
    except (DiskError, Denied):
        raise
    except SpoolError:
        return None
    return Lease(job, attempt, worker.worker, worker.run, worker.host, since)


def _carry_out(
    files, entry: Entry, inside: set[str], decided: tuple[str, dict[str, bytes]], found: Recovered
) -> bool:
    """Finish the end of a job that was decided; whether there was one. Else what is there is undone."""
    folder = layout.job_folder(entry.state, entry.job)
    word, parts = decided
    found.trusted.update((f"{folder}/{name}", data) for name, data in parts.items())
    if not word:
        _undo(files, folder, entry.job, inside)
        return False
    end = State(word)
    note = "decided before a stop of the server"
    line = Line(entry.job, _VERBS[word], str(entry.state), word, str(entry.attempt), note)
    change = Change(entry.job, origin=entry.state, target=end, durable=True, lines=[line])
    if entry.state is State.RUNNING:
        change.removes.append(layout.lock(entry.job, entry.attempt))
    found.changes.append(change)
    found.book.move(entry, end)
    return True


def _undo(files, folder: str, job: str, inside: set[str]) -> None:
    # The verdict last: as long as it stands, the next start comes here too.
    for name in [*sorted(_DELIVERED & inside), *({layout.VERDICT} & inside)]:
        files.remove(f"{folder}/{name}")
    for late in filter(None, map(_LATE.fullmatch, sorted(inside))):
        files.move(f"{folder}/{late[0]}", layout.result(job, int(late[1])))


def _decision(files, folder: str, inside: set[str], roster_check) -> tuple[str, dict[str, bytes]]:
    """The word of a verdict if all that belongs to it is whole, and all that."""
    if layout.VERDICT not in inside:
        return "", {}
    try:
        text = files.read(f"{folder}/{layout.VERDICT}", 4096)
        parts = {name: files.read(f"{folder}/{name}", 1 << 40) for name in sorted(_DELIVERED & inside)}
    except FileAnswer:
        return "", {}
    verdict = _VERDICT.fullmatch(text)
    word = verdict[1].decode() if verdict else ""
    if not word or not _is_whole(word, parts, roster_check):
        return "", {}
    return word, {**parts, layout.VERDICT: text}


def _is_whole(word: str, parts: dict[str, bytes], roster_check) -> bool:
    """Whether a decision has all that belongs to it."""
    if layout.RECEIPT not in parts:
        return not parts and word != "done"
    try:
        roster_check(parts[layout.RECEIPT], parts.get(layout.RECEIPT_SIGNATURE, b""))
        check_parts(records.parse(Receipt, parts[layout.RECEIPT]), parts)
    except SpoolError:
        return False
    return True


def _cancel_followers(files, found: Recovered, wall: float) -> None:
    """Jobs whose predecessor has not ended well, where the crash came before they were told."""
    book, ended = found.book, {change.job: change.target for change in found.changes}
    lost = [
        (entry, other, end)
        for entry in book.entries.values()
        if entry.state is not State.RUNNING
        for other in entry.after
        if not book.is_open(other)
        and (end := ended.get(other) or _end_of(files, other)) not in (None, State.DONE)
    ]
    while lost:
        entry, other, end = lost.pop()
        if entry.job in book.entries:
            why = f"it was to run after {other}, which is {end}"
            found.changes.append(_ended(book, entry, "cancel", why, wall))
            followers = sorted(book.waiting_for(entry.job))
            lost += [(book.entries[job], entry.job, State.CANCELLED) for job in followers]


def _end_of(files, job: str) -> State | None:
    for state in ENDS:
        try:
            files.stat(layout.job_folder(state, job))
            return state
        except FileAnswer:
            continue
    return None


def _ended(book: Book, entry: Entry, verb: str, why: str, wall: float) -> Change:
    end = target(verb, entry.state)
    line = Line(entry.job, verb, str(entry.state), str(end), str(entry.attempt), why)
    change = Change(entry.job, entry.state, end, lines=[line], durable=True)
    change.writes[layout.VERDICT] = f"{stamp(wall)} {end}: {why}\n".encode()
    book.move(entry, end)
    return change


def _offer(book: Book) -> None:
    """Jobs that wait for nothing may run; the others are offered by `decide` when their time comes."""
    for job in sorted(book.waiting):
        entry = book.entries[job]
        if not entry.not_before and not any(map(book.is_open, entry.after)):
            book.offer(entry)


def _old_uses(files, book: Book) -> None:
    """Recent use of owners, as the server wrote it before it stopped."""
    try:
        view = queuefile.parse(files.read(layout.QUEUE, queuefile.LIMIT))
    except SpoolError:
        return
    for owner, numbers in view.owners.items():
        use = book.use_of(owner)
        use.seconds, use.at = numbers.get("use", 0.0), view.written
