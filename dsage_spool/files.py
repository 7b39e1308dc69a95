"""The few file operations a spool needs, and their local form.

Parties know files only through `Files`; `sftp.SftpFiles` is the same over SSH, the tests have a third
form in memory, and one contract test holds for all. Paths are relative to the spool, with `/`.

Every operation either answers, or raises one of the ordinary answers `Gone`, `Exists`, `TooBig`,
`NotRegular`, or a failure `Denied`, `NoSpace`, `DiskError`, `Unreachable`. After `Unreachable` the
operation may or may not have taken place: who needs to know must look.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat as statmodes
import time
from dataclasses import dataclass

from typing import Any, Callable, Iterable, Sequence

from . import durable
from .errors import Denied, DiskError, Exists, Gone, NoSpace, NotRegular, SpoolError, TooBig


@dataclass(frozen=True)
class Stat:
    """What a look at a name without following links shows. `mtime` in seconds, by the host's clock."""

    kind: str  # "file", "folder" or "other"
    size: int
    mtime: float
    inode: int = 0  # 0 where the door cannot see it
    links: int = 1


class Choice:
    """What local forms answer to `names` in place of a list, from names that come by one at a time.

    So nobody holds the names of a folder that others can fill. `told` stands for it in stories.
    """

    def __init__(self, told: str, choose: Callable[[Iterable[str]], Any]) -> None:
        self._told, self._choose = told, choose

    def __call__(self, names: Iterable[str]) -> Any:
        return self._choose(names)

    def __str__(self) -> str:
        return self._told


HOW_MANY = Choice("how many", lambda names: sum(1 for _ in names))


class Files:
    """The interface. `durable` says whether `drop` and `sync` reach stable storage."""

    durable = True

    def names(self, folder: str, limit: int | None = None) -> list[str]:
        """Names in a folder, at most `limit`, without those that begin with a dot; unordered."""
        raise NotImplementedError

    def stat(self, path: str) -> Stat:
        raise NotImplementedError

    def read(self, path: str, limit: int) -> bytes:
        """A whole regular file; TooBig if it holds more than `limit` bytes."""
        raise NotImplementedError

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset`; empty at the end. Cheap to repeat on one path."""
        raise NotImplementedError

    def write(self, path: str, data: bytes) -> None:
        """Write a new or replaced file in place; not atomic, not durable: `sync` it."""
        raise NotImplementedError

    def rewrite(self, path: str, data: bytes) -> None:
        """Like `write`, without giving back blocks first where that can be helped."""
        self.write(path, data)

    def append(self, path: str, data: bytes) -> None:
        raise NotImplementedError

    def drop(self, tmp: str, path: str, data: bytes) -> None:
        """Put a whole file in place by one atomic step: write `tmp`, flush it, rename it to `path`.

        An older file of that name is replaced. The name itself is durable after `sync([folder])`.
        """
        raise NotImplementedError

    def resize(self, path: str, size: int) -> None:
        """Set the size: the spool host's clock stamps the file."""
        raise NotImplementedError

    def link(self, source: str, path: str) -> None:
        """A second name for `source`; exclusive: Exists if somebody has `path` already."""
        raise NotImplementedError

    def move(self, source: str, path: str) -> None:
        """Rename. Replaces a file; Exists if `path` is a folder that holds something."""
        raise NotImplementedError

    def make_folder(self, path: str) -> None:
        raise NotImplementedError

    def remove(self, path: str) -> None:
        """Remove a name that is not a folder."""
        raise NotImplementedError

    def sync(self, paths: Sequence[str]) -> None:
        """Make these files and folders durable; all of them, at the cost of about one."""
        raise NotImplementedError

    def now(self) -> float:
        """The clock of the host that holds the files, in seconds since 1970."""
        raise NotImplementedError

    def many(self, operation: str, rows: Iterable[tuple]) -> list[Any]:
        """One operation on many rows of arguments; an answer or a SpoolError for each, in order.

        Remote forms keep many requests in flight; local ones share one flush among `drop`s.
        """
        return [self._outcome(operation, row) for row in rows]

    def _outcome(self, operation: str, row: tuple) -> Any:
        try:
            return getattr(self, operation)(*row)
        except SpoolError as error:
            return error

    def close(self) -> None:
        """Give back connections and handles."""


def kind_of(mode: int) -> str:
    if statmodes.S_ISREG(mode):
        return "file"
    return "folder" if statmodes.S_ISDIR(mode) else "other"


_ANSWERS = {
    errno.ENOENT: (Gone, "is not there", ""),
    errno.ENOTDIR: (Gone, "is not there", ""),
    errno.EEXIST: (Exists, "exists already", ""),
    errno.ENOTEMPTY: (Exists, "exists already", ""),
    errno.ELOOP: (NotRegular, "is a symbolic link", ""),
    errno.EISDIR: (NotRegular, "is a folder", ""),
    errno.ENXIO: (NotRegular, "is a pipe or a device", ""),
    errno.ENAMETOOLONG: (NotRegular, "has too long a name", ""),
    errno.EACCES: (Denied, "permission denied", "check owner and mode with `ls -ld`"),
    errno.EPERM: (Denied, "operation not permitted", "check owner and mode with `ls -ld`"),
    errno.EROFS: (Denied, "the file system is read-only", "remount it, or use another spool"),
    errno.ENOSPC: (NoSpace, "no space left on the disk", "free some space; `df -h` and `df -i` tell"),
    errno.EDQUOT: (NoSpace, "the disk quota is used up", "free some space; `quota` tells"),
}


def answer_to(error: OSError, path: str) -> SpoolError:
    """The error of this package for an operating system's error."""
    kind, text, hint = _ANSWERS.get(
        error.errno or 0, (DiskError, error.strerror or str(error), "look at the disk: `dmesg`, `df`")
    )
    return kind(f"{path}: {text}", hint)


class _asking:
    """Turn OSError into our errors around one operation; a class, for speed."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            raise answer_to(error, self.path) from error


_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
# O_NONBLOCK: a pipe that nobody reads is refused, where opening it would wait for a reader.
_WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


class LocalFiles(Files):
    """Files of a spool on this machine. Never follows a link in the last part of a path."""

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = os.path.abspath(os.fspath(root))

    def __repr__(self) -> str:
        return f"LocalFiles({self.root!r})"

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def names(self, folder: str, limit: int | None = None, choose: Callable = list) -> Any:
        """`choose` is given an iterator; what it answers is the answer."""
        with _asking(folder), os.scandir(self._at(folder)) as entries:
            seen = (entry.name for entry in entries if entry.name[0] != ".")
            return choose(itertools.islice(seen, limit))

    def stat(self, path: str) -> Stat:
        with _asking(path):
            found = os.lstat(self._at(path))
        return Stat(
            kind_of(found.st_mode), found.st_size, found.st_mtime_ns / 1e9, found.st_ino, found.st_nlink
        )

    def _open_to_read(self, path: str) -> int:
        handle = os.open(self._at(path), _READ | _BINARY)
        if not statmodes.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise NotRegular(f"{path}: is not a regular file")
        return handle

    def read(self, path: str, limit: int) -> bytes:
        with _asking(path):
            handle = self._open_to_read(path)
            try:
                # Ask the handle, not the name; and trust the count read, since it may still grow.
                if os.fstat(handle).st_size > limit:
                    raise TooBig(f"{path}: larger than {limit} bytes")
                data = _read_up_to(handle, limit + 1)
            finally:
                os.close(handle)
        if len(data) > limit:
            raise TooBig(f"{path}: larger than {limit} bytes")
        return data

    def read_from(self, path: str, offset: int, limit: int) -> bytes:
        with _asking(path):
            handle = self._open_to_read(path)
            try:
                return os.pread(handle, limit, offset)
            finally:
                os.close(handle)

    def write(self, path: str, data: bytes) -> None:
        self._put(path, data, os.O_TRUNC)

    def append(self, path: str, data: bytes) -> None:
        self._put(path, data, os.O_APPEND)

    def rewrite(self, path: str, data: bytes) -> None:
        with _asking(path):
            handle = os.open(self._at(path), _WRITE | _BINARY, 0o666)
            try:
                _write_all(handle, data)
                os.ftruncate(handle, len(data))
            finally:
                os.close(handle)

    def _put(self, path: str, data: bytes, flag: int) -> None:
        with _asking(path):
            handle = os.open(self._at(path), _WRITE | _BINARY | flag, 0o666)
            try:
                _write_all(handle, data)
            finally:
                os.close(handle)

    def drop(self, tmp: str, path: str, data: bytes) -> None:
        self.write(tmp, data)
        self.sync([tmp])
        self.move(tmp, path)

    def resize(self, path: str, size: int) -> None:
        with _asking(path):
            handle = os.open(self._at(path), os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | _BINARY)
            try:
                os.ftruncate(handle, size)
            finally:
                os.close(handle)

    def link(self, source: str, path: str) -> None:
        with _asking(path):
            os.link(self._at(source), self._at(path), follow_symlinks=False)

    def move(self, source: str, path: str) -> None:
        with _asking(source):
            os.replace(self._at(source), self._at(path))

    def make_folder(self, path: str) -> None:
        with _asking(path):
            os.mkdir(self._at(path))

    def remove(self, path: str) -> None:
        with _asking(path):
            os.unlink(self._at(path))

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all in it, never following a link. Only local parties tidy up."""
        if self.stat(path).kind != "folder":
            return self.remove(path)
        with _asking(path):
            with os.scandir(self._at(path)) as entries:
                below = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, folder in below:
            (self.remove_tree if folder else self.remove)(f"{path}/{name}")
        with _asking(path):
            os.rmdir(self._at(path))

    def sync(self, paths: Sequence[str]) -> None:
        with _asking(paths[0] if paths else ""):
            durable.flush([self._at(path) for path in paths])

    def sync_all(self) -> None:
        """Make durable all that can be seen now. Only the server, who then trusts it, asks for that."""
        with _asking(""):
            durable.flush_all(self.root)

    def now(self) -> float:
        return time.time()

    def many(self, operation: str, rows: Iterable[tuple]) -> list[Any]:
        if operation == "drop":
            return self._drop_many(list(rows))
        return super().many(operation, rows)

    def _drop_many(self, rows: list[tuple]) -> list[Any]:
        outcomes = super().many("write", ((tmp, data) for tmp, _, data in rows))
        written = [row for row, outcome in zip(rows, outcomes) if outcome is None]
        self.sync([tmp for tmp, _, _ in written])
        moved = iter(super().many("move", ((tmp, path) for tmp, path, _ in written)))
        return [next(moved) if outcome is None else outcome for outcome in outcomes]


def _read_up_to(handle: int, limit: int) -> bytes:
    chunks = []
    while limit > 0:
        chunk = os.read(handle, min(limit, 1 << 20))
        if not chunk:
            break
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
