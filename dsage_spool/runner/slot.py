"""A slot: a warm process that runs one job after another, each in a forked child.

    python -m dsage_spool.runner.slot FOLDER NICE

stdin carries frames: `roster` (blob: its text), `task`, `stop`; their end means that the worker is
gone: the running job is killed, the folder removed, and the slot exits. stdout carries `ready`,
`started` and `ended`. Tasks may be sent ahead. The slot opens no payload and holds no credentials.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import sys
import time
from collections import deque
from typing import NoReturn

from ..errors import SpoolError
from ..records import Envelope
from ..signing import Roster
from . import child, orphans, source
from .rehearsal import rehearse
from .frames import Frame, FrameReader, frame
from .room import Room
from .running import STOPPED, Running
from .task import Ended, Task, task_of

_CHUNK = 1 << 20


class Slot:
    """The loop between the worker's frames and the running child."""

    def __init__(self, room: Room, inward: int, outward: int, woken: int) -> None:
        self._room, self._in, self._out, self._woken = room, inward, outward, woken
        self._reader = FrameReader()
        self._waiting: deque[Task] = deque()
        self._roster: Roster | None = None
        self._running: Running | None = None
        self._loaded: set[str] = set()

    def serve(self) -> None:
        """Until the worker is gone."""
        self._send(frame({"do": "ready", "pid": os.getpid()}))
        while self._turn():
            pass

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._running is not None:
            self._running.kill(STOPPED)
        if orphans.ADOPTS:
            orphans.kill_all_children(lambda usage: None)
        self._room.remove()

    def _turn(self) -> bool:
        if self._running is None and self._waiting:
            self._begin(self._waiting.popleft())
        pause = self._running.pause() if self._running else (0 if self._waiting else None)
        ready, _, _ = select.select([self._in, self._woken], [], [], pause)
        if self._woken in ready:
            os.read(self._woken, 4096)
        if self._running is not None:
            self._look()
        return self._in not in ready or self._read()

    def _look(self) -> None:
        self._running.watch()
        if self._running.ended:
            ended, self._running = self._running.finish(), None
            self._send(ended.frame())

    def _read(self) -> bool:
        data = os.read(self._in, _CHUNK)
        for message in self._reader.feed(data):
            self._obey(message)
        return bool(data)

    def _obey(self, message: Frame) -> None:
        header, blobs = message
        if header["do"] == "roster":
            self._roster = Roster.parse(blobs[0].decode("utf-8", "replace"))
        elif header["do"] == "task":
            self._waiting.append(task_of(message))
        elif header["do"] == "stop":
            self._stop(header["job"], header["attempt"])

    def _stop(self, job: str, attempt: int) -> None:
        """A job that is not here any more has ended, and the worker will read so."""
        running = self._running
        if running is not None and (running.task.job, running.task.attempt) == (job, attempt):
            running.kill(STOPPED)
            return
        for task in list(self._waiting):
            if (task.job, task.attempt) == (job, attempt):
                self._waiting.remove(task)
                self._send(Ended(job, attempt, STOPPED, error="stopped").frame())

    def _begin(self, task: Task) -> None:
        # Told first: should a preload kill the slot, the worker knows at whose door to lay it.
        self._tell_started(task, 0, time.time())
        try:
            unopened = child.read(task, self._roster)
            self._preload(task, unopened.envelope)
            self._running = Running(task, unopened, self._room)
        except SpoolError as error:
            refusal = Ended(task.job, task.attempt, "refused", error=error.message)
            self._send(refusal.frame())
        except OSError as error:
            why = f"the worker cannot start a process: {error.strerror}"
            self._room.clear()
            self._send(Ended(task.job, task.attempt, STOPPED, error=why).frame())
        else:
            self._tell_started(task, self._running.pid, self._running.started)

    def _tell_started(self, task: Task, pid: int, moment: float) -> None:
        header = {"do": "started", "job": task.job, "attempt": task.attempt}
        self._send(frame({**header, "pid": pid, "at": moment}))

    def _preload(self, task: Task, envelope: Envelope) -> None:
        """Import what this job will, so that the jobs after it find it imported."""
        wanted = {need.partition("=")[0] for need in envelope.needs} & {"numpy", "sympy"}
        if envelope.kind == "source":
            wanted.add("sympy")
        if b"cloudpickle" in task.payload:
            wanted.add("cloudpickle")
        for name in sorted(wanted - self._loaded):
            self._loaded.add(name)
            if name == "sympy":
                source.preload()
            else:
                _import_if_there(name)
            _settle_memory()

    def _send(self, pieces: list[bytes]) -> None:
        """Blocks while the worker does not read and the pipe is full; limits wait as long."""
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._out, view[:_CHUNK]) :]


def _import_if_there(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:
        pass  # the job will import it and show what is wrong


def _settle_memory() -> None:
    """Keep the collector away from what children share with us: looking would copy it."""
    gc.collect()
    gc.freeze()


def _take_pipes() -> tuple[int, int]:
    """stdin and stdout under other numbers, so that no stray print gets between the frames."""
    inward, outward = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return inward, outward


def _wake_on_children() -> int:
    """A pipe that is readable once a child has ended."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    return reading


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)


def main() -> None:
    """One slot, as started by `children.SlotProcesses`."""
    folder, nice = sys.argv[1], int(sys.argv[2])
    inward, outward = _take_pipes()
    signal.signal(signal.SIGTERM, _leave)
    os.nice(nice)
    orphans.adopt_orphans()
    child.prepare_surroundings()
    rehearse()
    slot = Slot(Room(folder), inward, outward, _wake_on_children())
    _settle_memory()
    try:
        slot.serve()
    except BrokenPipeError:
        pass  # the worker is gone
    finally:
        slot.abandon()


if __name__ == "__main__":
    main()
