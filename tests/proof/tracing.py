"""Faults in one process by strace: the k-th system call of a name kills it, or fails.

`forked(act, fault)` runs `act` in a child, forked from a process that has imported everything and
has one thread; strace is attached before the first step of `act`, so its counters begin there. The
child tells over a socket, with calls that nobody counts. `Strange` if strace or the child does not
come to an end; whatever was started is ended by then. Needs Linux, and the right to trace children.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable

BOUND = 30.0  # seconds; only a hang comes near it
KINDS = ("KILL", "EIO", "ENOSPC")
OF_FILES = "%file,%desc"  # as strace calls them
# Of those: not about files, or the child's own wait for us.
NOT_OF_FILES = {"poll", "ppoll", "select", "mmap", "epoll_wait", "execve"}
_CALL = re.compile(r"(?:\[pid +\d+\] |\d+ +)?([a-z_0-9]+)\(")

READY = b"."

Tell = Callable[..., None]


class Strange(Exception):
    """Not a finding about the code under test: the tracing itself went wrong."""


@dataclass(frozen=True)
class Fault:
    """What happens at the `at`-th call (from 1) of one name, and at `more` calls after it."""

    call: str
    kind: str
    at: int
    more: int = 0

    def __str__(self) -> str:
        return f"{self.kind}{f' x{1 + self.more}' if self.more else ''} at {self.call} {self.at}"

    @property
    def options(self) -> list[str]:
        what = "signal=KILL" if self.kind == "KILL" else f"error={self.kind}"
        when = f"{self.at}..{self.at + self.more}" if self.more else str(self.at)
        return ["-e", f"trace={self.call}", "-e", f"inject={self.call}:{what}:when={when}"]


@dataclass
class Ran:
    """What came of a child: what it told, its end, and what strace has written."""

    told: list[list[Any]] = field(default_factory=list)
    killed: bool = False
    trace: list[str] = field(default_factory=list)

    @property
    def struck(self) -> bool:
        return self.killed or any("(INJECTED" in line for line in self.trace)

    def said(self, word: str) -> list[Any]:
        return [content for kind, content in self.told if kind == word]


def why_not() -> str:
    """Why no process can be traced here; empty if one can."""
    if not hasattr(os, "fork") or not os.path.exists("/proc/self/stat"):
        return "needs Linux"
    if not shutil.which("strace"):
        return "strace is not installed"
    try:
        ran = forked(lambda tell: os.stat("/"), Fault("%file", "KILL", 1))
    except Strange as error:
        return f"strace cannot trace a child here: {error}"
    return "" if ran.killed else "strace cannot kill a child here at a call"


def forked(act: Callable[[Tell], None], fault: Fault | None) -> Ran:
    """Run `act` in a child; without a fault, all its file-system calls are traced."""
    ours, theirs = socket.socketpair()
    ours.settimeout(BOUND)
    child = os.fork()
    if not child:
        _be_the_child(act, ours, theirs)
    theirs.close()
    ran = Ran()
    try:
        _under_strace(child, fault, ours, ran)
    finally:
        ours.close()
        _end(child, ran)
    return ran


def _be_the_child(act: Callable[[Tell], None], ours: socket.socket, line: socket.socket) -> None:
    """Be ready, wait to be traced, act, and never come back. Until then no call may be counted."""

    def tell(word: str, content: str = "") -> None:
        line.sendall(json.dumps([word, content]).encode() + b"\n")

    try:
        ours.close()
        waiting = select.poll()
        waiting.register(line.fileno(), select.POLLIN | select.POLLHUP)
        line.sendall(READY)
        waiting.poll()
        if line.recv(1):  # else whoever asked is gone
            act(tell)
    except BaseException as error:
        tell("broken", f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _under_strace(child: int, fault: Fault | None, line: socket.socket, ran: Ran) -> None:
    if line.recv(1) != READY:
        raise Strange("the child could not begin")
    options = fault.options if fault else ["-e", f"trace={OF_FILES}"]
    tracer = subprocess.Popen(
        ["strace", "-y", "-p", str(child), *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        first = tracer.stderr.readline()
        if "attached" not in first:
            raise Strange(first.strip() or "strace said nothing")
        line.sendall(b"!")
        ran.told = _all_told(line)
        ran.trace = tracer.communicate(timeout=BOUND)[1].splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Strange(f"no end within {BOUND:.0f} s: {error}") from None
    finally:
        if tracer.poll() is None:
            tracer.kill()
        tracer.wait()
        tracer.stderr.close()


def _all_told(line: socket.socket) -> list[list[Any]]:
    data = b""
    try:
        while chunk := line.recv(1 << 16):
            data += chunk
    except ConnectionResetError:
        pass  # killed with something unread
    return [json.loads(text) for text in data.split(b"\n")[:-1]]


def _end(child: int, ran: Ran) -> None:
    """It has ended, or is ended here."""
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            ran.killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            return
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise Strange("the child did not end")


def calls(trace: list[str], folder: str) -> tuple[Counter[str], list[str]]:
    """The file-system calls of a trace by name, and those of them that do not touch `folder`."""
    found: Counter[str] = Counter()
    elsewhere = []
    for text in trace:
        name = _CALL.match(text)
        if name and name[1] not in NOT_OF_FILES:
            found[name[1]] += 1
            if folder not in text:
                elsewhere.append(text)
    return found, elsewhere


if __name__ == "__main__":
    print(why_not())
