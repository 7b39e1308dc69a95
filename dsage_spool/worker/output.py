"""What running jobs print, sent to the spool while they run, so that `log -f` can follow."""

from __future__ import annotations

from typing import Iterable

from .. import layout
from ..children import Children
from ..clock import Clock
from ..errors import FileAnswer
from ..files import Files

EVERY = 1.0  # seconds
AT_ONCE = 256 << 10  # bytes of one job in one turn


class LiveOutput:
    def __init__(self, children: Children, clock: Clock) -> None:
        self._children = children
        self._clock = clock
        self._sent: dict[tuple[str, int], int] = {}
        self._since: dict[tuple[str, int], float] = {}
        self._last = float("-inf")

    def send(self, files: Files, keys: Iterable[tuple[str, int]]) -> None:
        """Append what is new, for jobs that run longer than a moment."""
        now = self._clock.boottime()
        if now - self._last < EVERY:
            return
        self._last = now
        rows = [row for key in list(keys) if (row := self._new_text(key, now))]
        if rows:
            outcomes = files.many("append", [(layout.output(*key), text) for key, text in rows])
            for (key, text), outcome in zip(rows, outcomes):
                if outcome is None:
                    self._sent[key] = self._sent.get(key, 0) + len(text)
                elif not isinstance(outcome, FileAnswer):
                    raise outcome

    def _new_text(self, key: tuple[str, int], now: float) -> tuple[tuple[str, int], bytes] | None:
        if now - self._since.setdefault(key, now) < EVERY:
            return None
        text = self._children.output(*key, self._sent.get(key, 0), AT_ONCE)
        return (key, text) if text else None

    def forget(self, job: str, attempt: int) -> None:
        self._sent.pop((job, attempt), None)
        self._since.pop((job, attempt), None)
