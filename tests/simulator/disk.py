"""A disk that can lose power: what is seen now, and what would be there after a power failure.

Every change of names is an effect; effects reach stable storage in their order, a random number of
them by themselves, or forced by the flush of a folder that they touch (`ordered`: any flush forces
all before it, as ext4's journal does; otherwise only those of that folder, as POSIX promises). Bytes
are safe once their file was flushed. A flush that fails drops what it should have written, and the
next one does not know of it (as Linux does).
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, Callable, Sequence

from dsage_spool.errors import DiskError
from memory_files import Inode, MemoryFiles

Change = tuple[Inode, str, "Inode | None"]


class Effect:
    __slots__ = ("changes", "forced")

    def __init__(self, changes: tuple[Change, ...]) -> None:
        self.changes, self.forced = changes, False


class Disk(MemoryFiles):
    """`on_change` is called with each change of a name, `on_beat` with each file that is set to a size,
    `on_write` with what was written on its own machine."""

    def __init__(self, clock: Callable[[], float], chance: Random, ordered: bool) -> None:
        self._chance, self._ordered = chance, ordered
        self.pending: deque[Effect] = deque()
        self.on_change: Callable[[tuple[Change, ...]], None] = lambda changes: None
        self.on_beat: Callable[[str], None] = lambda path: None
        self.on_write: Callable[[str, bytes], None] = lambda path, data: None
        super().__init__(clock)

    def _new(self, kind: str) -> Inode:
        inode = super()._new(kind)
        inode.safe, inode.safe_entries = b"", {}  # after a power failure
        inode.loose, inode.dropped, inode.anew = [], False, False
        return inode

    def _bind(self, *changes: Change) -> None:
        super()._bind(*changes)
        effect = Effect(changes)
        self.pending.append(effect)
        for folder, _, _ in changes:
            folder.loose.append(effect)
        self.on_change(changes)

    def _set(self, inode: Inode, data: bytes) -> None:
        super()._set(inode, data)
        inode.dropped, inode.anew = False, True

    def append(self, path: str, data: bytes) -> None:
        self._in_place(super().append, path, data)

    def resize(self, path: str, size: int) -> None:
        """The same size again leaves the stamp alone, as some file systems do."""
        if len(self._regular(path).data) != size:
            self._in_place(super().resize, path, size)
        self.on_beat(path)

    def _in_place(self, change: Callable, path: str, argument: Any) -> None:
        """What was flushed before stays what it is, where it is not cut off."""
        name = path.rpartition("/")[2]
        inode = self._parent(path)[0].entries.get(name)
        anew = inode.anew if inode else False
        change(path, argument)
        self._inode(path).anew = anew

    def sync(self, paths: Sequence[str]) -> None:
        for path in paths:
            inode = self._inode(path)
            if inode.kind == "file" and not inode.dropped:
                inode.safe, inode.anew = inode.data, False
            for effect in self.pending if self._ordered else inode.loose:
                effect.forced = True
            inode.loose.clear()
        while self.pending and self.pending[0].forced:
            _carry_out(self.pending.popleft())

    def sync_all(self) -> None:
        for effect in self.pending:
            _carry_out(effect)
        self.pending.clear()
        for inode in self._reachable(self.root, lambda inode: inode.entries):
            inode.loose = []
            if not inode.dropped:
                inode.safe, inode.anew = inode.data, False

    def fail_sync(self, paths: Sequence[str]) -> None:
        """The flush fails, and what it was about will not be written by a later one either."""
        for path in paths:
            inode = self._inode(path)
            inode.dropped = inode.data is not inode.safe
        raise DiskError("flush: input/output error")

    def settle_all(self) -> None:
        """As if the machine had been idle for long."""
        for effect in self.pending:
            _carry_out(effect)
        self.pending.clear()
        for inode in self._reachable(self.root, lambda inode: inode.entries):
            inode.loose, inode.dropped, inode.anew = [], False, False
            inode.safe = inode.data

    def lose_power(self) -> None:
        """Only what is on stable storage remains, and what got there by chance."""
        kept = self._chance.choice((0, self._chance.randint(0, len(self.pending))))
        for place, effect in enumerate(self.pending):
            if place < kept or effect.forced:
                _carry_out(effect)
        self.pending.clear()
        for inode in self._reachable(self.root, lambda inode: inode.safe_entries):
            inode.entries, inode.loose, inode.dropped = dict(inode.safe_entries), [], False
            if inode.data is not inode.safe:
                inode.data = inode.safe = self._survives(inode)

    def _survives(self, inode: Inode) -> bytes:
        """Of bytes that were not flushed: the old ones, all, some, or as many zeros."""
        intact = 0 if inode.anew else min(len(inode.safe), len(inode.data))
        inode.anew = False
        some = inode.data[: self._chance.randint(intact, len(inode.data))]
        zeros = inode.data[:intact] + bytes(len(inode.data) - intact)
        return self._chance.choice((inode.safe, inode.data, some, zeros))

    def _reachable(self, inode: Inode, entries: Callable[[Inode], dict]) -> list[Inode]:
        found = {id(inode): inode}
        fresh = [inode]
        while fresh:
            below = entries(fresh.pop()).values()
            new = {id(one): one for one in below if id(one) not in found}
            found |= new
            fresh += new.values()
        return list(found.values())


def _carry_out(effect: Effect) -> None:
    for folder, name, inode in effect.changes:
        if inode is None:
            folder.safe_entries.pop(name, None)
        else:
            folder.safe_entries[name] = inode
