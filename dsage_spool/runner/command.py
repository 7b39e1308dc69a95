"""Command jobs: the child becomes another program; also the memory limit, which it needs for that.

The payload is JSON: {"argv": ["factor", "91"], "env": {"NAME": "value"}}, `env` may be missing.
Raises BadFormat for anything else.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys

from ..errors import BadFormat

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as in sh(1)
_MOST = 1 << 62  # bytes; more does not fit into a limit


def parse(data: bytes) -> tuple[list[str], dict[str, str]]:
    """Arguments and additions to the environment."""
    try:
        call = json.loads(data)
    except ValueError:
        raise BadFormat("payload: it is not the JSON of a command") from None
    argv = call.get("argv") if isinstance(call, dict) else None
    env = call.get("env", {}) if isinstance(call, dict) else None
    if not argv or not isinstance(argv, list) or not isinstance(env, dict):
        raise BadFormat('payload: it is not of the form {"argv": ["program", …], "env": {…}}')
    if not all(_is_plain(word) for word in (*argv, *env, *env.values())):
        raise BadFormat("payload: a word of the command is not text, or has a zero byte")
    return argv, env


def _is_plain(word: object) -> bool:
    return isinstance(word, str) and "\0" not in word


def become(argv: list[str], extra: dict[str, str], memory_limit: int) -> tuple[int, str]:
    """Does not return where the program starts; else an exit status and the reason."""
    environment = {**os.environ, **extra}
    path = shutil.which(argv[0], path=environment.get("PATH", os.defpath))
    if path is None:
        if os.sep in argv[0] and os.path.exists(argv[0]):
            return NOT_EXECUTABLE, f"{argv[0]}: it is not a program that may be run here"
        return NOT_FOUND, f"{argv[0]}: no such program on this worker"
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        if memory_limit:
            limit_memory(memory_limit, memory_limit)
        os.execve(path, argv, environment)
    except OSError as error:
        return NOT_EXECUTABLE, f"{argv[0]}: it cannot be run here: {error.strerror}"
    except ValueError as error:
        return NOT_EXECUTABLE, f"{argv[0]}: it cannot be run here: {error}"


def limit_memory(soft: int, hard: int) -> None:
    """Limit the address space, in bytes. Only Linux holds to it, so only there it must work."""
    soft, hard = min(soft, _MOST), min(hard, _MOST)
    highest = resource.getrlimit(resource.RLIMIT_AS)[1]
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    except (OSError, ValueError):
        if sys.platform.startswith("linux"):
            raise


def lift_memory() -> None:
    """Go up to the hard limit: room for a last word."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
