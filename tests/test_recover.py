"""What an opening makes of what a crash, a failed disk or a power failure has left."""

from __future__ import annotations

import pytest

from dsage_spool import layout, names, records
from dsage_spool.records import Lease
from dsage_spool.spool import dropping
from dsage_spool.states import State
from dsage_spool.worker.hand import is_over
from dsage_spool.worker.strays import Strays
from memory_files import MemoryFiles
from spool_world import LEASE, FakeClock, World, running


@pytest.fixture
def world() -> World:
    clock = FakeClock()
    made = World(MemoryFiles(clock.wall), clock)
    made.start_server()
    return made


def lease_path(job: str, state: State = State.RUNNING, attempt: int = 1) -> str:
    return layout.in_job(state, job, layout.lease_name(attempt))


def test_a_lease_that_was_lost_with_the_power_is_written_again_from_its_lock(world):
    run = world.enrol()
    job = running(world, run)
    before = records.parse(Lease, world.files.read(lease_path(job), 1 << 16))
    world.files.remove(lease_path(job))
    world.start_server()
    after = records.parse(Lease, world.files.read(lease_path(job), 1 << 16))
    assert (after.run, after.attempt, after.ended) == (before.run, 1, 0.0)
    world.deliver(job, 1, run)
    world.settle_down()
    assert world.state(job) is State.DONE


def test_a_start_that_lost_its_lease_and_its_lock_goes_back_and_costs_nothing(world):
    job = running(world, world.enrol(), attempts=1)
    world.files.remove(lease_path(job))
    world.files.remove(layout.lock(job, 1))
    world.start_server()
    assert world.state(job) is State.QUEUED
    lease = records.parse(Lease, world.files.read(lease_path(job, State.QUEUED), 1 << 16))
    assert lease.ended and lease.counts == 0
    assert world.server.book.entries[job].attempt == 2


def test_a_job_whose_last_attempt_went_while_it_was_held_fails_at_the_opening(world):
    """The crash came between the lease that used it up and the verdict."""
    job = world.submit(attempts=1)
    world.server.one_pass()
    wall = round(world.clock.wall(), 3)
    lease = Lease(job, 1, "kiwi", "kiwi.00000000", "box", wall, wall, "held", 1)
    world.files.write(lease_path(job, State.QUEUED), records.make(lease))
    world.start_server()
    assert world.state(job) is State.FAILED
    assert b"lost 1 times" in world.parts(job)["verdict"]


def test_a_job_that_the_disk_refuses_for_a_moment_keeps_its_lock_and_its_result(world):
    run = world.enrol()
    job = running(world, run)
    envelope = layout.in_job(State.RUNNING, job, layout.ENVELOPE)
    text = world.files.read(envelope, 1 << 16)
    world.files.write(envelope, b"unreadable")
    world.start_server()
    world.deliver(job, 1, run)
    world.server.one_pass()
    assert world.files.stat(layout.lock(job, 1)) and world.files.stat(layout.result(job, 1))
    world.files.write(envelope, text)
    world.clock.now += 3 * LEASE
    world.server.one_pass()  # it tries again
    world.settle_down()
    assert world.state(job) is State.DONE


def test_what_is_trusted_at_an_opening_is_written_anew(world):
    """A flush of it may have failed: then no later flush would bring it to the disk."""
    run = world.enrol()
    job = running(world, run)
    world.silent.add(run)
    world.pass_time(LEASE * 1.3)
    path = lease_path(job, State.QUEUED)
    before = world.files.stat(path).inode
    text = world.files.read(path, 1 << 16)
    world.start_server()
    assert world.files.read(path, 1 << 16) == text and world.files.stat(path).inode != before


def test_an_attempt_that_the_server_has_ended_is_over():
    job = names.make_job(1_795_389_700.0, b"0000")
    held = Lease(job, 1, "kiwi", "kiwi.00000000")
    assert is_over(records.make(Lease(job, 1, "kiwi", "kiwi.00000000", ended=1.0)))
    assert not is_over(records.make(held)) and not is_over(None) and not is_over(b"torn")


def test_a_claim_in_doubt_is_flushed_before_it_counts(world):
    flushed = []

    class Watched(MemoryFiles):
        def sync(self, paths):
            flushed.extend(paths)

    files = Watched(world.clock.wall)
    files.root = world.files.root
    run, job = world.enrol(), world.submit()
    world.server.one_pass()
    world.claim(run, job)
    assert dropping.claimed_after_all(files, run, [(job, 1), (job, 2)]) == [(job, 1)]
    assert flushed == [layout.LOCKS]


def test_what_has_run_is_remembered_while_the_queue_speaks_of_it():
    strays = Strays(patience=1.0)
    strays.ran |= {("a", 1), ("b", 1)}
    strays.forget({("a", 1), ("c", 1)})
    assert strays.ran == {("a", 1)}
