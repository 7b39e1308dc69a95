"""Leases with real processes: who is not heard loses its jobs, who is late changes nothing."""

from __future__ import annotations

import os

from parties import SHORT, World, stays, wait_until

LATE = "late.1"


def result_of(world: World, job: str) -> dict[str, bytes]:
    """All files of a job that is done, but what came late."""
    folder = world.spool / "done" / job
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LATE}


def lose_to_another(world: World) -> tuple:
    """A worker that was frozen past its lease, and the job that another one has done meanwhile."""
    world.server()
    first = world.worker("first")
    job = world.submit_counted().id
    world.wait_for_mark(job)
    first.freeze()
    world.worker("second")
    wait_until(lambda: len(world.marks(job)) == 2, "the second worker runs it")
    return first, job


def test_a_late_result_replaces_nothing(hasty_world):
    world = hasty_world
    first, job = lose_to_another(world)
    world.open_gate()  # both children end now; the frozen worker has not heard of its own
    world.check_ended_once(job)
    before = result_of(world, job)
    assert b"worker: second\n" in before["receipt"] and b"attempt: 2\n" in before["receipt"]
    first.thaw()
    wait_until(lambda: (world.spool / "done" / job / LATE).exists(), "the late result is kept")
    world.check_ended_once(job)
    assert result_of(world, job) == before
    assert world.value(job) == 42


def test_a_worker_that_wakes_up_late_stops_its_job_and_works_on(hasty_world):
    world = hasty_world
    first, job = lose_to_another(world)
    first.thaw()
    wait_until(lambda: not jobs_of(first.pid), "the first worker has stopped its child")
    world.open_gate()
    world.check_ended_once(job)
    assert b"worker: second\n" in result_of(world, job)["receipt"]
    world.parties[2].kill()  # the second: what comes now is the first one's
    other = world.submit_counted(7).id
    world.check_ended_once(other)
    assert b"worker: first\n" in result_of(world, other)["receipt"]


def test_a_machine_that_slept_with_server_and_worker_loses_no_job(hasty_world):
    world = hasty_world
    server, worker = world.server(), world.worker()
    job = world.submit_counted().id
    world.wait_for_mark(job)
    server.freeze(), worker.freeze()
    asleep(SHORT * 1.1)
    server.thaw(), worker.thaw()
    world.open_gate()
    world.check_ended_once(job)
    assert world.value(job) == 42


def test_a_server_that_was_frozen_takes_nothing_from_live_workers(hasty_world):
    world = hasty_world
    server = world.server()
    world.worker("first"), world.worker("second")
    jobs = [world.submit_counted(number).id for number in range(2)]
    for job in jobs:
        world.wait_for_mark(job)
    server.freeze()
    asleep(SHORT * 1.25)
    server.thaw()
    stays(lambda: all(world.where(job) == ["running"] for job in jobs), "they run", 0.5)
    world.open_gate()
    for job in jobs:
        world.check_ended_once(job)
    assert len(world.marks()) == 2
    assert "not heard" not in server.err


def test_a_worker_without_heartbeats_gives_its_job_up_and_works_on(hasty_world):
    """The case in which the server never takes it for lost: its heartbeats come back in time."""
    world = hasty_world
    world.server()
    worker = world.worker()
    job = world.submit_counted().id
    world.wait_for_mark(job)
    os.rename(world.spool / "workers", world.spool / "workers.away")
    wait_until(lambda: "no heartbeat arrived" in worker.err, "the worker stops its job")
    os.rename(world.spool / "workers.away", world.spool / "workers")
    world.open_gate()
    world.check_ended_once(job)
    assert world.value(job) == 42
    assert len(world.marks(job)) == 2


def test_a_worker_that_is_not_in_the_roster_keeps_no_job_from_others(hasty_world):
    world = hasty_world
    server = world.server()
    worker, stranger = world.worker("known"), world.worker("stranger")
    strike_out(world, "stranger")
    worker.freeze(), stranger.freeze()
    jobs = [world.submit_counted(number).id for number in range(2)]
    for job in jobs:
        world.wait_for(job, "queued")
    server.freeze()
    locks = world.spool / "locks"
    stranger.thaw()
    wait_until(lambda: (locks / f"{jobs[0]}.1.lock").exists(), "the stranger claims the first")
    worker.thaw()  # who tries the first too, and loses it
    wait_until(lambda: (locks / f"{jobs[1]}.1.lock").exists(), "the worker claims the second")
    world.open_gate()
    server.thaw()
    for job in jobs:
        world.check_ended_once(job)
        assert b"worker: known\n" in result_of(world, job)["receipt"]
    assert "claim of stranger removed" in server.err


def strike_out(world: World, name: str) -> None:
    """Take a worker out of the roster."""
    roster = world.spool / "roster"
    lines = roster.read_text().splitlines(True)
    roster.write_text("".join(line for line in lines if not line.startswith(name)))


def jobs_of(worker: int) -> list[int]:
    """The processes of its slots' children."""
    return [job for slot in children(worker) for job in children(slot)]


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def asleep(seconds: float) -> None:
    """Let time go by while nothing can happen."""
    stays(lambda: True, "", seconds)
