"""Which jobs to claim, and how many ahead. Pure."""

from __future__ import annotations

import math
from typing import Iterable

from ..queuefile import Next
from .match import missing

AHEAD_LIMIT = 64  # claims beyond the slots; as many requests as are kept in flight
SHORT_JOB = 0.05  # seconds
PATIENCE = 60.0  # seconds
MEASURED = 4  # jobs that must have run before their length is believed


class Appetite:
    """How many claims a worker should have in hand.

    As many as it has slots; more only where jobs are shorter than the time it takes to claim, fetch
    and deliver, and then only as many as keep the slots busy meanwhile. So a worker never hoards
    more than about two such cycles of work.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._ran = 0
        self._mean = 0.0  # seconds a job takes, lately
        self._cycle = 0.0  # seconds a turn with the spool takes, lately

    def ran(self, seconds: float) -> None:
        self._ran += 1
        # A longer job counts at once, so that one long job ends the hoarding.
        weight = 0.5 if seconds > 4 * self._mean else 0.1
        self._mean = seconds if self._ran == 1 else (1 - weight) * self._mean + weight * seconds

    def cycle(self, seconds: float) -> None:
        """A turn with the spool took so long; 0 for one in which nothing was claimed."""
        if not seconds:
            return
        self._cycle = seconds if not self._cycle else 0.7 * self._cycle + 0.3 * seconds

    @property
    def hurried(self) -> bool:
        """Whether jobs are so short that dealing with the spool one by one costs more than they do."""
        return self._ran >= MEASURED and self._mean < SHORT_JOB

    def wanted(self) -> int:
        if self._ran < MEASURED:
            return self._slots
        ahead = self._slots * 2 * self._cycle / max(self._mean, 1e-4)
        return self._slots + min(AHEAD_LIMIT, math.floor(ahead))


Key = tuple[str, int]  # job, attempt


class Chooser:
    """The first attempts in queue order that this worker can run.

    A job that has lost a worker before may be what killed it, and then its neighbours died with it:
    from its second attempt on it is taken alone. So an innocent neighbour is lost once at most. A
    worker that is never idle empties itself for such a job after `PATIENCE` seconds.
    """

    def __init__(self, offers: frozenset[str]) -> None:
        self._offers = offers
        self._waiting: dict[Key, float] = {}  # second attempts, and when they were first seen

    def choose(
        self, rows: Iterable[Next], room: int, tried: set[Key], held: set[Key], now: float
    ) -> list[Key]:
        """At most `room` claims to make; `tried` are not worth another try, `held` are in hand."""
        if any(attempt > 1 for _, attempt in held):
            return []
        chosen: list[Key] = []
        mine = [row for row in rows if self._fits(row, tried)]
        again = {(row.job, row.attempt) for row in mine if row.attempt > 1}
        self._waiting = {key: self._waiting.get(key, now) for key in again}
        for row in mine:
            key = (row.job, row.attempt)
            if len(chosen) >= room:
                break
            if row.attempt == 1:
                chosen.append(key)
            elif not held and not chosen:
                return [key]
            elif now - self._waiting[key] > PATIENCE:
                break
        return chosen

    def _fits(self, row: Next, tried: set[Key]) -> bool:
        return (row.job, row.attempt) not in tried and not missing(row.needs, self._offers)
