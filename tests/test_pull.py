"""`pull`: what cron starts. Quiet when there is nothing to say, never twice, loses nothing."""

from __future__ import annotations

import os
from pathlib import Path

from parties import World, wait_until


def test_a_pull_with_nothing_to_do_prints_nothing(world):
    world.server()
    pull = world.work("desk", verb="pull")
    assert pull.end() == 0
    assert (pull.out, pull.err) == ("", "")


def test_a_pull_runs_what_there_is_and_ends(world):
    world.server()
    world.open_gate()
    jobs = [world.submit_counted(number).id for number in range(5)]
    for job in jobs:
        world.wait_for(job, "queued")
    pull = world.work("desk", verb="pull")
    assert pull.end() == 0
    assert (pull.out, pull.err) == ("", "")
    for number, job in enumerate(jobs):
        world.check_ended_once(job)
        assert world.value(job) == number


def test_a_second_pull_leaves_quietly_while_the_first_works(world):
    world.server()
    job = world.submit_counted().id
    first = world.work("desk", verb="pull")
    world.wait_for_mark(job)
    second = world.work("desk", verb="pull")
    assert second.end() == 0
    assert (second.out, second.err) == ("", "")
    assert first.running
    world.open_gate()
    assert first.end() == 0
    world.check_ended_once(job)
    assert len(world.marks()) == 1


def test_a_pull_claims_no_more_than_it_was_told(world):
    world.server()
    world.open_gate()
    jobs = [world.submit_counted(number).id for number in range(4)]
    for job in jobs:
        world.wait_for(job, "queued")
    assert world.work("desk", "--max-jobs", "3", verb="pull").end() == 0
    for job in jobs[:3]:
        world.check_ended_once(job)
    assert world.where(jobs[3]) == ["queued"]
    assert len(world.marks()) == 3


def finished_but_not_delivered(world: World) -> tuple[str, list]:
    """A worker has run a job, could not deliver it, and was killed; the server is away too."""
    server, worker = world.server(), world.worker()
    job = world.submit_counted().id
    world.wait_for_mark(job)
    server.kill()
    os.rename(world.spool / "results", world.spool / "results.away")
    world.open_gate()
    wait_until(lambda: in_outbox(world, job), "the result is in the outbox")
    wait_until(lambda: "the spool cannot take results" in worker.err, "delivery has failed")
    worker.kill()
    os.rename(world.spool / "results.away", world.spool / "results")
    return job, in_outbox(world, job)


def in_outbox(world: World, job: str) -> list[Path]:
    """The files in which the worker keeps results of a job until the spool has them."""
    files = world.home("desk").glob(".local/state/dsage-spool/workers/*/outbox/*.results")
    return [path for path in files if job.encode() in path.read_bytes()]


def test_a_pull_delivers_what_a_killed_worker_could_not(world):
    job, [outbox] = finished_but_not_delivered(world)
    assert world.work("desk", verb="pull").end() == 0
    assert not outbox.exists()
    world.server()
    world.check_ended_once(job)
    assert world.value(job) == 42
    assert len(world.marks(job)) == 1, "it was not run again"


def test_a_pull_of_a_spool_that_is_not_there_says_so(world):
    world.spool = world.root / "nowhere"
    argv = ("pull", str(world.spool), "--slots", "1")
    pull = world.run(*argv, home="desk")
    assert pull.end() == 2
    assert pull.out == ""
    assert pull.err.startswith(f"dsage-spool: {world.spool}: not a spool")
    assert "hint: make one with `dsage-spool init" in pull.err


def test_a_pull_of_a_host_that_does_not_answer_says_so_once(world):
    pull = world.run("pull", "nobody@127.0.0.1:1:spool", "--slots", "1", home="desk")
    assert pull.end() not in (0, 70)
    assert pull.err.startswith("dsage-spool: ") and "127.0.0.1" in pull.err
    assert "Traceback" not in pull.err
