"""Following the journal: nothing is missed in silence."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool import layout, queuefile
from dsage_spool.errors import NoSpace
from dsage_spool.spool import journal
from dsage_spool.spool.journal import Follower, Line
from dsage_spool.states import MOVES
from dsage_spool.text import clean
from memory_files import MemoryFiles
from spool_world import START, FakeClock, World
from test_format_doc import in_every_state

JOB = "20261122T232140-4k2m7qx9ab"


@pytest.fixture
def world():
    clock = FakeClock()
    made = World(MemoryFiles(clock.wall), clock)
    made.start_server()
    return made


def follow(world: World) -> Follower:
    follower = Follower(world.files, world.clock.boottime)
    follower.begin()
    return follower


def verbs(follower: Follower) -> list[str]:
    lines, missed = follower.poll()
    assert not missed
    return [line.verb for line in lines]


# -- lines and names ------------------------------------------------------------------------------


@given(st.text(max_size=200), st.floats(0, 4e9))
def test_a_line_is_read_as_it_was_written(note, moment):
    line = Line(JOB, "settle", "running", "done", "2", note)
    text = line.text(moment)
    found = journal.parse(text)
    assert "\n" not in text and found.note == clean(note, 120).rstrip()
    assert (found.job, found.verb, found.origin, found.target, found.attempt) == (
        JOB, "settle", "running", "done", "2",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "a", "2026 job settle", "one two three four five"])
def test_a_torn_line_is_no_line(text):
    assert journal.parse(text) is None


@pytest.mark.parametrize("existing, name", [
    ([], "20261122.1"),
    (["20261122.1"], "20261122.2"),
    (["20261122.9", "20261122.10"], "20261122.11"),
    (["20261121.7"], "20261122.1"),
    (["20261124.3"], "20261124.4"),  # the clock was set back
    ([".keep", "old", "20261122", "20261122.x"], "20261122.1"),
])  # fmt: skip
def test_a_new_file_is_later_than_all_others(existing, name):
    assert journal.next_name(existing, START) == name
    assert journal.names_in_order([*existing, name])[-1] == name


# -- the follower ---------------------------------------------------------------------------------


def test_a_follower_sees_what_comes_after_it_began_and_once(world):
    world.submit()
    world.settle_down()
    follower = follow(world)
    assert verbs(follower) == []
    job = world.submit()
    world.settle_down()
    assert verbs(follower) == ["accept"]
    world.request(job, "cancel")
    world.settle_down()
    assert verbs(follower) == ["cancel"]
    assert verbs(follower) == []


def test_a_half_written_line_is_waited_for(world):
    follower = follow(world)
    path = layout.journal(world.server._journal)
    text = Line(JOB, "settle", "running", "done", "1", "4").text(START).encode() + b"\n"
    for place in range(0, len(text), 7):
        assert verbs(follower) == []
        world.files.append(path, text[place : place + 7])
    assert verbs(follower) == ["settle"]


def test_a_restart_of_the_server_is_noticed(world):
    follower = follow(world)
    world.server.close()
    world.start_server()
    assert verbs(follower) == ["server"]  # it stopped
    assert verbs(follower) == []
    world.clock.now += 5
    assert follower.poll() == ([], True)
    world.submit()
    world.settle_down()
    assert verbs(follower) == ["server", "accept"]


def test_a_new_day_is_noticed_at_once_and_nothing_is_missed(world):
    follower = follow(world)
    seen, missed = [], 0
    for _ in range(4):
        world.submit()
        world.settle_down()
        for _ in range(3):
            lines, jumped = follower.poll()
            seen += [line.verb for line in lines if line.verb == "accept"]
            missed += jumped
        world.clock.now += 30_000
    assert seen == ["accept"] * 4
    assert missed == len(journal.names_in_order(world.files.names(layout.JOURNAL))) - 1 == 2


def test_a_follower_that_slept_for_days_is_told_to_look(world):
    follower = follow(world)
    for _ in range(4):
        world.submit()
        world.settle_down()
        world.clock.now += 80_000
    polls = [follower.poll() for _ in range(4)]
    assert sum(missed for _, missed in polls) == 1
    assert [line.verb for line in polls[-2][0] + polls[-1][0]][-1:] == ["accept"]


def test_a_journal_that_has_become_shorter_is_read_anew(world):
    world.submit()
    world.settle_down()
    follower = follow(world)
    path = layout.journal(world.server._journal)
    world.files.write(path, world.files.read(path, 1 << 16).splitlines(keepends=True)[0])
    assert verbs(follower) == []
    world.clock.now += 5
    assert follower.poll() == ([], True)
    assert verbs(follower) == ["server"]


def test_a_journal_that_is_gone_is_no_error(world):
    follower = follow(world)
    world.files.remove(layout.journal(world.server._journal))
    world.clock.now += 5
    follower.poll()
    assert follower.poll()[0] == []


def test_a_spool_without_a_server_has_no_news_until_one_starts():
    clock = FakeClock()
    world = World(MemoryFiles(clock.wall), clock)
    follower = follow(world)
    assert follower.poll() == ([], False)
    world.start_server()
    clock.now += 5
    assert follower.poll() == ([], True)


def test_a_queue_that_names_no_journal_leads_nowhere(world):
    follower = follow(world)
    world.files.write(layout.QUEUE, queuefile.finish(["written: 1", "journal: ../roster"]))
    world.clock.now += 5
    assert follower.poll() == ([], False)


def test_a_waiting_follower_costs_one_small_request_a_poll(world):
    follower = follow(world)
    asked = []
    read = world.files.read_from
    world.files.read_from = lambda *row: asked.append(row) or read(*row)
    world.files.read = world.files.names = world.files.stat = None
    for _ in range(10):
        follower.poll()
    assert len(asked) == 10 and len(set(asked)) == 1


def test_every_line_of_the_journal_is_a_move_of_the_table(world):
    """What the server tells agrees with what may happen."""
    in_every_state(world)
    seen = set()
    for name in world.files.names(layout.JOURNAL):
        for text in world.files.read(layout.journal(name), 1 << 20).decode().splitlines():
            line = journal.parse(text)
            if line.verb != "server":
                sources, end = MOVES[line.verb]
                assert line.origin in map(str, sources) and line.target == str(end), text
                seen.add(line.verb)
    assert seen == set(MOVES) - {"expire", "release"}


def test_a_disk_that_failed_between_a_move_and_its_line_is_not_passed_over_in_silence(world):
    """The move was made and never told: followers must hear that they have to look."""
    follower = follow(world)
    world.submit()
    append, world.files.append = world.files.append, full
    with pytest.raises(NoSpace):
        world.server.one_pass()
    world.files.append = append
    world.server.one_pass()
    world.clock.now += 5
    assert follower.poll() == ([], True)


def full(path, data):
    raise NoSpace(f"{path}: no space left on the disk")
