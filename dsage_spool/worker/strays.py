"""Claims that the server counts as ours and that we do not have: found, and given back. And attempts
that have run here, as long as an old view of the queue may offer them again. Pure.

A claim may be made and forgotten: its answer was lost with the connection, or the job could not be
read. Our heartbeat would keep its lease alive for ever, so we compare what the server says runs here
with what does, and hand back what has been missing for a while.
"""

from __future__ import annotations

from typing import Iterable

from ..queuefile import Running

Key = tuple[str, int]


class Strays:
    def __init__(self, patience: float) -> None:
        self._patience = patience  # seconds; the server's view lags behind ours
        self._since: dict[Key, float] = {}

        self.ran: set[Key] = set()  # what came out of a slot, while the queue speaks of it

    def forget(self, spoken_of: set[Key]) -> None:
        """`spoken_of` is all that the queue offers or counts as running."""
        self.ran &= spoken_of

    def overdue(self, running: Iterable[Running], worker: str, mine: set[Key], now: float) -> list[Key]:
        """What has been said to run here, and has not, for longer than the patience."""
        said = {(row.job, row.attempt) for row in running if row.worker == worker}
        missing = said - mine
        self._since = {key: self._since.get(key, now) for key in missing}
        return sorted(key for key, since in self._since.items() if now - since > self._patience)
