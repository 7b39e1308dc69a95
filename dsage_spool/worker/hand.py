"""The claims a worker has in hand: what runs or waits in its slots, and what nobody wants any more."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Iterable, Iterator

from .. import layout, records
from ..children import Children, Task
from ..errors import BadFormat, Gone
from ..files import Files
from ..records import Lease
from ..spool.journal import Line

Key = tuple[str, int]  # job, attempt

# Verbs of the server after which a claim does not stand any more.
_TAKEN_BACK = {"expire", "return", "bury", "cancel", "hold", "settle", "fail"}


@dataclass
class Held:
    """A claim in hand."""

    envelope_sha256: str
    abandoned: bool = False  # the server has taken it back: nobody wants the result


def is_over(lease: bytes | None) -> bool:
    """Whether the server has ended that attempt already, and so its lock was free to be taken again.

    So it is when our view of the queue was old: we were frozen, or its host has lost power.
    """
    try:
        return lease is not None and records.parse(Lease, lease).ended > 0
    except BadFormat:
        return False  # torn by a power failure: a lease that has ended was flushed


class Hand:
    """Claims by job and attempt. What is abandoned stays here until its slot is done with it."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._held: dict[Key, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._held)

    def keys(self) -> set[Key]:
        return set(self._held)

    @property
    def wanted(self) -> bool:
        """Whether there is anything whose result somebody waits for."""
        return any(not held.abandoned for held in self._held.values())

    def take(self, key: Key, texts: dict[str, bytes], spool: str) -> None:
        """Hand a claimed job to the slots, with the bytes as they were read."""
        envelope = texts[layout.ENVELOPE]
        self._held[key] = Held(hashlib.sha256(envelope).hexdigest())
        self._children.start(
            Task(*key, envelope, texts[layout.SIGNATURE], texts[layout.PAYLOAD], spool)
        )

    def let_go(self, key: Key) -> Held | None:
        """A slot is done with it."""
        return self._held.pop(key, None)

    def abandon(self, key: Key) -> None:
        held = self._held[key]
        if not held.abandoned:
            held.abandoned = True
            self._children.stop(*key)

    def abandon_all(self) -> None:
        for key in self._held:
            self.abandon(key)

    def stop_all(self) -> None:
        """The worker ends: what comes of these is still told."""
        for key, held in self._held.items():
            if not held.abandoned:
                self._children.stop(*key)

    def heed(self, lines: Iterable[Line]) -> None:
        """Abandon what the server says it has taken back."""
        mine = dict(self._held)
        for line in lines:
            key = (line.job, int(line.attempt) if line.attempt.isdigit() else 0)
            if line.verb in _TAKEN_BACK and key in mine:
                self.abandon(key)

    def check_locks(self, files: Files) -> None:
        """Whether our claims still stand, by looking at the locks themselves."""
        keys = list(self._held)
        found = files.many("stat", [(layout.lock(*key),) for key in keys])
        for key, outcome in zip(keys, found):
            if isinstance(outcome, Gone):
                self.abandon(key)
