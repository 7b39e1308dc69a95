"""A session follows the journal, and knows when it cannot rely on that."""

from __future__ import annotations

import pytest

from dsage_spool.client.session import Session
from dsage_spool.files import LocalFiles
from spool_world import PEOPLE, World


@pytest.fixture
def world(tmp_path):
    made = World(LocalFiles(tmp_path))
    made.start_server()
    return made


def submit_two_and_end_both(world: World):
    """Both end while the session does not look, in the second of three journals."""
    session = Session(world.files, PEOPLE["alice"], "alice", clock=world.clock)
    jobs = [session.submit_source("2+2") for _ in range(2)]
    world.settle_down()
    world.start_server()
    run = world.enrol()
    for job in jobs:
        world.texts[job.id] = world.parts(job.id)["envelope"]
        world.claim(run, job.id)
        world.settle_down()
        world.deliver(job.id, 1, run)
        world.settle_down()
    world.start_server()
    return session, jobs


def test_a_job_that_ended_in_a_journal_nobody_read_is_found(world):
    session, (first, second) = submit_two_and_end_both(world)
    session.wait([first], timeout=60)
    session.wait([second], timeout=60)  # the gap was noticed while only `first` was waited for


def test_two_waits_in_turns_both_notice_the_gap(world):
    session, (first, second) = submit_two_and_end_both(world)
    third = session.submit_source("3+3")
    waits = [session.as_completed([first, third], 60), session.as_completed([second, third], 60)]
    assert [next(one).id for one in waits] == [first.id, second.id]
