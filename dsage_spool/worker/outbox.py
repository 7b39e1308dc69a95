"""Finished results on their way: kept on the worker's own disk until the spool has them.

A result is written here before it is sent and removed after, so it survives a spool that is away and
a kill of the worker; the next start of the worker delivers it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Callable

from ..errors import FileAnswer, SpoolError
from ..files import Files

Key = tuple[str, int]  # job, attempt

_WHOLE, _PARTIAL = ".results", "new.partial"
_ANY_SIZE = 1 << 40  # bytes; we wrote it ourselves
_HEAD = re.compile(rb"([^ \n]{1,64}) ([0-9]{1,6}) ([0-9]{1,15})\n")


class Outbox:
    """Deliveries by job and attempt, in a folder of the worker's own disk that outlives it.

    Deliveries that are finished together share a file, each after a line `job attempt size`; the
    file goes when all of them are gone. While the worker's disk fails they are kept in memory alone,
    which `log` is told.
    """

    def __init__(self, files: Files, log: Callable[[str], None]) -> None:
        self._files = files
        self._log = log
        self._waiting: dict[Key, bytes] = {}
        self._file_of: dict[Key, str] = {}
        self._left_in: Counter[str] = Counter()
        self._number = 0
        for name in sorted(name for name in files.names("") if name.endswith(_WHOLE)):
            self._note(name, _split(files.read(name, _ANY_SIZE)))

    def __len__(self) -> int:
        return len(self._waiting)

    def keys(self) -> set[Key]:
        return set(self._waiting)

    def add(self, deliveries: dict[Key, bytes]) -> None:
        """Keep deliveries. Written in one step: a kill in between leaves nothing half."""
        if not deliveries:
            return
        lines = ((b"%s %d %d\n" % (job.encode(), attempt, len(data)), data)
                 for (job, attempt), data in deliveries.items())  # fmt: skip
        self._note(self._written(b"".join(itertools.chain.from_iterable(lines))), deliveries)

    def _written(self, data: bytes) -> str:
        """The name of a new file with these bytes; empty where the disk refuses it."""
        try:
            name = self._new_name()
            self._files.write(_PARTIAL, data)
            self._files.move(_PARTIAL, name)
            return name
        except SpoolError as error:
            self._log(f"results are kept in memory only: {error.message}")
            return ""

    def _new_name(self) -> str:
        taken = set(self._files.names(""))
        while True:
            self._number += 1
            name = f"{self._number:09d}{_WHOLE}"
            if name not in taken:
                return name

    def _note(self, name: str, deliveries: dict[Key, bytes]) -> None:
        self._waiting.update(deliveries)
        if name:
            self._file_of.update(dict.fromkeys(deliveries, name))
            self._left_in[name] += len(deliveries)

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
        name = self._file_of.pop((job, attempt), "")
        if not name:
            return
        self._left_in[name] -= 1
        if not self._left_in[name]:
            del self._left_in[name]
            self._take_away(name)

    def _take_away(self, name: str) -> None:
        try:
            self._files.remove(name)
        except FileAnswer:
            pass
        except SpoolError as error:  # it will be sent again, which is harmless
            self._log(f"{name}: cannot be removed: {error.message}")


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
