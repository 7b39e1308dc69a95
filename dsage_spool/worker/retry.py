"""When to try again after a failure to reach the spool. Pure but for the chance handed in."""

from __future__ import annotations

from typing import Callable

FIRST, LAST = 1.0, 60.0  # seconds between tries


class Retry:
    """Pauses double from try to try, with some chance in them: many workers lose one host at once."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._pause = FIRST
        self.at = float("-inf")  # boot time of the next try

    def failed(self, now: float) -> float:
        """Note a failure; seconds until the next try."""
        jitter = 0.75 + self._random(1)[0] / 512
        pause = self._pause * jitter
        self.at = now + pause
        self._pause = min(2 * self._pause, LAST)
        return pause

    def succeeded(self) -> None:
        self._pause = FIRST
