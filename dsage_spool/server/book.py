"""What the server knows of the jobs that have not ended: one entry each, and the order to run them.

Pure: no files, no clock. The folders are the truth; the book is made from them at start, and again
after any failure. Order = priority, then the owner with the least recent use, then submission.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from typing import Iterator

from ..queuefile import LINES_PER_NEEDS, Next, next_line
from ..records import Envelope
from ..states import State

HALF_LIFE = 86_400.0  # seconds in which recent use counts half


class Entry:
    """One job that has not ended."""

    __slots__ = (
        "job", "state", "attempt", "losses", "owner", "priority", "needs", "attempts", "after",
        "not_before", "not_after", "title", "digest", "claims", "run", "worker", "since", "line",
    )  # fmt: skip

    def __init__(self, envelope: Envelope, digest: bytes, state: State = State.QUEUED) -> None:
        self.job = envelope.job
        self.state = state
        self.attempt = 1  # the attempt that is running, or that runs next
        self.losses = 0  # attempts that are used up
        self.owner = envelope.submitter
        self.priority = envelope.priority
        self.needs = envelope.needs
        self.attempts = envelope.attempts
        self.after = envelope.after
        self.not_before = envelope.not_before
        self.not_after = envelope.not_after
        self.title = envelope.title[:60]
        self.digest = digest  # sha256 of the envelope
        self.claims: dict[int, str] = {}  # attempt: run, as far as a lease was given
        self.run = self.worker = ""
        self.since = 0.0
        self.line = ""

    def next_line(self) -> str:
        if not self.line:
            self.line = next_line(
                Next(self.job, self.attempt, self.priority, self.owner, self.needs, self.title)
            )
        return self.line


class Use:
    """Recent use of one owner: slot seconds that fade with a half-life of a day."""

    __slots__ = ("seconds", "at", "running", "since_sum", "mean")

    def __init__(self, seconds: float = 0.0, at: float = 0.0) -> None:
        self.seconds = seconds
        self.at = at
        self.running = 0
        self.since_sum = 0.0
        self.mean = 0.0  # seconds that this owner's jobs take, by the latest ones

    def now(self, wall: float) -> float:
        """Faded use, and what the owner's jobs have used since they started."""
        faded = self.seconds * 0.5 ** (max(0.0, wall - self.at) / HALF_LIFE)
        return faded + max(0.0, self.running * wall - self.since_sum)

    def charge(self, seconds: float, wall: float) -> None:
        faded = self.seconds * 0.5 ** (max(0.0, wall - self.at) / HALF_LIFE)
        self.seconds, self.at = faded + seconds, wall
        self.mean = seconds if not self.mean else 0.8 * self.mean + 0.2 * seconds


Bucket = tuple[int, str, tuple[str, ...]]  # -priority, owner, needs


class Book:
    """Entries by job, counts by state, and the queue in order."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.counts: Counter[str] = Counter()
        self.uses: dict[str, Use] = {}
        self.queued_by: Counter[str] = Counter()
        self._ready: dict[Bucket, list[str]] = {}
        self._needs: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.by_run: dict[str, set[str]] = {}
        self.waiting: set[str] = set()  # queued, and not to be offered yet
        self.dated: set[str] = set()  # queued, with a last date
        self.locks: set[str] = set()  # names of the locks that running jobs hold
        self.unreadable: dict[str, State] = {}  # live jobs that the disk would not give us
        self._followers: dict[str, set[str]] = {}

    def add(self, entry: Entry, offered: bool = True) -> None:
        entry.needs = self._needs.setdefault(entry.needs, entry.needs)
        self.entries[entry.job] = entry
        for other in entry.after:
            self._followers.setdefault(other, set()).add(entry.job)
        self._enter(entry, offered)

    def is_open(self, job: str) -> bool:
        """Whether it has not ended, as far as we know."""
        return job in self.entries or job in self.unreadable

    def waiting_for(self, job: str) -> set[str]:
        """Jobs that were to run after this one and have not ended; asked once, when it ends."""
        return self._followers.pop(job, set()) & self.entries.keys()

    def move(self, entry: Entry, target: State, offered: bool = True) -> None:
        """Note that a job has changed its state; an ended one leaves the book."""
        self._leave(entry)
        entry.state = target
        entry.line = ""
        if target in (State.QUEUED, State.HELD, State.RUNNING):
            self._enter(entry, offered)
        else:
            self.entries.pop(entry.job, None)
            self.counts[str(target)] += 1

    def offer(self, entry: Entry) -> None:
        """A queued job that had to wait for a date or for another job may run now."""
        if entry.job in self.waiting:
            self.waiting.discard(entry.job)
            insort(self._ready.setdefault(self._bucket(entry), []), entry.job)

    def use_of(self, owner: str) -> Use:
        return self.uses.setdefault(owner, Use())

    def _bucket(self, entry: Entry) -> Bucket:
        return (-entry.priority, entry.owner, entry.needs)

    def _enter(self, entry: Entry, offered: bool) -> None:
        self.counts[str(entry.state)] += 1
        if entry.state is State.QUEUED:
            self.queued_by[entry.owner] += 1
            if entry.not_after:
                self.dated.add(entry.job)
            if offered:
                insort(self._ready.setdefault(self._bucket(entry), []), entry.job)
            else:
                self.waiting.add(entry.job)
        elif entry.state is State.RUNNING:
            self.by_run.setdefault(entry.run, set()).add(entry.job)
            use = self.use_of(entry.owner)
            use.running += 1
            use.since_sum += entry.since

    def _leave(self, entry: Entry) -> None:
        self.counts[str(entry.state)] -= 1
        if entry.state is State.QUEUED:
            self.queued_by[entry.owner] -= 1
            self.waiting.discard(entry.job)
            self.dated.discard(entry.job)
            self._take_from_bucket(entry)
        elif entry.state is State.RUNNING:
            self.by_run.get(entry.run, set()).discard(entry.job)
            use = self.use_of(entry.owner)
            use.running -= 1
            use.since_sum -= entry.since

    def _take_from_bucket(self, entry: Entry) -> None:
        bucket = self._ready.get(self._bucket(entry), [])
        place = bisect_left(bucket, entry.job)
        if place < len(bucket) and bucket[place] == entry.job:
            del bucket[place]
            if not bucket:
                del self._ready[self._bucket(entry)]

    def order(self, wall: float, per_needs: int = LINES_PER_NEEDS) -> Iterator[Entry]:
        """Queued jobs in the order to run them, at most `per_needs` for each set of needs."""
        left: Counter[tuple[str, ...]] = Counter()
        by_priority: dict[int, dict[str, list[list[str]]]] = {}
        for (rank, owner, _), jobs in self._ready.items():
            by_priority.setdefault(rank, {}).setdefault(owner, []).append(jobs[:per_needs])
            left[self.entries[jobs[0]].needs] = per_needs
        for rank in sorted(by_priority):
            yield from self._shared_out(by_priority[rank], wall, left)

    def _shared_out(self, owners: dict, wall: float, left: Counter) -> Iterator[Entry]:
        """Owners take turns: each job taken counts as that owner's mean job, until it really ends."""
        turns = []
        for owner, buckets in owners.items():
            jobs = heapq.merge(*(iter(bucket) for bucket in buckets))
            first = next(jobs)
            turns.append((self.use_of(owner).now(wall), first, owner, jobs))
        heapq.heapify(turns)
        while turns:
            use, job, owner, jobs = heapq.heappop(turns)
            entry = self.entries[job]
            if left[entry.needs] > 0:
                left[entry.needs] -= 1
                yield entry
            following = self._next_wanted(jobs, left)
            if following:
                cost = max(self.use_of(owner).mean, 1e-3)
                heapq.heappush(turns, (use + cost, following, owner, jobs))

    def _next_wanted(self, jobs: Iterator[str], left: Counter) -> str:
        for job in jobs:
            if left[self.entries[job].needs] > 0:
                return job
        return ""
