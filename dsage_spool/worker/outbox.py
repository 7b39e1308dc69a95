"""Finished results on their way: kept on the worker's own disk until the spool has them.

A result is written here before it is sent and removed after, so it survives a spool that is away and
a kill of the worker; the next start of the worker delivers it.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from pathlib import Path


Key = tuple[str, int]  # job, attempt

_HEAD = re.compile(rb"([^ \n]{1,64}) ([0-9]{1,6}) ([0-9]{1,15})\n")


class Outbox:
    """Deliveries by job and attempt, in a folder that outlives the worker.

    Deliveries that are finished together share a file, each after a line `job attempt size`; the
    file goes when all of them are gone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._waiting: dict[Key, bytes] = {}
        self._file_of: dict[Key, Path] = {}
        self._left_in: Counter[Path] = Counter()
        self._number = 0
        for path in sorted(folder.glob("*.results")):
            self._note(path, _split(path.read_bytes()))

    def __len__(self) -> int:
        return len(self._waiting)

    def keys(self) -> set[Key]:
        return set(self._waiting)

    def add(self, deliveries: dict[Key, bytes]) -> None:
        """Keep deliveries. Written in one step: a kill in between leaves nothing half."""
        if not deliveries:
            return
        path = self._new_path()
        partial = path.with_suffix(".partial")
        lines = ((b"%s %d %d\n" % (job.encode(), attempt, len(data)), data)
                 for (job, attempt), data in deliveries.items())  # fmt: skip
        partial.write_bytes(b"".join(itertools.chain.from_iterable(lines)))
        os.replace(partial, path)
        self._note(path, deliveries)

    def _new_path(self) -> Path:
        while True:
            self._number += 1
            path = self._folder / f"{self._number:09d}.results"
            if not path.exists():
                return path

    def _note(self, path: Path, deliveries: dict[Key, bytes]) -> None:
        self._waiting.update(deliveries)
        self._file_of.update(dict.fromkeys(deliveries, path))
        self._left_in[path] += len(deliveries)

    def some(self, byte_limit: int = 16 << 20) -> list[tuple[str, int, bytes]]:
        """The oldest deliveries, up to about `byte_limit`, at least one if there is any."""
        chosen, size = [], 0
        for (job, attempt), delivery in self._waiting.items():
            if chosen and size + len(delivery) > byte_limit:
                break
            chosen.append((job, attempt, delivery))
            size += len(delivery)
        return chosen

    def remove(self, job: str, attempt: int) -> None:
        """A delivery has arrived."""
        if self._waiting.pop((job, attempt), None) is None:
            return
        path = self._file_of.pop((job, attempt))
        self._left_in[path] -= 1
        if not self._left_in[path]:
            del self._left_in[path]
            path.unlink(missing_ok=True)


def _split(data: bytes) -> dict[Key, bytes]:
    """The deliveries of a file; what follows a damaged line is left out."""
    found: dict[Key, bytes] = {}
    at = 0
    while head := _HEAD.match(data, at):
        start, size = head.end(), int(head[3])
        if start + size > len(data):
            break
        found[head[1].decode(), int(head[2])] = data[start : start + size]
        at = start + size
    return found
