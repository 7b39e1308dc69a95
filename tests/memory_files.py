"""Files in memory, under the same contract as the real ones: for fast tests and simulations.

Names lead to inodes; a hard link is a second name of one inode. For one thread at a time.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, Callable, Sequence

from dsage_spool.errors import Denied, Exists, Gone, NotRegular, TooBig
from dsage_spool.files import Files, Stat


class Inode:
    """A file (`data`), a folder (`entries`) or something else."""

    def __init__(self, kind: str, number: int, mtime: float) -> None:
        self.kind, self.number, self.mtime = kind, number, mtime
        self.data = b""
        self.entries: dict[str, Inode] = {}
        self.links = 1


class MemoryFiles(Files):
    """`clock` answers seconds since 1970: it is the clock of the host that holds the files."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._numbers = clock, itertools.count(1)
        self.root = self._new("folder")

    def _new(self, kind: str) -> Inode:
        return Inode(kind, next(self._numbers), self._clock())

    def _folder(self, path: str) -> Inode:
        here = self.root.entries.get(path, self.root)  # most folders lie at the top
        if here is not self.root and here.kind == "folder":
            return here
        here = self.root
        for part in path.split("/") if path else ():
            if here.kind != "folder" or part not in here.entries:
                raise Gone(f"{path}: is not there")
            here = here.entries[part]
        if here.kind != "folder":
            raise Gone(f"{path}: is not there")
        return here

    def _parent(self, path: str) -> tuple[Inode, str]:
        above, _, name = path.rpartition("/")
        if len(name) > 63 and len(name.encode("utf-8", "surrogateescape")) > 255:
            raise NotRegular(f"{path}: has too long a name")
        return self._folder(above), name

    def _inode(self, path: str) -> Inode:
        if not path:
            return self.root
        folder, name = self._parent(path)
        inode = folder.entries.get(name)
        if inode is None:
            raise Gone(f"{path}: is not there")
        return inode

    def _regular(self, path: str) -> Inode:
        inode = self._inode(path)
        if inode.kind != "file":
            raise NotRegular(f"{path}: is not a regular file")
        return inode

    def _made(self, path: str) -> Inode:
        folder, name = self._parent(path)
        if name not in folder.entries:
            self._bind((folder, name, self._new("file")))
        return self._regular(path)

    def _bind(self, *changes: tuple[Inode, str, Inode | None]) -> None:
        """The one way in which names change: all of these at once. None takes a name away."""
        for folder, name, inode in changes:
            if inode is None:
                del folder.entries[name]
            else:
                folder.entries[name] = inode

    def _set(self, inode: Inode, data: bytes) -> None:
        inode.data, inode.mtime = data, self._clock()

    def add_other(self, path: str) -> None:
        """A name that is neither file nor folder, as a link or a pipe is."""
        folder, name = self._parent(path)
        self._bind((folder, name, self._new("other")))

    def names(self, folder: str, limit: int | None = None, choose: Callable = list) -> Any:
        seen = (name for name in self._folder(folder).entries if name[0] != ".")
        return choose(itertools.islice(seen, limit))

    def stat(self, path: str) -> Stat:
        inode = self._inode(path)
        return Stat(inode.kind, len(inode.data), inode.mtime, inode.number, inode.links)

    def read(self, path: str, limit: int) -> bytes:
        data = self._regular(path).data
        if len(data) > limit:
            raise TooBig(f"{path}: larger than {limit} bytes")
        return data

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        return self._regular(path).data[offset : offset + limit]

    def write(self, path: str, data: bytes) -> None:
        self._set(self._made(path), bytes(data))

    def append(self, path: str, data: bytes) -> None:
        inode = self._made(path)
        self._set(inode, inode.data + data)

    def drop(self, tmp: str, path: str, data: bytes) -> None:
        self.write(tmp, data)
        self.move(tmp, path)

    def resize(self, path: str, size: int) -> None:
        inode = self._regular(path)
        self._set(inode, inode.data[:size].ljust(size, b"\0"))

    def link(self, source: str, path: str) -> None:
        inode = self._inode(source)
        folder, name = self._parent(path)
        if name in folder.entries:
            raise Exists(f"{path}: exists already")
        if inode.kind == "folder":
            raise Denied(f"{path}: operation not permitted")
        self._bind((folder, name, inode))
        inode.links += 1

    def move(self, source: str, path: str) -> None:
        inode = self._inode(source)
        here, old = self._parent(source)
        folder, name = self._parent(path)
        there = folder.entries.get(name)
        if there is inode:
            return  # POSIX: two names of one file stay as they are
        if there is not None:
            _may_replace(inode, there, path)
            there.links -= 1
        self._bind((here, old, None), (folder, name, inode))

    def make_folder(self, path: str) -> None:
        folder, name = self._parent(path)
        if name in folder.entries:
            raise Exists(f"{path}: exists already")
        self._bind((folder, name, self._new("folder")))

    def remove(self, path: str) -> None:
        inode = self._inode(path)
        if inode.kind == "folder":
            raise NotRegular(f"{path}: is a folder")
        folder, name = self._parent(path)
        self._bind((folder, name, None))
        inode.links -= 1

    def remove_tree(self, path: str) -> None:
        folder, name = self._parent(path)
        self._folder(path)
        self._bind((folder, name, None))

    def sync(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._inode(path)

    def sync_all(self) -> None:
        pass

    def now(self) -> float:
        return self._clock()


def _may_replace(inode: Inode, there: Inode, path: str) -> None:
    if there.kind == "folder" and inode.kind != "folder":
        raise NotRegular(f"{path}: is a folder")
    if inode.kind == "folder" and there.kind != "folder":
        raise Gone(f"{path}: is not there")
    if there.entries:
        raise Exists(f"{path}: exists already")
