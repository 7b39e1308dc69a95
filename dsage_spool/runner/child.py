"""The forked child: shuts itself in, verifies the job, runs it, and reports. The only process that
opens a payload.

`live` never returns. The child writes its stage to the report file before each step that may kill
it, and at the end one line of JSON, the report: also of a job that was refused or raised. Where
there is none, the slot judges by the exit status. The result is in its file before the report is.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from .. import payload
from ..errors import BadSignature, Refused, SpoolError
from ..needs import python_token
from ..preview import preview
from ..records import Envelope
from ..text import clean
from . import command, orphans, source
from .room import Room
from .task import Task

if TYPE_CHECKING:
    from ..signing import Roster

LOADING, RUNNING, COMMAND = "loading", "running", "command"
Report = dict[str, Any]

_REPORT, _RESULT = 3, 4  # where the child has these files open
_MOST_FILES = 4096  # numbers of open files that a slot never reaches
_RESERVE = 64 << 20  # bytes of memory over the limit, for the report on having reached it
_TRACEBACK_LIMIT = 200_000  # characters
_OURS = tuple(module.__file__ for module in (payload, source)) + (__file__,)


def read(task: Task, roster: Roster | None) -> payload.Unopened:
    """What the slot does before it forks: read all, prove nothing. Refused, BadFormat, BadSignature.

    The pages it writes to are then not copied for the child, who does the check itself.
    """
    if roster is None:
        raise Refused("roster: there is none, so nobody is trusted")
    signature = task.signature.decode("ascii", "replace")
    found = payload.unopened(task.envelope, signature, task.payload, roster, time.time())
    if found.envelope.job != task.job:
        raise BadSignature("envelope: it is the envelope of another job")
    if task.spool and found.envelope.spool != task.spool:
        raise BadSignature("envelope: it was signed for another spool")
    for need in found.envelope.needs:
        if need.startswith("python=") and need != python_token():
            raise Refused(f"python: the job needs {need}, and this is {python_token()}")
    return found


def live(task: Task, unopened: payload.Unopened, room: Room, parent: int) -> NoReturn:
    """The whole life of the child; ends in _exit."""
    status = 70
    try:
        me = os.getpid()
        try:
            _shut_in(task, room, parent)
            _limit_memory(unopened.envelope)
        except Exception as error:
            report = _refused(f"the runner could not start the job: {error}")
            os.write(room.report, _line(report))
            os._exit(status)
        report = _run(unopened)
        if os.getpid() == me:  # and not a fork that the job made and let go on
            _flush()
            _tell(report)
            status = 0
    finally:
        os._exit(status)


# --- shutting in ---


def _shut_in(task: Task, room: Room, parent: int) -> None:
    _default_signals()
    orphans.die_with_parent(parent)
    os.setsid()
    _own_files(room)
    _set_environment(task, room.work)
    os.chdir(room.work)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source.shuffle_anew()
    sys.modules["__main__"] = types.ModuleType("__main__")


def _default_signals() -> None:
    """As a fresh process has them; the slot itself handles few, since undoing costs each child."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def prepare_surroundings() -> None:
    """What all children of a slot have in common, made once in the slot, before it forks them.

    Each page that a child writes to is copied for it, so what is made here costs a child nothing.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    os.environ.clear()
    os.environ.update({"PATH": os.defpath, "LANG": "C.UTF-8", **kept})
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = _printer(1)
    sys.stderr = sys.__stderr__ = _printer(2)
    faulthandler.enable(2)


def _printer(number: int) -> io.TextIOWrapper:
    raw = open(number, "wb", closefd=False)
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)


def _own_files(room: Room) -> None:
    """0 is empty already; what the slot has open beside its room is closed."""
    for number, opened in enumerate((room.out, room.err, room.report, room.result), 1):
        os.dup2(opened, number, inheritable=number < 3)
    os.closerange(_RESULT + 1, _MOST_FILES)


def _set_environment(task: Task, work: str) -> None:
    os.environ["HOME"] = os.environ["TMPDIR"] = work
    os.environ["DSAGE_SPOOL_JOB"] = task.job
    os.environ["DSAGE_SPOOL_ATTEMPT"] = str(task.attempt)


def _limit_memory(envelope: Envelope) -> None:
    """The address space may grow by the limit from here on; a command begins with none."""
    if not envelope.memory_limit or envelope.kind == "command":
        return
    soft = envelope.memory_limit + _size_now()
    command.limit_memory(soft, soft + _RESERVE)


def _size_now() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 256 << 20  # no Linux: a guess, on the generous side


# --- running ---


def _run(unopened: payload.Unopened) -> Report:
    try:
        verified = unopened.verified()
    except SpoolError as error:
        return _refused(error.message)
    runs = {"call": _run_call, "source": _run_source, "command": _run_command}
    return runs[verified.record.kind](verified, verified.record)


def _run_call(verified: payload.Verified, envelope: Envelope) -> Report:
    _stage(LOADING)
    try:
        function, args, kwargs = payload.load_call(verified)
    except BaseException as error:
        return _raised(error, envelope, "the payload cannot be loaded: ")
    _stage(RUNNING)
    return _outcome(lambda: function(*args, **kwargs), envelope)


def _run_source(verified: payload.Verified, envelope: Envelope) -> Report:
    try:
        text = verified.data.decode()
    except UnicodeDecodeError:
        return _refused("payload: it is not UTF-8 text")
    _stage(RUNNING)
    return _outcome(lambda: source.run(text, f"<{envelope.job}>"), envelope)


def _run_command(verified: payload.Verified, envelope: Envelope) -> Report:
    try:
        argv, extra = command.parse(verified.data)
    except SpoolError as error:
        return _refused(error.message)
    _stage(COMMAND)
    status, error = command.become(argv, extra, envelope.memory_limit)
    return {"outcome": "exited", "exit": status, "error": clean(error)}


def _outcome(run: Callable[[], Any], envelope: Envelope) -> Report:
    try:
        value = run()
    except SystemExit as error:
        if error.code not in (None, 0):
            return _exited(error.code)
        value = None
    except BaseException as error:
        return _raised(error, envelope)
    # From here on __main__ is nobody's, so that pickle cannot refer to what only this process has.
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        return _send(value)
    except BaseException as error:
        return _raised(error, envelope)


def _send(value: object) -> Report:
    codec, data = payload.dump_value(value)
    return {"outcome": "ok", "codec": codec, "value": preview(value), "result": data}


# --- reports ---


def _refused(why: str) -> Report:
    return {"outcome": "refused", "error": clean(why)}


def _exited(code: object) -> Report:
    """As Python itself does it: a number is the status, anything else a last word and status 1."""
    if isinstance(code, int):
        return {"outcome": "exited", "exit": code & 0xFF, "error": f"sys.exit({code & 0xFF})"}
    print(code, file=sys.stderr)
    return {"outcome": "exited", "exit": 1, "error": _one_line(code)}


def _raised(error: BaseException, envelope: Envelope, before: str = "") -> Report:
    if isinstance(error, MemoryError) and envelope.memory_limit:
        traceback.clear_frames(error.__traceback__)
        command.lift_memory()
        why = f"out of memory: its memory limit is {envelope.memory_limit} bytes"
        return {"outcome": "memory-limit", "error": why, "traceback": _traceback(error)}
    if isinstance(error, SpoolError):
        line = _one_line(error.message)
    else:
        line = f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")
    return {"outcome": "raised", "error": clean(before + line), "traceback": _traceback(error)}


def _one_line(thing: object) -> str:
    try:
        return clean(" ".join(str(thing)[:2000].split()))
    except Exception as error:
        return f"its text raised {type(error).__name__}"


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _OURS:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception as other:
        text = f"no traceback: writing it raised {type(other).__name__}\n"
    return text[-_TRACEBACK_LIMIT:]


def _stage(name: str) -> None:
    os.write(_REPORT, name.encode() + b"\n")


def _tell(report: Report) -> None:
    """The result first: a whole report says that the result is whole."""
    _write(_RESULT, report.pop("result", b""))
    _write(_REPORT, _line(report))


def _line(report: Report) -> bytes:
    return json.dumps(report).encode() + b"\n"


def _write(opened: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(opened, view) :]


def _flush() -> None:
    """What was printed and still waits, in Python and in C."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the job may have closed or replaced it
    import ctypes

    ctypes.CDLL(None).fflush(None)
