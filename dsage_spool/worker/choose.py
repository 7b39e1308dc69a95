"""Which jobs to claim, and how many ahead. Pure."""

from __future__ import annotations

import math
from typing import Iterable

from ..queuefile import Next
from .match import missing

AHEAD_LIMIT = 64  # claims beyond the slots; as many requests as are kept in flight
SHORT_JOB = 0.05  # seconds
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


def choose(
    rows: Iterable[Next], offers: frozenset[str], room: int, held: set[tuple[str, int]]
) -> list[tuple[str, int]]:
    """The first `room` attempts in queue order that this worker can run and does not have."""
    chosen: list[tuple[str, int]] = []
    for row in rows:
        if len(chosen) >= room:
            break
        if (row.job, row.attempt) not in held and not missing(row.needs, offers):
            chosen.append((row.job, row.attempt))
    return chosen
