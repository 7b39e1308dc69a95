"""What the server knows of the jobs that have not ended: one entry each, and the order to run them.

Pure: no files, no clock. The folders are the truth; the book is made from them at start, and again
after any failure. Order = priority, then the owner with the least recent use, then submission.
What it holds is bounded: what it has no room for is `PutOff`, and waits in incoming/.
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
# In plain jobs, of which each takes the server about 0.6 KB of memory.
FULL = 200_000  # from which on the book is full,
REOPENS = 190_000  # below which it no longer is,
AT_MOST = 225_000  # and what those may fill it up to who have fewer than
SHARE = 1_000  # live jobs of their own: a flood of one shuts nobody out
NEEDS_OF_A_JOB = 400  # letters of needs that take about as much memory as a plain job


class Entry:
    """One job that has not ended."""

    __slots__ = (
        "job", "state", "attempt", "losses", "owner", "priority", "needs", "attempts", "after",
        "not_before", "not_after", "title", "digest", "claims", "run", "worker", "since", "line",
        "weight",
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
        self.weight = 1 + len(self.after) + sum(map(len, self.needs)) // NEEDS_OF_A_JOB

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


class PutOff:
    """Names that were read and wait for room in the book, so that nobody reads them again before.

    A Bloom filter, of a size that does not grow: holding a million, it takes ten of a million others
    for known ones. Those too are read as soon as there is room.
    """

    BYTES, CAPACITY = 1 << 23, 4_000_000  # then it begins anew, and all are read once more

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, name: str) -> None:
        if not self._bits or self._count >= self.CAPACITY:
            self._bits, self._count = bytearray(self.BYTES), 0
        self._count += 1
        for place, bit in self._places(name):
            self._bits[place] |= bit

    def __contains__(self, name: str) -> bool:
        bits = self._bits
        if not bits:
            return False
        for place, bit in self._places(name):
            if not bits[place] & bit:
                return False
        return True

    def _places(self, name: str) -> Iterator[tuple[int, int]]:
        """Of numbers that nobody outside can foresee, since `hash` is salted."""
        word = hash(name) & 0xFFFF_FFFF_FFFF_FFFF
        other = hash((name, word))
        for number in (word >> 26, word, other, other >> 26):
            yield (number >> 3) % self.BYTES, 1 << (number & 7)


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
        self.full = False
        self._load = 0
        self._load_of: Counter[str] = Counter()
        self._owners: dict[str, str] = {}

    def add(self, entry: Entry, offered: bool = True) -> None:
        entry.needs = self._needs.setdefault(entry.needs, entry.needs)
        entry.owner = self._owners.setdefault(entry.owner, entry.owner)
        self.entries[entry.job] = entry
        self._weigh(entry, entry.weight)
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
            if self.entries.pop(entry.job, None):
                self._weigh(entry, -entry.weight)
            self.counts[str(target)] += 1

    def _weigh(self, entry: Entry, weight: int) -> None:
        self._load += weight
        self._load_of[entry.owner] += weight
        self.full = self._load >= (REOPENS if self.full else FULL)

    def is_half_empty(self) -> bool:
        return self._load < FULL // 2

    def has_room(self, owner: str) -> bool:
        """Whether one more job of this owner may be admitted."""
        return not self.full or (self._load < AT_MOST and self._load_of[owner] < SHARE)

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
            jobs = self.by_run.get(entry.run, set())
            jobs.discard(entry.job)
            if not jobs:
                self.by_run.pop(entry.run, None)
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
