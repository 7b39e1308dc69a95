"""What the server removes: nothing that lives, nothing that anybody may come back for."""

from __future__ import annotations

import pytest

from dsage_spool import layout
from dsage_spool.states import State
from memory_files import MemoryFiles
from spool_world import LEASE, FakeClock, World

DAY = 86_400.0


@pytest.fixture
def world():
    clock = FakeClock()
    made = World(MemoryFiles(clock.wall), clock)
    made.start_server()
    return made


def runs(world: World) -> set[str]:
    return set(world.files.names(layout.WORKERS))


def after(world: World, seconds: float) -> set[str]:
    """The runs that are left once so much time has gone by in silence."""
    world.clock.now += seconds
    world.server.one_pass()
    return runs(world)


def test_of_each_worker_the_latest_run_is_kept(world):
    old = [world.enrol("kiwi") for _ in range(3)]
    world.clock.now += 1
    latest = {world.enrol("kiwi"), world.enrol("fig")}
    assert after(world, LEASE / 2) == latest | set(old), "they may live"
    assert after(world, LEASE) == latest
    assert after(world, DAY) == latest


def test_an_earlier_run_that_beats_is_kept(world):
    living = world.enrol()
    world.clock.now += LEASE
    silent = world.enrol()
    world.clock.now += LEASE
    world.beat(living)
    world.clock.now += 1
    latest = world.enrol()
    assert after(world, LEASE / 2) == {living, latest} != {living, silent, latest}


def test_a_run_that_has_jobs_is_kept_until_they_are_taken_back(world):
    run, job = world.enrol(), world.submit()
    world.server.one_pass()
    world.claim(run, job)
    world.server.one_pass()
    latest = world.enrol()
    assert world.server.book.by_run[run] == {job}
    # A pause of the server: what it saw before counts no more, so the lease goes on.
    assert after(world, 2 * LEASE) == {run, latest} and world.state(job) is State.RUNNING
    world.silent.add(run)
    world.pass_time(1.3 * LEASE)
    assert world.state(job) is State.QUEUED
    world.beat(latest)
    assert after(world, LEASE) == {latest}


def test_names_that_are_no_runs_are_left_alone(world):
    world.files.append(f"{layout.WORKERS}/what is this", b"x")
    world.enrol()
    assert "what is this" in after(world, LEASE * 3)


def test_old_files_in_tmp_are_swept_and_those_of_the_queue_are_not(world):
    world.files.append(layout.in_tmp("n0nce.left"), b"x")
    ring = {name for name in world.files.names(layout.TMP) if name.startswith("server-queue.")}
    assert ring
    after(world, DAY + 1)
    left = set(world.files.names(layout.TMP))
    assert ring <= left and "n0nce.left" not in left
