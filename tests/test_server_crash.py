"""The server is stopped at each of its changes to the disk, one after the other, in every verb.

A story brings a spool to the moment before a pass; that pass is stopped at change 1, 2, 3 … until it
comes through. Afterwards a new server takes over, and the spool must come to the very same end as
one whose server was never stopped: same states, same bytes, nothing left over.
"""

from __future__ import annotations

import itertools
import re

import pytest

from crashing_files import Crash, CrashingFiles
from dsage_spool import layout, names
from dsage_spool.server import serve
from dsage_spool.spool import reading
from dsage_spool.spool.moving import SERVED
from dsage_spool.states import JOB_FOLDERS, State
from format_doc import broken_rules
from memory_files import MemoryFiles
from spool_world import LEASE, MALLORY, FakeClock, World, running


def fresh_world() -> tuple[World, CrashingFiles]:
    clock = FakeClock()
    memory = MemoryFiles(clock.wall)
    files = CrashingFiles(memory)
    return World(memory, clock, files), files


# -- stories: each brings the spool to where the next pass does what its name says ------------------


def accept(world: World) -> None:
    world.submit()
    world.submit(submitter="bob")


def start(world: World) -> None:
    job, run = world.submit(), world.enrol()
    world.server.one_pass()
    world.claim(run, job)


def settle(world: World) -> None:
    run = world.enrol()
    world.deliver(running(world, run), 1, run)


def fail(world: World) -> None:
    run = world.enrol()
    world.deliver(running(world, run), 1, run, "raised")


def give_back(world: World) -> None:
    run = world.enrol()
    world.deliver(running(world, run), 1, run, "returned", parts={}, wall_seconds=0.0)


def settle_before_it_was_seen_to_start(world: World) -> None:
    job, run = world.submit(), world.enrol()
    world.server.one_pass()
    world.claim(run, job)
    world.deliver(job, 1, run)


def silence(world: World, **fields) -> None:
    """A worker is silent for so long that the next look takes its jobs away."""
    run = world.enrol()
    running(world, run, **fields)
    world.silent.add(run)
    world.pass_time(LEASE)
    world.clock.now += LEASE / 6


def expire(world: World) -> None:
    silence(world)


def bury(world: World) -> None:
    silence(world, attempts=1)


def settle_after_expiry(world: World) -> None:
    run = world.enrol()
    job = running(world, run)
    world.silent.add(run)
    world.pass_time(LEASE * 1.3)
    assert world.state(job) is State.QUEUED
    world.deliver(job, 1, run)


def overtake(world: World) -> None:
    """The first attempt's result comes while the second runs."""
    first, second = world.enrol(), world.enrol("fig")
    job = running(world, first)
    world.silent.add(first)
    world.pass_time(LEASE * 1.3)
    world.claim(second, job, 2)
    world.server.one_pass()
    world.deliver(job, 1, first)


def late_in_the_same_pass(world: World) -> None:
    overtake(world)
    [job] = world.texts
    [second] = [run for run in world.files.names("workers") if run.startswith("fig")]
    world.deliver(job, 2, second)


def late(world: World) -> None:
    overtake(world)
    world.settle_down()
    [job] = world.texts
    [second] = [run for run in world.files.names("workers") if run.startswith("fig")]
    world.deliver(job, 2, second, "raised")


def cancel(world: World) -> None:
    job, run = world.submit(), world.enrol()
    other = running(world, run)
    world.request(job, "cancel")
    world.request(other, "cancel")


def cancel_and_late_result(world: World) -> None:
    run = world.enrol()
    job = running(world, run)
    world.request(job, "cancel")
    world.deliver(job, 1, run)


def hold(world: World) -> None:
    job = world.submit()
    world.server.one_pass()
    world.request(job, "hold")


def hold_what_is_claimed(world: World) -> None:
    """The claim comes before the hold is carried out, or after."""
    run, early, late = world.enrol(), world.submit(), world.submit()
    world.server.one_pass()
    world.request(late, "hold")
    world.server.one_pass()
    world.claim(run, late)
    world.request(early, "hold")
    world.claim(run, early)


def release(world: World) -> None:
    hold(world)
    world.server.one_pass()
    world.request(next(iter(world.texts)), "release", nonce="11111111")


def reject(world: World) -> None:
    world.drop(layout.INCOMING, "what is this", b"x")
    world.submit(signer=MALLORY)
    world.drop(layout.RESULTS, names.claim_name(world.new_name(), 1, "result"), b"no pack")


def remove_a_forged_lock(world: World) -> None:
    job = world.submit()
    world.server.one_pass()
    world.files.append(layout.lock(job, 1), b"mine")


def fail_those_that_wait(world: World) -> None:
    run = world.enrol()
    first = running(world, run)
    second = world.submit(after=(first,))
    world.submit(after=(second,))
    world.settle_down()
    world.deliver(first, 1, run, "raised")


def free_those_that_wait(world: World) -> None:
    run = world.enrol()
    first = running(world, run)
    world.submit(after=(first,))
    world.settle_down()
    world.deliver(first, 1, run)


def out_of_date(world: World) -> None:
    world.submit(not_after=int(world.clock.wall() + 5))
    world.settle_down()
    world.clock.now += 10


def everything(world: World) -> None:
    """All of it in one pass."""
    run, other = world.enrol(), world.enrol("fig")
    jobs = [running(world, other) for _ in range(3)]
    [queued, held] = [world.submit() for _ in range(2)]
    world.server.one_pass()
    world.request(held, "hold")
    lost, buried = running(world, run), running(world, run, attempts=1)
    done = running(world, other)
    world.deliver(done, 1, other)
    world.silent.add(run)
    world.pass_time(LEASE)
    world.clock.now += LEASE / 6
    assert world.state(lost) is world.state(buried) is State.RUNNING
    world.beat(other)
    world.submit()
    world.request(queued, "cancel")
    world.request(held, "release", nonce="11111111")
    world.deliver(jobs[0], 1, other)
    world.deliver(jobs[1], 1, other, "raised")
    world.deliver(jobs[2], 1, other, "returned", parts={})
    world.deliver(done, 1, other, "raised")
    world.drop(layout.INCOMING, "what is this", b"x")


VERBS = [
    accept, start, settle, fail, give_back, settle_before_it_was_seen_to_start, expire, bury,
    settle_after_expiry, overtake, late_in_the_same_pass, late, cancel, cancel_and_late_result, hold,
    hold_what_is_claimed, release, reject, remove_a_forged_lock, fail_those_that_wait, free_those_that_wait, out_of_date,
]  # fmt: skip


# -- what must hold -------------------------------------------------------------------------------


def picture(world: World) -> dict[str, object]:
    """All that people can see of a spool at rest, without what may differ between two runs."""
    seen: dict[str, object] = {}
    for state in JOB_FOLDERS:
        if state is State.REJECTED:
            continue
        for job in world.files.names(str(state)):
            assert world.states(job) == [state], f"{job} is in {world.states(job)}"
            seen[f"{state}/{job}"] = timeless(world.parts(job))
    seen["rejected"] = world.verdicts()
    for box in (layout.INCOMING, layout.LOCKS, layout.RESULTS):
        seen[box] = sorted(world.files.names(box))
    ours = (SERVED, f"{serve.QUEUE_FILE}.")
    left = [name for name in world.files.names(layout.TMP) if not name.startswith(ours)]
    seen[layout.TMP] = left
    return seen


STAMPS = re.compile(rb"^(since|ended): .*$|^[-0-9]{10}T[:0-9]{8}Z ", re.M)


def timeless(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Without the moments at which the server did things: the signed parts are as they are."""
    ours = ("lease.", "verdict")
    return {
        name: STAMPS.sub(b"", data) if name.startswith(ours) else data for name, data in parts.items()
    }


def assert_in_order(world: World) -> None:
    """Every job that was accepted is in one state folder, with the files that belong there."""
    for job in world.texts:
        found = world.states(job)
        dropped = names.drop_name(job) in world.files.names(layout.INCOMING)
        assert len(found) == 1 or (not found and dropped), f"{job} is in {found}"
    for state in JOB_FOLDERS:
        for name in world.files.names(str(state)):
            inside = set(world.files.names(f"{state}/{name}"))
            assert not broken_rules(str(state), inside), (f"{state}/{name}", inside)


def at_rest(world: World) -> dict[str, object]:
    """The end of the story: also who is silent has been given up by then."""
    world.settle_down()
    assert_in_order(world)
    world.pass_time(LEASE * 1.3)
    world.settle_down()
    assert_in_order(world)
    return picture(world)


def prepare(story) -> tuple[World, CrashingFiles]:
    world, files = fresh_world()
    world.start_server()
    story(world)
    return world, files


def undisturbed(story) -> dict[str, object]:
    world, _ = prepare(story)
    world.server.one_pass()
    return at_rest(world)


def stop_at(story, at: int, torn: bool) -> tuple[World, CrashingFiles]:
    """The pass of the story, stopped at change `at`."""
    world, files = prepare(story)
    files.arm(at, torn)
    try:
        world.server.one_pass()
    except Crash:
        pass
    assert reading.read_queue(world.files).server, "the queue file is whole, old or new"
    return world, files


@pytest.mark.parametrize("torn", [False, True], ids=["before", "halfway"])
@pytest.mark.parametrize("story", VERBS, ids=lambda story: story.__name__)
def test_a_server_that_is_stopped_at_any_change_leaves_nothing_undone(story, torn):
    expected = undisturbed(story)
    for at in itertools.count(1):
        world, files = stop_at(story, at, torn)
        if not files.struck:
            assert at > 1, "the story led to nothing"
            return
        if torn and not files.story[-1].startswith(("write", "rewrite", "append")):
            continue
        world.start_server(world.files)
        assert_in_order(world)
        assert at_rest(world) == expected, f"stopped at change {at}: {files.story[-1]}"


@pytest.mark.parametrize("begin", [1, 2, 3, 4])
def test_one_pass_that_does_everything_may_be_stopped_anywhere(begin):
    expected = undisturbed(everything)
    for at in itertools.count(begin, 4):
        world, files = stop_at(everything, at, torn=at % 2 == 0)
        if not files.struck:
            assert at > 50, "not much of a pass"
            return
        world.start_server(world.files)
        assert_in_order(world)
        assert at_rest(world) == expected, f"stopped at change {at}: {files.story[-1]}"


@pytest.mark.parametrize("story", [settle, fail, expire, cancel, reject, fail_those_that_wait])
def test_the_next_server_may_be_stopped_while_it_mends(story):
    expected = undisturbed(story)
    for at in itertools.count(1):
        world, files = stop_at(story, at, torn=False)
        if not files.struck:
            return
        for again in itertools.count(1):
            world, files = stop_at(story, at, torn=False)
            files.arm(again)
            try:
                world.start_server(files)
                files.arm(0)
            except Crash:
                world.start_server(world.files)
                assert at_rest(world) == expected, f"stopped at {at}, then at {again}"
                continue
            break


@pytest.mark.parametrize("story", VERBS, ids=lambda story: story.__name__)
def test_a_disk_that_fails_once_stops_a_pass_but_not_the_server(story):
    expected = undisturbed(story)
    for at in itertools.count(1):
        world, files = prepare(story)
        files.arm(at, failing=True)
        passes_of(world)
        if not files.struck:
            return
        assert at_rest(world) == expected, f"failed at change {at}: {files.story[at - 1]}"


@pytest.mark.parametrize("failing", [False, True], ids=["crash", "failure"])
def test_the_queue_file_is_whole_while_its_few_files_go_round(monkeypatch, failing):
    """Also where the ring begins anew with the very file that is in use."""
    monkeypatch.setattr(serve, "QUEUE_FILES", 2)
    for at in itertools.count(1):
        world, files = prepare(accept)
        for torn in (True, False, True):
            world.submit()
            files.arm(at, torn, failing)
            try:
                passes_of(world)
                files.arm(0)
            except Crash:
                assert reading.read_queue(world.files).server
                files.arm(0)
                world.start_server()
            counts = reading.read_queue(world.files).counts
        world.settle_down()
        assert reading.read_queue(world.files).counts["queued"] == 5 >= counts["queued"]
        assert world.files.stat(layout.QUEUE).links <= 2
        assert picture(world)[layout.TMP] == []
        if at > 40:
            return


def passes_of(world: World) -> None:
    """The server's own loop, for a few turns."""
    turns = iter(range(4))
    world.server.run(Still(), lambda: next(turns, None) is None)


class Still:
    def wait(self, timeout: float) -> None:
        pass
