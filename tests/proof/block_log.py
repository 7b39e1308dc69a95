"""A disk that remembers: every write and every flush that reaches it is logged in order.

`python -m proof.block_log FOLDER` serves the file `FOLDER/device/disk` by FUSE; a loop device goes
on top of that, and a real file system on the loop device. What the disk holds lies in
`FOLDER/disk`, what happened in `FOLDER/log`: a cut of that log is a power loss. Whoever serves
must not touch the mount that it serves, so it is a process of its own. The one module that imports
the binding, mfusepy.
"""

from __future__ import annotations

import os
import random
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

HEAD = struct.Struct("<BQI")  # kind, offset, length; the bytes of a write follow
WRITE, FLUSH = 1, 2
NAME = "/disk"
SECTOR, PAGE = 512, 4096  # the units in which a disk counts, and writes
SOON = 20.0  # seconds in which a process that serves must answer


# -- serving ------------------------------------------------------------------------------------


class Device:
    """The operations on the one file. A log entry is there before the writer hears of success."""

    use_ns = True  # asked for by the binding: times in whole nanoseconds

    def __init__(self, folder: Path) -> None:
        self._disk = os.open(folder / "disk", os.O_RDWR)
        self._log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._disk).st_size

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        if path != NAME:
            raise FileNotFoundError(2, "no such file", path)
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": self._size}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", NAME[1:]]

    def open(self, path: str, flags: int) -> int:
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(self._disk, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        os.pwrite(self._disk, data, offset)
        self._note(WRITE, offset, data)
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._note(FLUSH)
        return 0

    def _note(self, kind: int, offset: int = 0, data: bytes = b"") -> None:
        os.writev(self._log, [HEAD.pack(kind, offset, len(data)), data])


def serve(folder: Path) -> None:
    """Until the mount is taken away, or the process ends."""
    import mfusepy

    class Mounted(Device, mfusepy.Operations):
        pass

    # libfuse 2 would cut all writes into single pages, which no disk is bound to do.
    large = {"big_writes": True} if mfusepy.fuse_version_major == 2 else {}
    mount = str(folder / "device")
    mfusepy.FUSE(Mounted(folder), mount, foreground=True, nothreads=True, **large)


def lacks_binding() -> str:
    """Why FUSE cannot be used from Python here; empty if it can. Not tried in this process."""
    argv = [sys.executable, "-c", "import mfusepy"]
    error = subprocess.run(argv, capture_output=True, text=True).stderr.strip()
    if not error:
        return ""
    remedy = "pip install -e '.[prove]' and apt-get install fuse3"
    return f"no FUSE in Python: {error.splitlines()[-1]}; type: {remedy}"


class Served:
    """A process that serves `folder/disk`; as a context, it ends with it. Needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.device = folder, folder / "device" / NAME[1:]
        (folder / "device").mkdir()
        here = Path(__file__).parent.parent
        argv = [sys.executable, "-m", "proof.block_log", str(folder)]
        self._process = subprocess.Popen(argv, cwd=here, stdin=subprocess.DEVNULL)

    def __enter__(self) -> Served:
        end = time.monotonic() + SOON
        while not self.device.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError("the disk of the block log was never served")
            time.sleep(0.005)
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """First without force: with the mount gone the process ends by itself."""
        subprocess.run(["umount", "--lazy", str(self.folder / "device")], capture_output=True)
        try:
            self._process.wait(SOON)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def position(self) -> int:
        """How much log there is: once a verb returned, what it has flushed lies before it."""
        return (self.folder / "log").stat().st_size


# -- reading and cutting ------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    kind: int
    offset: int
    data: bytes
    end: int  # position in the log behind it


def read_log(path: Path) -> list[Entry]:
    return list(_entries(path.read_bytes()))


def _entries(data: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(data):
        kind, offset, length = HEAD.unpack_from(data, at)
        at += HEAD.size + length
        yield Entry(kind, offset, data[at - length : at], at)


@dataclass(frozen=True)
class Cut:
    """A power loss: `count` entries had reached the disk. With a `seed` its cache is lost too."""

    count: int
    seed: int | None = None  # which of the writes since the last flush are dropped, by chance

    def __str__(self) -> str:
        kept = "in order" if self.seed is None else f"unflushed writes dropped by {self.seed}"
        return f"cut {self.count}, {kept}"


class Images:
    """Disks as they are after a power loss, made from `base`; ask for cuts in ascending order."""

    def __init__(self, base: Path, entries: Sequence[Entry]) -> None:
        self._base, self._entries = base, entries
        self._applied = 0  # how many entries `base` holds by now

    def make(self, cut: Cut, path: Path) -> None:
        flushes = (i for i in range(cut.count, 0, -1) if self._entries[i - 1].kind == FLUSH)
        flushed = next(flushes, 0)
        apply(self._base, _writes(self._entries[self._applied : flushed]))
        self._applied = max(self._applied, flushed)
        copy_sparse(self._base, path)
        rest = _writes(self._entries[self._applied : cut.count])
        kept = rest if cut.seed is None else _survivors(rest, random.Random(cut.seed))
        apply(path, kept)


def _writes(entries: Sequence[Entry]) -> list[tuple[int, bytes]]:
    return [(entry.offset, entry.data) for entry in entries if entry.kind == WRITE]


def _survivors(
    writes: Sequence[tuple[int, bytes]], chance: random.Random
) -> list[tuple[int, bytes]]:
    """Any of the writes that were not flushed; sometimes the last one is cut off half way.

    Only a long one, at any sector: a page is written whole by today's disks, and btrfs needs that
    for its superblock (torn in half, it does not mount again).
    """
    share = chance.choice((0.0, 0.3, 0.6, 0.9))
    kept = [write for write in writes if chance.random() < share]
    if writes and len(writes[-1][1]) > PAGE and chance.random() < 0.5:
        (offset, data), unit = writes[-1], chance.choice((SECTOR, PAGE))
        kept.append((offset, data[: chance.randrange(len(data) // unit + 1) * unit]))
    return kept


def apply(path: Path, writes: Sequence[tuple[int, bytes]]) -> None:
    with open(path, "r+b", buffering=0) as disk:
        for offset, data in writes:
            os.pwrite(disk.fileno(), data, offset)


def copy_sparse(source: Path, target: Path) -> None:
    """Holes stay holes: most of a small disk is empty."""
    with open(source, "rb", buffering=0) as old, open(target, "wb", buffering=0) as new:
        size = os.fstat(old.fileno()).st_size
        os.ftruncate(new.fileno(), size)
        for start, end in _extents(old.fileno(), size):
            os.lseek(new.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(new.fileno(), old.fileno(), start, end - start)


def _extents(handle: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError:  # nothing but holes from here on
            return
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, end


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
