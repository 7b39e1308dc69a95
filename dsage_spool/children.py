"""The worker's side of its slots: tasks go in, `Ended` comes out.

`Children` is what a worker needs; `SlotProcesses` does it with real processes (`runner/slot.py`).
The worker never blocks on a slot: bytes move during `wait`, `start` and `stop`, as many as a pipe
takes. A slot that dies is replaced: its job ends as killed, its waiting tasks go to other slots.
Raises SpoolError where slots cannot be started.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from .errors import BadFormat, DiskError, SpoolError
from .runner.frames import Frame, FrameReader, frame
from .runner.room import STDOUT_NAME, wipe
from .runner.task import Ended, Task, ended_of
from .text import clean

__all__ = ["Children", "Ended", "SlotProcesses", "Task"]

_CHUNK = 1 << 20
_PATIENCE = 5.0  # seconds that a slot has for ending by itself
_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "SYSTEMROOT")


class Children(Protocol):
    """Whatever runs jobs for a worker."""

    slots: int

    def set_roster(self, text: bytes) -> None:
        """Who is trusted, for tasks that start from now on."""
        ...

    def start(self, task: Task) -> None:
        """Give it to the slot with the fewest tasks; exactly one `Ended` will come of it."""
        ...

    def loads(self) -> list[int]:
        """Tasks of each slot, running and waiting."""
        ...

    def stop(self, job: str, attempt: int) -> None:
        """Kill or drop it; it comes back as returned, unless it has ended just before."""
        ...

    def wait(self, timeout: float | None, extra_fds: Iterable[int] = ()) -> list[Ended]:
        """What has ended; empty after `timeout` seconds or when an extra fd is readable."""
        ...

    def output(self, job: str, attempt: int, offset: int, limit: int) -> bytes:
        """What a running job has printed, from `offset` on; empty if it is not running."""
        ...

    def close(self) -> None:
        """Kill what runs and leave nothing behind."""
        ...


class _Slot:
    """One slot process, and what it was given."""

    def __init__(self, folder: Path, nice: int) -> None:
        self.folder = folder
        self.tasks: dict[tuple[str, int], Task] = {}
        self.running: tuple[str, int] | None = None
        self.job_pid, self.started, self.ready = 0, 0.0, False
        self._backlog: deque[memoryview] = deque()
        self._reader = FrameReader()
        self.process = _start(folder, nice)
        self.inward, self.outward = self.process.stdout.fileno(), self.process.stdin.fileno()
        os.set_blocking(self.outward, False)
        _widen(self.inward, self.outward)

    @property
    def behind(self) -> bool:
        return bool(self._backlog)

    def send(self, pieces: list[bytes]) -> None:
        self._backlog.extend(memoryview(piece) for piece in pieces)
        self.pump()

    def pump(self) -> None:
        """Write what the pipe takes. That the slot is gone is seen when it is read."""
        try:
            while self._backlog:
                piece = self._backlog[0]
                written = os.write(self.outward, piece[:_CHUNK])
                self._backlog[0] = piece[written:]
                if not self._backlog[0]:
                    self._backlog.popleft()
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._backlog.clear()

    def read(self) -> list[Frame] | None:
        """Messages that have come; None when there will be no more."""
        data = os.read(self.inward, _CHUNK)
        try:
            return list(self._reader.feed(data)) if data else None
        except BadFormat:
            return None

    def hang_up(self) -> None:
        """The sign for a slot to end; it may still be killing its job."""
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass

    def bury(self, patience: float) -> None:
        """Wait for the end of the process, and bring it about if that takes too long."""
        self.hang_up()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.job_pid and self.process.returncode < 0:
            _kill_group(self.job_pid)


class SlotProcesses(Children):
    """Real slots, each in a folder of its own under `scratch`."""

    def __init__(self, slots: int, scratch: Path, nice: int = 0) -> None:
        self.slots, self._scratch, self._nice = slots, Path(scratch), nice
        self._roster: bytes | None = None
        self._slots: list[_Slot] = []
        try:
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sweep(self._scratch)
            for number in range(1, slots + 1):
                # Slots of a worker that was killed may still be clearing up: keep out of their way.
                folder = self._scratch / f"slot-{number}.{os.getpid()}"
                self._slots.append(_Slot(folder, nice))
        except OSError as error:
            self.close()
            raise DiskError(f"{scratch}: slots cannot be started: {error.strerror}") from None

    def __enter__(self) -> SlotProcesses:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def set_roster(self, text: bytes) -> None:
        self._roster = text
        for slot in self._slots:
            slot.send(frame({"do": "roster"}, text))

    def start(self, task: Task) -> None:
        slot = min(self._slots, key=lambda slot: len(slot.tasks))
        slot.tasks[task.job, task.attempt] = task
        slot.send(task.frame())

    def loads(self) -> list[int]:
        return [len(slot.tasks) for slot in self._slots]

    def stop(self, job: str, attempt: int) -> None:
        for slot in self._slots:
            if (job, attempt) in slot.tasks:
                slot.send(frame({"do": "stop", "job": job, "attempt": attempt}))

    def wait(self, timeout: float | None, extra_fds: Iterable[int] = ()) -> list[Ended]:
        extra = list(extra_fds)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            ready = self._select(extra, _left(end))
            heard = [self._listen(slot) for slot in list(self._slots) if slot.inward in ready]
            ended = [one for some in heard for one in some]
            if ended or ready.intersection(extra) or _left(end) == 0:
                return ended

    def _select(self, extra: list[int], timeout: float | None) -> set[int]:
        """The readable ones; writes what can be written."""
        reading = [slot.inward for slot in self._slots] + extra
        writing = {slot.outward: slot for slot in self._slots if slot.behind}
        readable, writable, _ = select.select(reading, list(writing), [], timeout)
        for number in writable:
            writing[number].pump()
        return set(readable)

    def _listen(self, slot: _Slot) -> list[Ended]:
        messages = slot.read()
        if messages is None:
            return self._replace(slot)
        try:
            return [ended for message in messages for ended in self._hear(slot, message)]
        except (KeyError, TypeError, ValueError):
            return self._replace(slot)  # no slot of ours talks like that

    def _hear(self, slot: _Slot, message: Frame) -> list[Ended]:
        header = message[0]
        if header["do"] == "ready":
            slot.ready = True
        elif header["do"] == "started":
            slot.running = (header["job"], header["attempt"])
            slot.job_pid, slot.started = header["pid"], header["at"]
        elif header["do"] == "ended":
            slot.running, slot.job_pid = None, 0
            ended = ended_of(message)
            if slot.tasks.pop((ended.job, ended.attempt), None) is not None:
                return [ended]
        return []

    def _replace(self, slot: _Slot) -> list[Ended]:
        """A slot has died: a new one in its place, its tasks to whoever has time."""
        slot.process.kill()
        slot.bury(_PATIENCE)
        if not slot.ready:
            raise SpoolError(
                f"a slot cannot start: {_last_words(slot.folder)}",
                f"try: {sys.executable} -m dsage_spool.runner.slot {slot.folder} 0",
            )
        place = self._slots.index(slot)
        fresh = self._slots[place] = _Slot(slot.folder, self._nice)
        if self._roster is not None:
            fresh.send(frame({"do": "roster"}, self._roster))
        lost = slot.tasks.pop(slot.running, None) if slot.running else None
        for task in slot.tasks.values():
            self.start(task)
        return [_killed(lost, slot.started)] if lost else []

    def output(self, job: str, attempt: int, offset: int, limit: int) -> bytes:
        name = STDOUT_NAME.format(job=job, attempt=attempt)
        for slot in self._slots:
            if (job, attempt) in slot.tasks:
                return _read_at(slot.folder / name, offset, limit)
        return b""

    def close(self) -> None:
        for slot in self._slots:
            slot.hang_up()
        for slot in self._slots:
            slot.bury(_PATIENCE)
            _remove(slot.folder)
            _remove_log(slot.folder)
        self._slots = []
        try:
            self._scratch.rmdir()
        except OSError:
            pass  # somebody keeps something there


def _killed(task: Task, started: float) -> Ended:
    why = "the job ended its own runner: its slot was killed while the job was running"
    wall = max(0.0, time.time() - started)
    return Ended(
        task.job, task.attempt, "killed", error=why, signal=int(signal.SIGKILL),
        started=started, wall_seconds=wall,
    )  # fmt: skip


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def _start(folder: Path, nice: int) -> subprocess.Popen[bytes]:
    """No credentials go along, and no terminal: ^C and hang-ups are the worker's affair."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    roots = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, roots))
    with open(_log(folder), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dsage_spool.runner.slot", str(folder.resolve()), str(nice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            cwd="/",  # python -m puts it on its path: jobs must not be able to write there
            env=environment,
            start_new_session=True,
        )


def _widen(*pipes: int) -> None:
    """Room for a small result or two, so that a slot seldom waits for a busy worker (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    import fcntl

    for pipe in pipes:
        try:
            fcntl.fcntl(pipe, 1031, _CHUNK)  # F_SETPIPE_SZ; Python names it from 3.10 on
        except OSError:
            pass  # the user's allowance of pipe memory is used up


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _log(folder: Path) -> Path:
    """Beside the folder, which the slot empties."""
    return folder.with_name(f"{folder.name}.log")


def _last_words(folder: Path) -> str:
    lines = _read_at(_log(folder), 0, 1 << 20).decode("utf-8", "replace").strip().split("\n")
    return clean(lines[-1]) or "it said nothing"


def _remove_log(folder: Path) -> None:
    try:
        os.unlink(_log(folder))
    except OSError:
        pass


def _sweep(scratch: Path) -> None:
    """Remove what workers have left that are no more."""
    for path in scratch.glob("slot-*.*"):
        pid = path.name.split(".")[1]
        if pid.isdigit() and not _is_alive(int(pid)):
            _remove(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(folder: Path) -> None:
    """What a slot that was killed has left."""
    try:
        wipe(str(folder))
        os.rmdir(folder)
    except (OSError, RecursionError):
        pass


def _read_at(path: Path, offset: int, limit: int) -> bytes:
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return b""
    try:
        return os.pread(opened, limit, offset)
    finally:
        os.close(opened)
