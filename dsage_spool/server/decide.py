"""What the server does about what it has seen: pure, no files and no clock.

`Decider.decide(seen)` takes the observations of one pass, brings the book up to date and answers one
`Change` for each job that is touched; several moves of one job in one pass become one rename. If
the changes cannot be carried out, the book is thrown away and made anew from the folders.
"""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import Callable, Iterable, Mapping

from .. import layout, names, records
from ..clock import stamp
from ..records import Lease, Receipt
from ..spool.journal import Line
from ..spool.moving import Change
from ..states import TERMINAL, State, target
from ..text import clean
from .book import Book, Entry
from .seen import ClaimSeen, Delivered, JobDropped, Requested, RunLost, Seen, Unacceptable

NOT_AFTER_TOLERANCE = 600  # seconds; people's clocks differ
MOST_WAITING = 10_000  # jobs put off for others that are remembered; they are only looked for again


class Decider:
    """`fresh_name(wall)` makes names for what is refused under no name of its own."""

    def __init__(self, book: Book, fresh_name: Callable[[float], str]) -> None:
        self.book = book
        self._fresh_name = fresh_name
        self._dated_at = float("-inf")
        self._changes: dict[str, Change] = {}
        self._ended: list[tuple[str, State]] = []  # jobs whose followers have not been told yet
        self._waits: dict[str, frozenset[str]] = {}  # put off until these have come in
        self._doomed: list[tuple[str, str, State]] = []  # accepted, to be cancelled by the next pass
        self._wall = 0.0
        self.notes: list[str] = []  # for the log

    def decide(self, seen: Iterable[Seen], wall: float) -> list[Change]:
        self._changes, self._wall, self.notes = {}, wall, []
        doomed, self._doomed = self._doomed, []
        for job, other, end in doomed:
            if job in self.book.entries:
                self._predecessor_failed(self.book.entries[job], other, end)
        for observation in seen:
            if observation.about not in self.book.unreadable:  # else it waits, as its job does
                _RULES[type(observation)](self, observation)
                self._tell_followers()
        self._dated()
        self._tell_followers()
        return list(self._changes.values())

    # -- the changes -------------------------------------------------------------------------

    def _change(self, entry: Entry) -> Change:
        """The change of this pass for a job; its origin is where the job is on disk."""
        if entry.job not in self._changes:
            self._changes[entry.job] = Change(entry.job, origin=entry.state)
        return self._changes[entry.job]

    def _move(self, entry: Entry, verb: str, note: str = "", durable: bool = True) -> Change:
        change = self._change(entry)
        origin, end = entry.state, target(verb, entry.state)
        change.target = end
        change.durable = change.durable or durable
        change.lines.append(Line(entry.job, verb, str(origin), str(end), str(entry.attempt), note))
        self.book.move(entry, end, offered=self._may_run(entry))
        return change

    def _end(
        self, entry: Entry, verb: str, why: str, parts: Mapping[str, bytes] = MappingProxyType({})
    ) -> Change:
        """The last move of a job: its verdict is written, and those that wait for it are told.

        The verdict comes last: after a crash, `recover` takes what stands beside it for whole.
        """
        change = self._move(entry, verb, why)
        change.writes.update(parts)
        change.writes[layout.VERDICT] = self._verdict(str(change.target), why)
        self._ended.append((entry.job, change.target))
        return change

    def _verdict(self, word: str, why: str) -> bytes:
        return f"{stamp(self._wall)} {word}: {clean(why)}\n".encode()

    def _loose(self, path: str) -> None:
        """A change that only removes a served or senseless file."""
        self._changes.setdefault(path, Change("-")).removes.append(path)

    def _end_claim(self, entry: Entry) -> Change:
        """The present attempt is over: its lock and its live output have served."""
        change = self._change(entry)
        change.removes += [
            layout.lock(entry.job, entry.attempt),
            layout.output(entry.job, entry.attempt),
        ]
        self.book.locks.discard(names.claim_name(entry.job, entry.attempt, "lock"))
        self.book.use_of(entry.owner).charge(max(0.0, self._wall - entry.since), self._wall)
        return change

    # -- jobs and requests -------------------------------------------------------------------

    def _job_dropped(self, seen: JobDropped) -> None:
        job = seen.envelope.job
        digest = hashlib.sha256(seen.parts[layout.ENVELOPE]).digest()
        entry = self.book.entries.get(job)
        if entry or seen.known:
            same = digest == (entry.digest if entry else seen.known_digest)
            reason = "a job of that name is here already, and it is another one"
            return self._loose(seen.path) if same else self._refuse(seen.path, reason)
        if self._comes_too_early(seen) or any(map(self._ends_now, (job, *seen.envelope.after))):
            return None  # the next pass knows more
        reason = self._why_not(seen)
        if reason:
            return self._refuse(seen.path, reason, job)
        self._accept(seen, digest)

    def _comes_too_early(self, seen: JobDropped) -> bool:
        """A job that it names still lies in incoming/; not where the two would wait for each other."""
        job = seen.envelope.job
        coming = frozenset(other for other in seen.coming if other not in self.book.entries)
        self._waits.pop(job, None)
        if not coming or any(self._waits_for(other, job) for other in coming):
            return False
        if len(self._waits) >= MOST_WAITING:
            self._waits.clear()
        self._waits[job] = coming
        return True

    def _waits_for(self, job: str, other: str) -> bool:
        """Whether a job was put off until `other` has come in, directly or through others."""
        fresh, known = {job}, set()
        while fresh:
            known |= fresh
            fresh = set().union(*(self._waits.get(one, ()) for one in fresh)) - known
        return other in known

    def _is_new(self, job: str) -> bool:
        """It is accepted in this very pass, and may end in the next one at the earliest.

        An end in the same rename could be read before it is on stable storage, and then be another.
        """
        change = self._changes.get(job)
        return change is not None and change.origin is None

    def _ends_now(self, job: str) -> bool:
        """It ends in this very pass: the book has forgotten it, and it is in no terminal folder yet."""
        change = self._changes.get(job)
        return change is not None and change.target in TERMINAL

    def _why_not(self, seen: JobDropped) -> str:
        envelope = seen.envelope
        if envelope.not_after and self._wall > envelope.not_after + NOT_AFTER_TOLERANCE:
            return f"too late: not-after was {stamp(envelope.not_after)}"
        for other in envelope.after:
            if not self.book.is_open(other) and seen.fates.get(other) is None:
                return f"after: no job {other} in this spool"
        return ""

    def _accept(self, seen: JobDropped, digest: bytes) -> None:
        entry = Entry(seen.envelope, digest)
        change = Change(entry.job, target=State.QUEUED, durable=True)
        change.writes = {name: seen.parts[name] for name in sorted(layout.JOB_PARTS)}
        change.served.append(seen.path)
        change.lines.append(
            Line(entry.job, "accept", "incoming", "queued", "1", f"{entry.owner} {entry.title}")
        )
        self._changes[entry.job] = change
        self.book.add(entry, offered=self._may_run(entry) and not self._lost_predecessor(seen))
        if lost := self._lost_predecessor(seen):
            self._predecessor_failed(entry, lost, seen.fates[lost])

    def _lost_predecessor(self, seen: JobDropped) -> str:
        ended = (job for job in seen.envelope.after if seen.fates.get(job) not in (None, State.DONE))
        return next(ended, "")

    def _refuse(self, path: str, reason: str, job: str = "") -> None:
        """Keep what cannot be accepted, with the reason; the name of a real job is not spoiled."""
        folder = job or self._fresh_name(self._wall)
        change = Change(folder, target=State.REJECTED, folder=folder, durable=True)
        change.writes[layout.VERDICT] = self._verdict("rejected", f"{reason} (came as {path})")
        change.takes[path] = layout.DROPPED
        change.lines.append(Line(folder, "reject", "incoming", "rejected", "-", reason))
        self._changes[f"refused {path}"] = change
        self.book.counts["rejected"] += 1

    def _unacceptable(self, seen: Unacceptable) -> None:
        spoils = seen.job in self.book.entries or self._ends_now(seen.job)
        self._refuse(seen.path, seen.reason, "" if spoils else seen.job)

    def _requested(self, seen: Requested) -> None:
        request = seen.request
        entry = self.book.entries.get(request.job)
        if entry is None:
            if seen.dropped:
                return None  # the job is still on its way in: the next pass knows more
            if seen.known is None and not self._ends_now(request.job):
                return self._refuse(seen.path, f"{request.verb}: no job {request.job} in this spool")
            return self._loose(seen.path)  # it has ended: there is nothing left to ask for
        if self._is_new(request.job):
            return None
        if entry.owner != request.submitter:
            return self._refuse(
                seen.path, f"{request.verb}: the job is {entry.owner}'s, not {request.submitter}'s"
            )
        self._change(entry).served.append(seen.path)
        if request.verb == "cancel":
            self._cancel(entry, f"by {request.submitter}")
        elif request.verb == "hold" and entry.state is State.QUEUED:
            self._move(entry, "hold", f"by {request.submitter}")
        elif request.verb == "release" and entry.state is State.HELD:
            self._move(entry, "release", f"by {request.submitter}")
        else:
            self.notes.append(f"{request.job}: {request.verb} asked for, but it is {entry.state}")

    def _cancel(self, entry: Entry, why: str) -> None:
        if entry.state is State.RUNNING:
            self._end_claim(entry)
        self._end(entry, "cancel", why)

    # -- claims, leases, results -------------------------------------------------------------

    def _claim_seen(self, seen: ClaimSeen) -> None:
        entry = self.book.entries.get(seen.job)
        if entry and entry.claims.get(seen.attempt) == seen.worker.run:
            if entry.state is State.RUNNING and entry.attempt == seen.attempt:
                return  # served already
        fits = entry and entry.state is State.QUEUED and entry.attempt == seen.attempt
        fits = fits and self._may_run(entry)
        if not fits or not seen.enrolled:
            if not seen.enrolled:
                self.notes.append(f"claim of {seen.worker.worker} removed: it is not in the roster")
            if seen.enrolled and entry and entry.state is State.HELD:
                self._skip_attempt(entry, seen)
            return self._loose(seen.path)
        self._start(entry, seen)

    def _skip_attempt(self, entry: Entry, seen: ClaimSeen) -> None:
        """A job was held while a worker claimed it, and may run a moment: that number is used up."""
        if seen.attempt == entry.attempt:
            worker = seen.worker
            lease = Lease(
                entry.job, entry.attempt, worker.worker, worker.run, worker.host,
                round(self._wall, 3), round(self._wall, 3), "held", 1,
            )  # fmt: skip
            change = self._change(entry)
            change.writes[layout.lease_name(entry.attempt)] = records.make(lease)
            change.durable = True
            entry.claims[entry.attempt] = worker.run
            entry.losses += 1
            if entry.losses >= entry.attempts:
                self._end(entry, "fail", f"held while {worker.worker} took its last attempt")
                return
            entry.attempt += 1
            entry.line = ""

    def _start(self, entry: Entry, seen: ClaimSeen) -> None:
        worker = seen.worker
        change = self._change(entry)
        entry.run, entry.worker, entry.since = worker.run, worker.worker, round(self._wall, 3)
        entry.claims[seen.attempt] = worker.run
        self.book.locks.add(names.claim_name(entry.job, entry.attempt, "lock"))
        lease = Lease(entry.job, entry.attempt, worker.worker, worker.run, worker.host, entry.since)
        change.writes[layout.lease_name(entry.attempt)] = records.make(lease)
        # Not durable: after a power failure the lock, which is, tells it again.
        self._move(entry, "start", worker.worker, durable=False)

    def _delivered(self, seen: Delivered) -> None:
        receipt = seen.receipt
        entry = self.book.entries.get(receipt.job)
        if entry is None:
            return self._late(seen)
        if self._is_new(entry.job):
            return None
        reason = self._why_not_settle(entry, seen)
        if reason:
            return self._refuse(seen.path, reason)
        if receipt.outcome == "returned":
            return self._returned(entry, seen)
        self._settle(entry, seen)

    def _why_not_settle(self, entry: Entry, seen: Delivered) -> str:
        receipt = seen.receipt
        if receipt.envelope_sha256 != entry.digest.hex():
            return "the receipt is for other words than those of the job's envelope"
        if receipt.attempt > entry.attempt:
            return f"attempt {receipt.attempt} was never given out"
        if entry.claims.get(receipt.attempt, receipt.run) != receipt.run:
            return f"attempt {receipt.attempt} was claimed by another worker than {receipt.worker}"
        return ""

    def _settle(self, entry: Entry, seen: Delivered) -> None:
        receipt = seen.receipt
        if entry.state is State.RUNNING:
            self._end_claim(entry)
        else:
            self.book.use_of(entry.owner).charge(receipt.wall_seconds, self._wall)
        verb = "settle" if receipt.outcome == "ok" else "fail"
        change = self._end(entry, verb, summary(receipt, entry.attempts), seen.parts)
        change.served.append(seen.path)

    def _returned(self, entry: Entry, seen: Delivered) -> None:
        receipt = seen.receipt
        current = entry.state is State.RUNNING and entry.attempt == receipt.attempt
        self._change(entry).served.append(seen.path)
        if current:
            counts = receipt.wall_seconds > 0
            self._give_back(entry, "return", receipt.error or "the worker gave it back", counts)

    def _late(self, seen: Delivered) -> None:
        """A result for a job that has ended: kept beside the first one, never used."""
        job, known = seen.receipt.job, seen.known
        change = self._changes.get(job)
        if change is None and known is None:
            return self._refuse(seen.path, f"no job {job} in this spool")
        if seen.receipt.outcome == "returned" or known is State.REJECTED or seen.served:
            return self._loose(seen.path)
        change = self._changes.setdefault(job, Change(job, origin=known))
        change.takes[seen.path] = layout.late_name(seen.receipt.attempt)

    def _run_lost(self, seen: RunLost) -> None:
        for job in sorted(self.book.by_run.get(seen.run, set())):
            entry = self.book.entries[job]
            self._give_back(entry, "expire", f"{entry.worker} was not heard for a lease", True)

    def _give_back(self, entry: Entry, verb: str, why: str, counts: bool) -> None:
        """Requeue with the next attempt number, or bury a job that is out of attempts.

        The number follows from the ended leases in the folder, so the rename that requeues bumps it.
        """
        lease = Lease(
            entry.job, entry.attempt, entry.worker or "?", entry.run, "", entry.since,
            round(self._wall, 3), why, int(counts),
        )  # fmt: skip
        change = self._end_claim(entry)
        change.writes[layout.lease_name(entry.attempt)] = records.make(lease)
        entry.losses += counts
        if entry.losses >= entry.attempts:
            self._end(entry, "bury", f"lost {entry.losses} times, the last time by {entry.worker}: {why}")
            return
        self._move(entry, verb, why)
        entry.attempt += 1

    # -- dates and dependencies --------------------------------------------------------------

    def _tell_followers(self) -> None:
        """Jobs that wait for one that has ended may run, or never will; then so for those."""
        while self._ended:
            self._after(*self._ended.pop())

    def _after(self, job: str, end: State) -> None:
        for waiting in sorted(self.book.waiting_for(job)):
            entry = self.book.entries[waiting]
            if end is not State.DONE:
                self._predecessor_failed(entry, job, end)
            elif self._may_run(entry):
                self.book.offer(entry)

    def _predecessor_failed(self, entry: Entry, other: str, end: State) -> None:
        if self._is_new(entry.job):
            self._doomed.append((entry.job, other, end))
            return
        self._end(entry, "cancel", f"it was to run after {other}, which is {end}")

    def _may_run(self, entry: Entry) -> bool:
        return entry.not_before <= self._wall and not any(map(self.book.is_open, entry.after))

    def _dated(self) -> None:
        """Jobs whose time has come, or is over; looked at once a second."""
        if 0 <= self._wall - self._dated_at < 1:
            return
        self._dated_at = self._wall
        for job in sorted(self.book.waiting):
            entry = self.book.entries[job]
            if self._may_run(entry) and not self._is_new(job):
                self.book.offer(entry)
        for job in sorted(self.book.dated):
            entry = self.book.entries[job]
            if self._wall > entry.not_after and not self._is_new(job):
                self._end(entry, "fail", f"still waiting when not-after came, {stamp(entry.not_after)}")


def summary(receipt: Receipt, attempts: int) -> str:
    """How an attempt ended, in one line."""
    what = receipt.value if receipt.outcome == "ok" else f"{receipt.outcome}: {receipt.error}"
    where = f"attempt {receipt.attempt} of {attempts} by {receipt.worker}"
    return f"{clean(what, 200)} ({where}, {receipt.wall_seconds:.1f} s)"


_RULES = {
    JobDropped: Decider._job_dropped,
    Requested: Decider._requested,
    Unacceptable: Decider._unacceptable,
    ClaimSeen: Decider._claim_seen,
    Delivered: Decider._delivered,
    RunLost: Decider._run_lost,
}
