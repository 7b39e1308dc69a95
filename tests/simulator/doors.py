"""What the shipped code is given in place of files, events and child processes."""

from __future__ import annotations

import pickle
from collections import deque
from typing import Any, Callable

from dsage_spool import layout
from dsage_spool.children import Children, Ended, Task
from dsage_spool.errors import SpoolError
from dsage_spool.files import LocalFiles
from dsage_spool.runner import child
from dsage_spool.signing import Roster

from .disk import Disk
from .machines import Process
from .network import told

QUICK, FLUSH = 2e-4, 2e-3  # seconds that an operation takes at most
_TEARS = ("write", "rewrite", "append")


class HostFiles(LocalFiles):
    """A disk of the process's own machine. The fault of the process strikes at one operation:
    `before` it, `after` it, or in its middle (`torn`), or the disk fails (`error`, `full`)."""

    def __init__(self, process: Process, disk: Disk, trouble: Callable[[], Any] = lambda: None) -> None:
        self._process, self._disk, self._trouble = process, disk, trouble

    def _do(self, name: str, *arguments: Any) -> Any:
        process, sim = self._process, self._process.sim
        strikes = process.counts()
        process.spend(sim.chance.random() * (FLUSH if name.startswith("sync") else QUICK))
        try:
            if strikes:
                self._strike(process.fault, name, arguments)
            trouble = self._trouble()
            if trouble:
                trouble(name, arguments)
            outcome = getattr(self._disk, name)(*arguments)
            if name in _TEARS:
                self._disk.on_write(*arguments)
        except SpoolError as error:
            if sim.story is not None:
                sim.tell(process.name, told(name, arguments, error))
            raise
        if sim.story is not None:
            sim.tell(process.name, told(name, arguments, None))
        if strikes and process.fault == "after":
            process.die()
        return outcome

    def _strike(self, fault: str, name: str, arguments: tuple) -> None:
        if fault == "torn" and name in _TEARS:
            path, data = arguments
            getattr(self._disk, name)(path, data[: len(data) // 2])
        if fault in ("before", "torn"):
            self._process.die()
        if fault == "freeze":
            self._process.freeze()


def _operation(name: str):
    def operation(self, *arguments):
        return self._do(name, *arguments)

    return operation


for _name in (
    "names", "stat", "read", "read_from", "write", "rewrite", "append", "resize", "link", "move",
    "make_folder", "remove", "remove_tree", "sync", "sync_all", "now",
):  # fmt: skip
    setattr(HostFiles, _name, _operation(_name))


class Wake:
    """Events of the drop boxes, some of which are lost; `deaf` loses all."""

    def __init__(self, process: Process, lost: float) -> None:
        self._process, self._lost = process, lost
        self._waiting: tuple | None = None

    def wait(self, timeout: float) -> None:
        task = self._process.task
        self._waiting = (task, task.ticket)
        self._process.pause(timeout / self._process.machine.rate)
        self._waiting = None

    def notice(self) -> None:
        sim = self._process.sim
        if self._waiting and sim.chance.random() >= self._lost:
            (task, ticket), self._waiting = self._waiting, None
            sim.after(5e-4, task.wake, ticket, None)


class Slots(Children):
    """Child processes: they check each job as the real ones do, and take the time it says.

    A payload is `seconds value what`; `what` is ok, raises, or kills (the worker that runs it).
    """

    def __init__(self, process: Process, count: int, began: Callable[..., None]) -> None:
        self.slots, self._process, self._began = count, process, began
        self._roster: Roster | None = None
        self._waiting: deque[Task] = deque()
        self._running: dict[tuple[str, int], tuple[Task, float]] = {}
        self._ended: list[Ended] = []
        self._waiter: tuple | None = None

    def set_roster(self, text: bytes) -> None:
        self._roster = Roster.parse(text.decode("utf-8", "replace"))

    def start(self, task: Task) -> None:
        self._waiting.append(task)
        self._begin_some()

    def _begin_some(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            self._begin(self._waiting.popleft())

    def _begin(self, task: Task) -> None:
        try:
            verified = child.read(task, self._roster).verified()
        except SpoolError as error:
            return self._end(Ended(task.job, task.attempt, "refused", error=error.message))
        sim, key = self._process.sim, (task.job, task.attempt)
        seconds, value, what = verified.data.decode().split()
        self._began(task, verified.record.submitter)
        sim.tell(self._process.name, f"runs {task.job} attempt {task.attempt}")
        if what == "kills":
            return sim.after(0.01, self._process.kill)
        self._running[key] = (task, sim.now)
        sim.after(float(seconds), self._finish, key, sim.now, int(value), what)

    def _finish(self, key: tuple[str, int], since: float, value: int, what: str) -> None:
        task, started = self._running.get(key, (None, -1.0))
        if task is None or started != since or not self._process.alive:
            return
        del self._running[key]
        parts = {"stdout": b"out\n", "result": pickle.dumps(value)}
        if what == "raises":
            parts = {"traceback": b"Traceback\n"}
        outcome = "ok" if what == "ok" else "raised"
        self._end(
            Ended(*key, outcome, started=1.0, error="" if what == "ok" else "ValueError: no",
                  value=str(value), codec="pickle" if what == "ok" else "",
                  wall_seconds=self._process.sim.now - since, parts=parts)
        )  # fmt: skip
        self._begin_some()

    def _end(self, ended: Ended) -> None:
        self._ended.append(ended)
        if self._waiter:
            (task, ticket), self._waiter = self._waiter, None
            self._process.sim.after(0.0, task.wake, ticket, None)

    def loads(self) -> list[int]:
        total = len(self._running) + len(self._waiting)
        return [(total + place) // self.slots for place in range(self.slots)]

    def stop(self, job: str, attempt: int) -> None:
        running = self._running.pop((job, attempt), None)
        if running:
            wall = max(1e-6, self._process.sim.now - running[1])
            self._end(Ended(job, attempt, "returned", error="stopped", wall_seconds=wall))
            return self._process.sim.after(0.0, self._begin_some)
        for task in list(self._waiting):
            if (task.job, task.attempt) == (job, attempt):
                self._waiting.remove(task)
                self._end(Ended(job, attempt, "returned", error="stopped"))

    def wait(self, timeout: float | None, extra_fds: Any = ()) -> list[Ended]:
        if not self._ended and timeout:
            task = self._process.task
            self._waiter = (task, task.ticket)
            self._process.pause(timeout / self._process.machine.rate)
            self._waiter = None
        elif not self._ended:
            self._process.spend(1e-5)
        ended, self._ended = self._ended, []
        return ended

    def output(self, job: str, attempt: int, offset: int, limit: int) -> bytes:
        running = self._running.get((job, attempt))
        if running is None:
            return b""
        return b"." * max(0, int(self._process.sim.now - running[1]) - offset)

    def close(self) -> None:
        self._running.clear()
        self._waiting.clear()
