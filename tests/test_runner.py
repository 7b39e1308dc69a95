"""Jobs in real child processes: how each way to end is reported, and what a job cannot do."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from dataclasses import replace

import pytest

from dsage_spool import payload
from dsage_spool.children import Task
from signed_jobs import (
    MALLORY, SPOOL, by_value, call, collect, is_gone, make_task, run, slots, source, value_of,
)  # fmt: skip

by_value(__name__)
on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="this rests on Linux: subreaper, RLIMIT_AS"
)


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    with slots(1, tmp_path_factory.mktemp("slots")) as children:
        yield children


# --- calls ---


def test_a_call_returns_its_value(children):
    ended = run(children, call(lambda a, b=1: a * b, 6, b=7))
    assert value_of(ended) == 42
    assert (ended.value, ended.codec, ended.attempt) == ("42", "pickle", 1)
    assert set(ended.parts) == {"result"}


def test_what_a_job_used_is_measured(children):
    def work():
        hog = bytearray(100 << 20)
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        return len(hog)

    before = time.time()
    ended = run(children, call(work))
    assert before - 1 <= ended.started <= time.time() + 1
    assert ended.wall_seconds >= 0.1 and ended.cpu_seconds >= 0.1
    assert 100 << 20 < ended.peak_memory < 1 << 30


def test_an_exception_is_raised_with_its_traceback(children):
    def inner():
        raise ValueError("seven\nlines")

    def outer():
        inner()

    ended = run(children, call(outer))
    assert (ended.outcome, ended.error) == ("raised", "ValueError: seven lines")
    text = ended.parts["traceback"].decode()
    assert text.startswith("Traceback") and "in outer" in text and "in inner" in text
    assert "runner/child.py" not in text and "result" not in ended.parts


def test_a_result_that_cannot_be_sent_is_told(children):
    ended = run(children, call(lambda: (x for x in ())))
    assert ended.outcome == "raised"
    assert ended.error.startswith("the result cannot be sent: TypeError: cannot pickle 'generator'")


def test_output_never_decides_success(children):
    def shout():
        print("Error Traceback (most recent call last): failed")
        print("Killed", file=sys.stderr)

    ended = run(children, call(shout))
    assert (ended.outcome, ended.value) == ("ok", "None")
    assert ended.parts["stdout"] == b"Error Traceback (most recent call last): failed\n"
    assert ended.parts["stderr"] == b"Killed\n"


def test_output_of_c_code_and_of_subprocesses_is_kept(children):
    def speak():
        import ctypes
        import subprocess

        ctypes.CDLL(None).puts(b"from C")
        subprocess.run(["echo", "from a program"], check=True)

    lines = run(children, call(speak)).parts["stdout"].splitlines()
    assert sorted(lines) == [b"from C", b"from a program"]


@pytest.mark.parametrize(
    "code, outcome, status",
    [(0, "ok", 0), (None, "ok", 0), (3, "exited", 3), ("bad news", "exited", 1)],
)
def test_sys_exit_is_a_status(children, code, outcome, status):
    ended = run(children, call(sys.exit, code))
    assert (ended.outcome, ended.exit) == (outcome, status)
    if code == "bad news":
        assert ended.error == "bad news" and ended.parts["stderr"] == b"bad news\n"


@pytest.mark.parametrize("status", [0, 3])
def test_a_job_that_ends_its_process_has_failed(children, status):
    ended = run(children, call(os._exit, status))
    assert (ended.outcome, ended.exit) == ("exited", status)
    assert "before it returned" in ended.error


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGTERM", "SIGKILL"])
def test_a_signal_kills_and_is_named(children, name):
    def die():
        if name == "SIGSEGV":
            import ctypes

            ctypes.string_at(0)
        if name == "SIGABRT":
            os.abort()
        os.kill(os.getpid(), getattr(signal, name))

    ended = run(children, call(die))
    assert (ended.outcome, ended.signal) == ("killed", getattr(signal, name))
    assert ended.error.startswith(f"killed by {name}")


def test_a_keyboard_interrupt_of_its_own_is_an_exception(children):
    ended = run(children, call(lambda: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)))
    assert (ended.outcome, ended.error) == ("raised", "KeyboardInterrupt")


def test_a_death_while_loading_asks_for_the_other_python(children):
    import ctypes

    class Crash:
        def __reduce__(self):
            return ctypes.string_at, (0,)

    ended = run(children, make_task("call", pickle.dumps(Crash())))
    assert (ended.outcome, ended.signal) == ("killed", signal.SIGSEGV)
    assert ended.error == (
        "killed by SIGSEGV while loading the payload: was it pickled by another Python?"
    )


def test_a_payload_that_does_not_load_says_so(children):
    ended = run(children, make_task("call", b"cno_such_module\nname\n."))
    assert (ended.outcome, ended.error) == (
        "raised",
        "the payload cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
    )


def test_a_fork_that_a_job_lets_go_on_reports_nothing(children):
    def split():
        return "child" if os.fork() == 0 else os.wait()[0] and "parent"

    assert value_of(run(children, call(split))) == "parent"


# --- trust ---


def trap(path):
    class Trap:
        def __reduce__(self):
            return open, (str(path), "w")

    return pickle.dumps(Trap())


def test_the_trap_springs_when_it_is_properly_signed(children, tmp_path):
    run(children, make_task("call", trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def swap_payload(task: Task) -> Task:
    return replace(task, payload=task.payload.replace(b"sprung", b"sprong"))


def swap_name(task: Task) -> Task:
    return replace(task, job=task.job[:-1] + ("0" if task.job[-1] != "0" else "1"))


TAMPERINGS = {
    "payload": swap_payload,
    "longer payload": lambda task: replace(task, payload=task.payload + b"."),
    "envelope": lambda task: replace(
        task, envelope=task.envelope.replace(b"kind: call", b"title: x\nkind: call")
    ),
    "torn envelope": lambda task: replace(task, envelope=task.envelope[:-1]),
    "signature": lambda task: replace(task, signature=task.signature.replace(b"U1NIU0", b"U1NIU1")),
    "no signature": lambda task: replace(task, signature=b"\xff"),
    "name": swap_name,
}


@pytest.mark.parametrize("part", TAMPERINGS)
def test_what_is_tampered_with_never_reaches_pickle(children, tmp_path, part):
    task = TAMPERINGS[part](make_task("call", trap(tmp_path / "sprung")))
    ended = run(children, task)
    assert ended.outcome == "refused" and ended.error
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_another_spool_never_reaches_pickle(children, tmp_path):
    task = make_task("call", trap(tmp_path / "sprung"))
    ended = run(children, replace(task, spool="another"))
    assert (ended.outcome, ended.error) == (
        "refused", "envelope: it was signed for another spool"
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    assert value_of(run(children, replace(call(abs, -1), spool=SPOOL))) == 1


def test_a_stranger_s_job_never_reaches_pickle(children, tmp_path):
    ended = run(children, make_task("call", trap(tmp_path / "sprung"), signer=MALLORY))
    assert ended.outcome == "refused" and "not in the roster" in ended.error
    assert list(tmp_path.iterdir()) == []


def test_a_call_for_another_python_never_reaches_pickle(children, tmp_path):
    task = make_task("call", trap(tmp_path / "sprung"), needs=("python=cpython-1",))
    ended = run(children, task)
    assert ended.outcome == "refused"
    assert ended.error == (
        f"python: the job needs python=cpython-1, and this is {payload.python_token()}"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_a_roster_nobody_is_trusted(tmp_path):
    from dsage_spool.children import SlotProcesses

    with SlotProcesses(1, tmp_path / "scratch") as bare:
        ended = run(bare, call(print))
    assert ended.outcome == "refused"
    assert ended.error == "roster: there is none, so nobody is trusted"


def test_a_job_has_no_credentials(tmp_path, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere/agent")
    monkeypatch.setenv("DSAGE_SPOOL_KEY", "/nowhere/key")

    def look():
        with open(f"/proc/{os.getppid()}/environ") as file:
            environ = file.read()
        return dict(os.environ), environ, os.listdir("/proc/self/fd")

    with slots(1, tmp_path) as children:
        task = call(look)
        own, parents, files = value_of(run(children, task))
    assert set(own) <= {
        "PATH", "LANG", "HOME", "TMPDIR", "DSAGE_SPOOL_JOB", "DSAGE_SPOOL_ATTEMPT"
    }  # fmt: skip
    assert (own["DSAGE_SPOOL_JOB"], own["DSAGE_SPOOL_ATTEMPT"]) == (task.job, "1")
    assert own["HOME"] == own["TMPDIR"] and own["HOME"].endswith("/work")
    assert "nowhere" not in parents
    assert len(files) <= 6  # three streams, report, result, and the listing itself


# --- limits ---


def test_a_time_limit_ends_a_job_that_ignores_signals(children):
    def stubborn():
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        print("still here", flush=True)
        while True:
            time.sleep(1)

    ended = run(children, call(stubborn, limits={"time_limit": 1}))
    assert (ended.outcome, ended.error) == ("time-limit", "ran longer than 1 seconds")
    assert ended.wall_seconds >= 1 and ended.parts["stdout"] == b"still here\n"


@on_linux
def test_a_memory_limit_is_kept_and_named(children):
    ended = run(children, call(bytearray, 1 << 30, limits={"memory_limit": 128 << 20}))
    assert ended.outcome == "memory-limit"
    assert ended.error == f"out of memory: its memory limit is {128 << 20} bytes"
    assert "MemoryError" in ended.parts["traceback"].decode()


@on_linux
def test_a_result_under_the_memory_limit_gets_through(children):
    ended = run(children, call(bytes, 16 << 20, limits={"memory_limit": 256 << 20}))
    assert len(value_of(ended)) == 16 << 20


@on_linux
def test_a_memory_error_is_reported_even_if_memory_is_full_of_small_things(children):
    def fill():
        pile = []
        while True:
            pile.append(bytes(1000))

    ended = run(children, call(fill, limits={"memory_limit": 64 << 20}))
    assert ended.outcome == "memory-limit"


def test_a_memory_error_without_a_limit_is_an_exception(children):
    def claim():
        raise MemoryError

    assert run(children, call(claim)).outcome == "raised"


def test_an_output_limit_ends_a_flood_and_keeps_its_beginning(children):
    def flood():
        sys.stderr.write("first\n")
        while True:
            os.write(1, b"x" * 1000)
            time.sleep(0.0001)

    ended = run(children, call(flood, limits={"output_limit": 10_000}))
    assert (ended.outcome, ended.error) == ("output-limit", "printed more than 10000 bytes")
    out = ended.parts["stdout"]
    assert out.startswith(b"xxx") and out.endswith(b"the output limit is 10000 bytes]\n")
    assert len(out) < 10_200 and ended.parts["stderr"] == b"first\n"


def test_an_output_limit_holds_for_a_job_that_is_quick(children):
    ended = run(children, call(print, "x" * 2000, limits={"output_limit": 1000}))
    assert ended.outcome == "output-limit" and "result" not in ended.parts


def daemonize(path):
    """A grandchild that nobody waits for, in a session of its own; answers with its pid."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, b"%d\n" % os.getpid())
            time.sleep(600)
        os._exit(0)
    os.wait()
    return int(os.read(reading, 20))


@on_linux
def test_a_daemon_dies_with_its_job(children):
    pid = value_of(run(children, call(daemonize, "")))
    assert is_gone(pid)


@on_linux
def test_a_whole_tree_dies_with_its_job(children):
    def plant():
        import subprocess

        shell = subprocess.Popen(
            ["sh", "-c", "sleep 600 & echo $!; setsid sleep 600 & echo $!; wait"],
            stdout=subprocess.PIPE,
        )
        return [shell.pid, int(shell.stdout.readline()), int(shell.stdout.readline())]

    assert all(map(is_gone, value_of(run(children, call(plant)))))


# --- between jobs ---


def test_nothing_leaks_into_the_next_job(children):
    def stain():
        import builtins

        builtins.stain = sys.stain = os.environ["STAIN"] = "stain"
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.makedirs("deep/er")
        open("deep/er/file", "w").close()
        os.symlink("/", "link")
        os.chmod("deep", 0)
        os.umask(0)

    def look():
        import builtins

        marks = hasattr(builtins, "stain"), hasattr(sys, "stain"), "STAIN" in os.environ
        umask = os.umask(0)
        return marks, os.listdir("."), signal.getsignal(signal.SIGTERM), umask

    assert run(children, call(stain)).outcome == "ok"
    assert value_of(run(children, call(look))) == (
        (False, False, False), [], signal.SIG_DFL, 0o077
    )  # fmt: skip


def test_a_job_that_removes_its_work_folder_harms_nobody(children):
    def vandal():
        here = os.getcwd()
        os.rmdir(here)
        os.symlink("/usr", here)

    assert run(children, call(vandal)).outcome == "ok"
    assert value_of(run(children, call(os.listdir, "."))) == []
    assert os.path.isdir("/usr/bin")


def test_jobs_have_random_numbers_of_their_own(children):
    text = "import random\nfrom sympy.core.random import rng\n(random.random(), rng.random())"
    first, second = (value_of(run(children, source(text))) for _ in range(2))
    assert first[0] != second[0] and first[1] != second[1]


def test_a_job_that_writes_its_own_report_gets_no_further_than_its_own_failure(children):
    def forge(text):
        os.write(3, text + b"\n")
        os._exit(0)

    for text in (b'{"outcome": 7}', b'{"outcome": "killed"}', b'{"outcome": "ok", "exit": "x"}'):
        assert run(children, call(forge, text)).outcome == "exited"
    ended = run(children, call(forge, b'{"outcome": "raised", "error": ["\\u001b"], "more": 1}'))
    assert (ended.outcome, ended.error) == ("raised", "['\\x1b']")


def test_limits_beyond_all_measure_are_no_limits(children):
    limits = {"time_limit": 10**20, "memory_limit": 10**22, "output_limit": 10**22}
    assert value_of(run(children, call(abs, -1, limits=limits))) == 1


def test_many_jobs_leave_no_files(children):
    for number in range(3):
        children.start(call(print, number))
    collect(children, 3)
    folder = children._slots[0].folder
    assert {path.name for path in folder.iterdir()} <= {"work", "report", "result", "stdout", "stderr"}
