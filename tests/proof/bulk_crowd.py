"""Servers that can be told about, people who drop much, and folders for very many files."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from cryptography.hazmat.primitives.asymmetric import ed25519

from dsage_spool import layout, names
from dsage_spool.client.compose import JobNames, Options, SignedJob, compose, source_work
from dsage_spool.files import LocalFiles
from dsage_spool.signing import JOB_NAMESPACE, PrivateKeySigner, line_for
from dsage_spool.spool import dropping, settings
from parties import Party, World

# -- servers -------------------------------------------------------------------------------------

MAIN = "\nimport sys\nfrom dsage_spool.cli.main import main\nsys.exit(main(sys.argv[3:]))\n"

# Each listing of incoming/: when it began and ended, names that went by, names that were kept.
TOLD_LISTINGS = """
import time
from dsage_spool.files import LocalFiles

plain = LocalFiles.names

def names(self, folder, limit=None, choose=list):
    if folder != "incoming":
        return plain(self, folder, limit, choose)
    began, count = time.monotonic(), 0

    def passing(seen):
        nonlocal count
        for name in seen:
            count += 1
            yield name

    answer = plain(self, folder, limit, lambda seen: choose(passing(seen)))
    with open("listings", "a") as out:
        out.write(f"{began} {time.monotonic()} {count} {len(answer)}\\n")
    return answer

LocalFiles.names = names
"""

# A watcher that hears of nothing, as when every event is lost.
DEAF = """
from dsage_spool import watch

class Deaf:
    stop = join = lambda self, *seconds: None

watch.Watch._start = lambda self, folders: Deaf()
"""


@dataclass(frozen=True)
class Listing:
    began: float
    ended: float
    passed: int
    kept: int


def server(world: World, before: str = "", **environ: str) -> Party:
    """The shipped server that tells of its listings; `before` is done to it before it begins."""
    return world.server(python=("-c", TOLD_LISTINGS + before + MAIN), **environ)


def listings(world: World) -> list[Listing]:
    path = world.home("server") / "listings"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [line.split() for line in lines if line.count(" ") == 3]
    return [Listing(float(b), float(e), int(p), int(k)) for b, e, p, k in rows]


def counted(world: World, state: str) -> int:
    """Jobs in a state, as the server tells in `queue`."""
    try:
        found = re.search(rf"^counts:.* {state}=(\d+)", (world.spool / "queue").read_text(), re.M)
    except FileNotFoundError:
        return 0
    return int(found[1]) if found else 0


def peak_memory(pid: int) -> float:
    """Of a process, in MB."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) * 1024 / 1e6


def book_of(full: int) -> str:
    """To be done to a server: a book that is full with so many jobs."""
    limits = f"{full}, {full * 9 // 10}, {full * 5 // 4}, {max(1, full // 20)}"
    return (
        "from dsage_spool.server import book\n"
        f"book.FULL, book.REOPENS, book.AT_MOST, book.SHARE = {limits}\n"
    )


# -- people who drop much ------------------------------------------------------------------------


class Person:
    """Somebody in the roster who signs and drops jobs as fast as can be, without flushing them."""

    def __init__(self, world: World, name: str) -> None:
        self.name, self.spool = name, world.spool
        self._signer = PrivateKeySigner(ed25519.Ed25519PrivateKey.generate())
        self._names = JobNames(time.time, os.urandom)
        self._settings = settings.load(LocalFiles(world.spool))
        with open(world.spool / layout.ROSTER, "a") as roster:
            roster.write(line_for(name, self._signer.public, JOB_NAMESPACE) + "\n")

    def sign(self, job: str = "") -> SignedJob:
        job = job or self._names.new()
        return compose(_WORK, Options(), self._settings.id, self.name, self._signer, job)

    def drop(self, count: int) -> list[str]:
        return [self.drop_one() for _ in range(count)]

    def drop_one(self, job: str = "") -> str:
        """In one step, as clients do."""
        signed = self.sign(job)
        file = job_file(signed)
        write(f"{self.spool}/tmp/{file.name}", file.data)
        os.rename(f"{self.spool}/tmp/{file.name}", f"{self.spool}/incoming/{file.name}")
        return signed.job


_WORK = source_work("2+2")


def job_file(signed: SignedJob) -> dropping.Drop:
    return dropping.job_drop(signed.job, signed.envelope, signed.signature, signed.payload)


def write(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(handle, data)
    os.close(handle)


# -- what the kernel tells -----------------------------------------------------------------------


class Witness:
    """Events of a folder in a kernel queue of our own, which nobody empties before `told`."""

    MOVED_TO, OVERFLOW = 0x80, 0x4000

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0 or libc.inotify_add_watch(
            self._handle, os.fsencode(folder), self.MOVED_TO
        ) < 0:  # fmt: skip
            raise OSError(ctypes.get_errno(), "no inotify to be had")

    def told(self) -> tuple[int, bool]:
        """How many events there were, and whether the kernel says that it lost some."""
        count, lost = 0, False
        try:
            while True:
                for mask in _masks(os.read(self._handle, 1 << 16)):
                    count, lost = count + (mask == self.MOVED_TO), lost or mask == self.OVERFLOW
        except BlockingIOError:
            return count, lost
        finally:
            os.close(self._handle)


def _masks(data: bytes) -> Iterator[int]:
    place = 0
    while place < len(data):
        _, mask, _, length = struct.unpack_from("iIII", data, place)
        yield mask
        place += 16 + length


# -- folders -------------------------------------------------------------------------------------


@contextmanager
def large_folder() -> Iterator[Path]:
    """A folder for very many files: in memory where that can be had, since their end is quicker."""
    shared = "/dev/shm"
    usable = os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 8 << 30
    made = Path(tempfile.mkdtemp(prefix="dsage-bulk-", dir=shared if usable else None))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def spool_in(folder: Path) -> Iterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        world.close()


def fill_incoming(world: World, person: Person, count: int) -> None:
    """Of ten files one is a job; others have only the name of a job or a request, or none of ours.

    The names are spread, so that jobs and the rest are met together.
    """
    data, source, start = job_file(person.sign()).data, "", time.time() - count
    for number in range(count):
        job = names.make_job(start + number, os.urandom(4))
        kind = number % 10
        if kind == 0:
            person.drop_one(job)
            continue
        if number % 50_000 == 1:  # file systems limit the links of one file
            source = f"{world.spool}/source-{number}"
            write(source, data)
        name = "job" if kind < 5 else f"{job[-8:]}.request" if kind < 8 else "junk"
        os.link(source, f"{world.spool}/incoming/{job}.{name}")


def fill_other_boxes(world: World, count: int) -> None:
    """What a worker that means harm may leave: half of it live output of no job, the rest mixed."""
    out, result, lock = "results/{}.1.out", "results/{}.1.result", "locks/{}.1.lock"
    kinds = (out, result, out, lock, "tmp/{}")
    for number in range(count):
        if number % 50_000 == 0:
            source = f"{world.spool}/source-{number}"
            write(source, b"junk")
        kind = kinds[number % 5].format(names.make_job(1e9 + number, os.urandom(4)))
        os.link(source, f"{world.spool}/{kind}")


def fill_queue(world: World, person: Person, count: int) -> None:
    """Jobs that were admitted before, in queued/. Nobody checks those signatures again."""
    signed = person.sign()
    before, after = signed.envelope.split(signed.job.encode())
    for number in range(count):
        job = names.make_job(1e9 + number, os.urandom(4))
        folder = f"{world.spool}/queued/{job}"
        os.mkdir(folder)
        write(f"{folder}/envelope", before + job.encode() + after)
