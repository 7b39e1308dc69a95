"""Files that stop the party that uses them: at the n-th change, before it or halfway through."""

from __future__ import annotations

from dsage_spool.errors import DiskError
from dsage_spool.files import Files


class Crash(Exception):
    """The party is dead: what it knew is gone, what it wrote is there."""


CHANGES = (
    "write", "rewrite", "append", "drop", "resize", "link", "move", "make_folder", "remove",
    "remove_tree",
)  # fmt: skip
COUNTED = (*CHANGES, "sync", "sync_all")


class CrashingFiles(Files):
    """Passes everything on to `inner`, until change number `at` (from 1) after `arm`.

    `torn`: a write or append puts half of its bytes down first. `failing`: the disk fails that once
    and works again, where otherwise the party is dead from then on.
    """

    def __init__(self, inner: Files) -> None:
        self.inner = inner
        self.count = 0
        self.at = 0
        self.torn = self.failing = False
        self.story: list[str] = []

    def arm(self, at: int, torn: bool = False, failing: bool = False) -> None:
        self.count, self.at, self.torn, self.failing, self.story = 0, at, torn, failing, []

    @property
    def struck(self) -> bool:
        return 0 < self.at <= self.count

    def _step(self, name: str, arguments: tuple) -> None:
        self.count += 1
        self.story.append(f"{name} {arguments[0] if arguments else ''}")
        if self.count == self.at or (self.struck and not self.failing):
            if self.count == self.at and self.torn and name in ("write", "rewrite", "append"):
                path, data = arguments
                getattr(self.inner, name)(path, data[: len(data) // 2])
            raise DiskError(f"{name}: the disk fails") if self.failing else Crash(self.story[-1])


def _counted(name: str):
    def operation(self, *arguments):
        self._step(name, arguments)
        return getattr(self.inner, name)(*arguments)

    return operation


def _passed(name: str):
    def operation(self, *arguments):
        return getattr(self.inner, name)(*arguments)

    return operation


for _name in COUNTED:
    setattr(CrashingFiles, _name, _counted(_name))
for _name in ("names", "stat", "read", "read_from", "now"):
    setattr(CrashingFiles, _name, _passed(_name))
