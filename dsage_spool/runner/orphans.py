"""Linux: nothing that a job has started outlives it; elsewhere its process group dies with it.

A slot adopts every process its jobs leave behind (PR_SET_CHILD_SUBREAPER, prctl(2)), so also those
that have made themselves daemons, and kills them until it has none. A child dies with its slot
(PR_SET_PDEATHSIG). Off Linux both are missing and `ADOPTS` is false.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

ADOPTS = sys.platform.startswith("linux")


def _prctl(option: int, value: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of all descendants that lose theirs."""
    if ADOPTS:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, its pid, ends; at once if it has."""
    if ADOPTS:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def kill_group(leader: int) -> None:
    """Kill a process and its group. Not reaped yet by the caller: so the pid is still its own."""
    for kill in (os.killpg, os.kill):
        try:
            kill(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def kill_all_children(count: Callable[[resource.struct_rusage], None]) -> None:
    """Kill and reap until this process has no child; `count` is told what each has used."""
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                for child in _children():
                    kill_group(child)
                _, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return
        count(usage)


def _children() -> list[int]:
    me = str(os.getpid()).encode()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == me]


def _parent(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program, in brackets, may hold anything: look behind it.
            return file.read().rpartition(b")")[2].split()[1]
    except (OSError, IndexError):
        return b""
