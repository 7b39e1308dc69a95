"""One job under way, as its slot sees it: forked, watched, ended, judged.

The slot enforces the limits from outside, so a job cannot ignore them: its group is killed, and on
Linux every process that it left behind. How a job ended is decided by, in this order: a stop, the
output limit, the child's report, the time limit, the signal or the exit status.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from .. import layout
from ..text import clean
from . import child, orphans
from .room import Room
from .task import Ended, Task

if TYPE_CHECKING:
    from ..payload import Unopened

STOPPED, TIME, OUTPUT = "returned", "time-limit", "output-limit"
# Outcomes that a child may report; the others are for the slot to find.
_TOLD = ("ok", "raised", "exited", "refused", "memory-limit")
_LOOK = 0.2  # seconds between two looks at what was printed
_LONGEST = 600.0  # seconds; select takes no very large ones
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class Running:
    """From the fork to `finish`. Raises OSError where no process can be made."""

    def __init__(self, task: Task, unopened: Unopened, room: Room) -> None:
        self.task, self._envelope, self._room = task, unopened.envelope, room
        self._cause = ""
        self._status: int | None = None
        self._cpu, self._peak = 0.0, 0
        room.prepare(task.job, task.attempt)
        self.started, self._began = time.time(), time.monotonic()
        slot = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            child.live(task, unopened, room, slot)

    @property
    def ended(self) -> bool:
        return self._status is not None

    def watch(self) -> None:
        """See whether it has ended, or must."""
        self._reap()
        if self.ended or self._cause:
            return
        limits = self._envelope
        if limits.time_limit and self._elapsed() >= limits.time_limit:
            self.kill(TIME)
        elif limits.output_limit and self._room.printed() > limits.output_limit:
            self.kill(OUTPUT)

    def pause(self) -> float:
        """Seconds after which `watch` is due even if nothing happens."""
        looks = [_LOOK if self._envelope.output_limit else _LONGEST]
        if self._envelope.time_limit:
            looks.append(max(0.0, self._envelope.time_limit - self._elapsed()))
        return min(looks)

    def kill(self, cause: str) -> None:
        if not self.ended:
            self._cause = cause
            orphans.kill_group(self.pid)

    def finish(self) -> Ended:
        """Clear away what is left of it, and judge."""
        wall = self._elapsed()
        if orphans.ADOPTS:
            orphans.kill_all_children(self._count)
        else:
            orphans.kill_group(self.pid)
        report = self._judge()
        ended = Ended(
            job=self.task.job,
            attempt=self.task.attempt,
            parts=self._parts(report.pop("traceback", ""), report["outcome"]),
            started=self.started,
            wall_seconds=wall,
            cpu_seconds=self._cpu,
            peak_memory=self._peak,
            **report,
        )
        self._room.clear()
        return ended

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _reap(self) -> None:
        """Also orphans of the job, which end as children of the slot."""
        while not self.ended:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._count(usage)
            if pid == self.pid:
                self._status = status

    def _count(self, usage: resource.struct_rusage) -> None:
        self._cpu += usage.ru_utime + usage.ru_stime
        self._peak = max(self._peak, usage.ru_maxrss * _PEAK_UNIT)

    def _judge(self) -> dict[str, Any]:
        limits = self._envelope
        stage, told = self._room.told()
        report = _checked(told) if told is not None else None
        if self._cause == STOPPED:
            return {"outcome": STOPPED, "error": "stopped"}
        too_much = limits.output_limit and self._room.printed() > limits.output_limit
        if self._cause == OUTPUT or too_much:
            return {"outcome": OUTPUT, "error": f"printed more than {limits.output_limit} bytes"}
        if report is not None:
            return report
        if self._cause == TIME:
            return {"outcome": TIME, "error": f"ran longer than {limits.time_limit} seconds"}
        return _judge_status(os.waitstatus_to_exitcode(self._status or 0), stage)

    def _parts(self, traceback: str, outcome: str) -> dict[str, bytes]:
        parts = self._room.outputs(self._envelope.output_limit)
        if outcome == "ok":
            parts[layout.RESULT] = self._room.result_bytes()
        parts[layout.TRACEBACK] = traceback.encode("utf-8", "backslashreplace")
        return {name: data for name, data in parts.items() if data}


def _checked(report: dict[str, Any]) -> dict[str, Any] | None:
    """What a child may say of itself; a job that writes its own report cannot say more."""
    texts = {key: str(report.get(key, "")) for key in ("error", "value", "codec")}
    told: dict[str, Any] = {key: clean(text) for key, text in texts.items()}
    if report["outcome"] not in _TOLD or not isinstance(report.get("exit", 0), int):
        return None
    told["traceback"] = str(report.get("traceback", ""))
    return {**told, "outcome": report["outcome"], "exit": report.get("exit", 0) & 0xFF}


def _judge_status(code: int, stage: str) -> dict[str, Any]:
    """Of a child that left no report; `code` is negative for a signal."""
    if code < 0:
        return {"outcome": "killed", "signal": -code, "error": _death(-code, stage)}
    if stage == child.COMMAND:
        if code == 0:
            return {"outcome": "ok"}
        return {"outcome": "exited", "exit": code, "error": f"exit status {code}"}
    error = f"the job ended its own process with status {code}, before it returned"
    return {"outcome": "exited", "exit": code, "error": error}


def _death(number: int, stage: str) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if stage == child.LOADING:
        return f"killed by {name} while loading the payload: was it pickled by another Python?"
    if number == signal.SIGKILL:
        return f"killed by {name}, and not by the worker: was the machine out of memory?"
    return f"killed by {name}"
