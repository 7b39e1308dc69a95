"""How far a worker goes before it stops by itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """None means no end."""

    max_jobs: int | None = None
    until: float | None = None  # boot time after which nothing more is claimed
    once: bool = False  # end when there is nothing left to do

    def room(self, wanted: int, claimed: int, now: float) -> int:
        """How many of the `wanted` claims it may still make, after `claimed` of them."""
        if self.until is not None and now >= self.until:
            return 0
        return wanted if self.max_jobs is None else min(wanted, self.max_jobs - claimed)

    def reached(self, claimed: int, now: float) -> bool:
        return self.room(1, claimed, now) <= 0
