"""The worker's side of its slots: many at once, ahead, stopped, killed, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsage_spool.children import SlotProcesses
from dsage_spool.errors import SpoolError
from signed_jobs import (
    BOUND, by_value, call, collect, is_gone, read_when_there, run, slots, value_of, wait_until,
)  # fmt: skip

by_value(__name__)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    with slots(4, tmp_path_factory.mktemp("four")) as children:
        yield children


@pytest.fixture
def one(tmp_path):
    with slots(1, tmp_path) as children:
        yield children


def announce(path, seconds=600):
    """Write one's pid into a file and sleep."""
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)


def meet(folder, name, count):
    """True once `count` jobs are here at the same time."""
    open(os.path.join(folder, name), "w").close()
    end = time.monotonic() + 60
    while len(os.listdir(folder)) < count and time.monotonic() < end:
        time.sleep(0.005)
    return len(os.listdir(folder)) >= count


def test_four_slots_run_four_jobs_at_once(four, tmp_path):
    tasks = [call(meet, str(tmp_path), str(number), 4) for number in range(4)]
    for task in tasks:
        four.start(task)
    assert four.loads() == [1, 1, 1, 1]
    assert all(value_of(ended) for ended in collect(four, 4).values())
    assert four.loads() == [0, 0, 0, 0]


def test_tasks_sent_ahead_run_one_after_another(one):
    tasks = [call(pow, 2, number) for number in range(5)]
    for task in tasks:
        one.start(task)
    assert one.loads() == [5]
    ended = collect(one, 5)
    assert [value_of(ended[task.job]) for task in tasks] == [1, 2, 4, 8, 16]
    assert list(ended) == [task.job for task in tasks]


def test_a_running_job_is_stopped(one, tmp_path):
    task = call(announce, str(tmp_path / "pid"))
    one.start(task)
    pid = int(read_when_there(tmp_path / "pid"))
    one.stop(task.job, 1)
    ended = collect(one, 1)[task.job]
    assert (ended.outcome, ended.error) == ("returned", "stopped")
    assert ended.started > 0 and is_gone(pid)


def test_a_waiting_job_is_dropped(one, tmp_path):
    first = call(announce, str(tmp_path / "pid"))
    second = call(announce, str(tmp_path / "never"))
    one.start(first)
    one.start(second)
    one.stop(second.job, 1)
    ended = collect(one, 1)[second.job]
    assert (ended.outcome, ended.error, ended.started) == ("returned", "stopped", 0.0)
    one.stop(first.job, 1)
    assert collect(one, 1)[first.job].outcome == "returned"
    assert one.loads() == [0] and not (tmp_path / "never").exists()


def test_a_task_is_stopped_even_before_its_payload_has_gone_over(one):
    task = call(len, bytes(20 << 20))
    one.start(task)
    one.stop(task.job, 1)
    assert collect(one, 1)[task.job].outcome == "returned"


def test_stopping_what_is_not_there_is_nothing(one):
    one.stop("20261122T232140-4k2m7qx9ab", 1)
    assert value_of(run(one, call(abs, -1))) == 1


def test_large_payloads_and_results_pass_while_other_slots_work(four):
    big = 50 << 20
    tasks = [call(bytes, big), call(len, bytes(big))]
    small = [call(abs, -number) for number in range(12)]
    for task in (*tasks, *small):
        four.start(task)
    ended = collect(four, len(tasks) + len(small))
    assert len(value_of(ended[tasks[0].job])) == big
    assert value_of(ended[tasks[1].job]) == big
    assert [value_of(ended[task.job]) for task in small] == list(range(12))


def test_the_output_of_a_running_job_can_be_followed(one):
    def speak():
        print("hello")
        time.sleep(600)

    task = call(speak)
    assert one.output(task.job, 1, 0, 100) == b""
    one.start(task)
    wait_until(lambda: one.output(task.job, 1, 0, 100) == b"hello\n", "hello is printed")
    assert one.output(task.job, 1, 2, 3) == b"llo"
    assert one.output(task.job, 1, 6, 3) == b""
    one.stop(task.job, 1)
    collect(one, 1)
    assert one.output(task.job, 1, 0, 100) == b""


def test_wait_returns_after_its_time(one):
    begin = time.monotonic()
    assert one.wait(0.05) == []
    assert time.monotonic() - begin >= 0.05


def test_wait_returns_when_another_file_is_readable(one):
    reading, writing = os.pipe()
    os.write(writing, b"x")
    try:
        begin = time.monotonic()
        assert one.wait(BOUND, [reading]) == []
        assert time.monotonic() - begin < BOUND / 2
    finally:
        os.close(reading)
        os.close(writing)


def test_a_roster_counts_from_the_next_task_on(one):
    assert run(one, call(abs, 1)).outcome == "ok"
    one.set_roster(b"")
    assert run(one, call(abs, 1)).outcome == "refused"


def kill_parent(path):
    """Kill one's own slot; a brother process in the same group is left to be found."""
    if os.fork() == 0:
        announce(path)
    while not os.path.exists(path) or not open(path).read().endswith("\n"):
        time.sleep(0.005)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def test_a_job_that_kills_its_slot_harms_only_itself(one, tmp_path):
    killer, *others = [call(kill_parent, str(tmp_path / "pid")), call(abs, -1), call(abs, -2)]
    for task in (killer, *others):
        one.start(task)
    ended = collect(one, 3)
    assert ended[killer.job].outcome == "killed"
    assert ended[killer.job].error.startswith("the job ended its own runner")
    assert [value_of(ended[task.job]) for task in others] == [1, 2]
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: is_gone(pid), "the rest of the job is gone")


def test_a_slot_that_cannot_start_is_told_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "cryptography.py").write_text("raise ImportError('planted')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    with SlotProcesses(1, tmp_path / "scratch") as children:
        with pytest.raises(SpoolError, match="a slot cannot start: ImportError: planted"):
            collect(children, 1)


def test_closing_kills_the_running_job_and_leaves_nothing(tmp_path):
    children = slots(2, tmp_path)
    children.start(call(announce, str(tmp_path / "pid")))
    pid = int(read_when_there(tmp_path / "pid"))
    pids = [slot.process.pid for slot in children._slots]
    children.close()
    children.close()
    assert all(map(is_gone, [pid, *pids]))
    assert not (tmp_path / "scratch").exists()


def test_a_terminal_s_interrupt_does_not_reach_slots_and_jobs(one):
    assert value_of(run(one, call(os.getsid, 0))) != os.getsid(0)
    assert os.getpgid(one._slots[0].process.pid) != os.getpgid(0)


OWNER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from signed_jobs import call, slots, by_value
import test_children
by_value("test_children")
children = slots(2, Path({folder!r}))
children.start(call(test_children.announce, {folder!r} + "/first"))
children.start(call(test_children.leave_a_daemon, {folder!r} + "/second"))
print(*(slot.process.pid for slot in children._slots), flush=True)
while True:
    children.wait(60)
"""


def leave_a_daemon(path):
    """Leave a daemon that sleeps, and sleep oneself."""
    if os.fork() == 0:
        os.setsid()
        announce(path)
    time.sleep(600)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="daemons are caught on Linux only")
def test_when_the_worker_is_killed_no_process_remains(tmp_path):
    program = OWNER.format(path=[p or os.getcwd() for p in sys.path], folder=str(tmp_path))
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with owner:
        pids = [int(word) for word in owner.stdout.readline().split()]
        pids += [int(read_when_there(tmp_path / name)) for name in ("first", "second")]
        assert len(pids) == 4 and not any(map(is_gone, pids))
        owner.kill()
    wait_until(lambda: all(map(is_gone, pids)), "all processes are gone")
    wait_until(lambda: not any(map(Path.is_dir, (tmp_path / "scratch").iterdir())), "it is tidy")


def test_what_a_killed_worker_left_is_swept(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / "scratch" / f"slot-1.{gone.pid}"
    (left / "work").mkdir(parents=True)
    (tmp_path / "scratch" / f"{left.name}.log").write_text("torn\n")
    with slots(1, tmp_path) as children:
        names = {path.name for path in (tmp_path / "scratch").iterdir()}
        assert names <= {f"slot-1.{os.getpid()}", f"slot-1.{os.getpid()}.log"}
        assert value_of(run(children, call(abs, -1))) == 1
