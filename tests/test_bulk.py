"""What the server does with more drops than it can hear of, hold or admit; its harness, small."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from dsage_spool import layout, names, pack
from dsage_spool.config import Config
from dsage_spool.errors import UsageError
from dsage_spool.records import Envelope
from dsage_spool.server import book, look, serve
from dsage_spool.server.book import Book, Entry, PutOff
from dsage_spool.server.look import Box
from dsage_spool.states import State
from memory_files import MemoryFiles
from proof import bulk
from proof.bulk_crowd import DEAF, book_of
from spool_world import MALLORY, World

pytestmark = pytest.mark.once

NO_RESCAN = """
from dsage_spool.server import serve
serve.Server._pause = lambda self, moved: 0.0 if self._look.more else 1e6
"""

needs_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")

# -- drops that nobody was told of ---------------------------------------------------------------


@needs_linux
def test_drops_that_a_server_does_not_hear_of_are_admitted_by_its_next_look(world):
    found = bulk.overflow(world, 300, DEAF)
    assert not found.violations
    assert found.heard == 300  # the kernel would have told


@needs_linux
def test_a_server_that_believes_its_events_is_caught(world):
    found = bulk.overflow(world, 30, DEAF + NO_RESCAN, bound=1.5 * serve.RESCAN)
    assert [text for text in found.violations if "30 of 30 drops were not admitted" in text]


# -- without events ------------------------------------------------------------------------------


@needs_linux
def test_a_server_can_do_without_events(world):
    party = bulk.server(world, DSAGE_SPOOL_WATCH="off")
    opened = [os.readlink(path) for path in Path(f"/proc/{party.pid}/fd").iterdir()]
    assert not [path for path in opened if "inotify" in path]
    [job] = bulk.Person(world, "ada").drop(1)
    world.wait_for(job, "queued")
    assert "cannot watch" not in party.err


def test_the_parties_of_tests_pass_the_setting_on(world, monkeypatch):
    monkeypatch.setenv("DSAGE_SPOOL_WATCH", "sideways")
    party = world.run("server", str(world.spool))
    assert party.end() == UsageError.exit_status
    assert "watch is 'sideways'" in party.err


def test_events_are_asked_for_unless_the_config_says_off(tmp_path):
    assert Config(tmp_path, {}, {}).watch()
    assert Config(tmp_path, {}, {"watch": "on"}).watch()
    assert not Config(tmp_path, {}, {"watch": "off"}).watch()
    assert Config(tmp_path, {"DSAGE_SPOOL_WATCH": "on"}, {"watch": "off"}).watch()


def test_a_core_of_the_suite_that_does_not_pass_is_told():
    suite = bulk.core_without_events(("test_pull",), chosen="sentence_that_no_test_is_named")
    assert suite.failed and suite.told


# -- many files, in a real server ----------------------------------------------------------------

SMALL = "from dsage_spool.server import look\nlook.NAMES_HELD = 100\n"


@needs_linux
def test_a_server_holds_only_so_many_of_the_names_in_incoming():
    found = bulk.flood(600, 40, SMALL, held=100)
    assert not found.violations
    assert len(found.listings) > 3


@needs_linux
def test_a_server_that_holds_all_names_is_caught():
    found = bulk.flood(300, 5, held=100)
    assert found.violations == ("300 names were held at once",)


@needs_linux
def test_a_full_book_leaves_jobs_where_they_are_and_lets_others_in():
    assert not bulk.full_book(100, 60, book_of(100)).violations


@needs_linux
def test_files_of_no_use_in_the_boxes_of_workers_keep_no_job_waiting():
    assert not bulk.other_boxes(300, SMALL).violations


# -- names, so many at a time --------------------------------------------------------------------


def box_of(files: MemoryFiles, monkeypatch, held: int) -> Box:
    monkeypatch.setattr(look, "NAMES_HELD", held)
    return Box(files, "box", lambda: 0.0)


def folder_of(count: int) -> MemoryFiles:
    files = MemoryFiles()
    files.make_folder("box")
    files.many("write", ((f"box/{n:06}", b"") for n in range(count)))
    return files


def anything(name: str) -> bool:
    return False


def test_of_many_names_the_oldest_are_held_and_no_more(monkeypatch):
    class Endless(MemoryFiles):
        def names(self, folder, limit=None, choose=list):
            return choose(f"{n * 7919 % 100_000:06}" for n in range(100_000))

    box = box_of(Endless(), monkeypatch, 500)
    tracemalloc.start()
    try:
        assert list(box.take(3, anything)) == ["000000", "000001", "000002"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_every_name_has_its_turn_though_none_goes_away(monkeypatch):
    box = box_of(folder_of(25), monkeypatch, 10)
    seen = [name for _ in range(8) for name in box.take(4, anything)]
    assert seen[:25] == sorted(set(seen)) and len(set(seen)) == 25


def test_what_is_not_wanted_takes_no_place(monkeypatch):
    box = box_of(folder_of(25), monkeypatch, 10)
    assert list(box.take(99, lambda name: name < "000020")) == [f"{n:06}" for n in range(20, 25)]
    assert not box.more


def test_a_listing_that_took_long_is_not_repeated_at_once(monkeypatch):
    now = [0.0]

    class Slow(MemoryFiles):
        def names(self, folder, limit=None, choose=list):
            now[0] += 1.0
            return choose(map(str, range(5)))

    box = box_of(Slow(), monkeypatch, 2)
    box._boottime = lambda: now[0]
    assert list(box.take(9, anything)) == ["0", "1"]
    now[0] = 1.0 + look.PATIENCE - 0.1
    assert not box.more and list(box.take(9, anything)) == []
    now[0] += 0.2
    assert box.more and list(box.take(9, anything)) == ["2", "3"]


def test_a_put_off_name_is_known_and_others_are_not():
    put_off = PutOff()
    assert "a" not in put_off
    for number in range(2000):
        put_off.add(f"name {number}")
    assert all(f"name {number}" in put_off for number in range(2000))
    assert not any(f"other {number}" in put_off for number in range(2000))


def test_what_is_put_off_is_forgotten_when_it_becomes_too_much(monkeypatch):
    monkeypatch.setattr(PutOff, "CAPACITY", 10)
    put_off = PutOff()
    for number in range(11):
        put_off.add(str(number))
    assert "10" in put_off and "0" not in put_off


# -- the book ------------------------------------------------------------------------------------


def limits(monkeypatch, full: int, reopens: int, most: int, share: int) -> None:
    for name, value in (("FULL", full), ("REOPENS", reopens), ("AT_MOST", most), ("SHARE", share)):
        monkeypatch.setattr(book, name, value)


def entry(number: int, owner: str = "alice", **fields) -> Entry:
    job = names.make_job(1e9 + number, b"abcd")
    return Entry(Envelope("thespool", job, owner, "source", **fields), b"")


def test_a_book_is_full_until_several_jobs_have_ended(monkeypatch):
    limits(monkeypatch, full=4, reopens=3, most=6, share=1)
    full = Book()
    entries = [entry(number) for number in range(4)]
    for one in entries:
        assert full.has_room("alice")
        full.add(one)
    assert not full.has_room("alice")
    full.move(entries[0], State.DONE)
    assert not full.has_room("alice")
    full.move(entries[1], State.FAILED)
    assert full.has_room("alice")


def test_a_full_book_has_room_for_the_first_jobs_of_others_within_bounds(monkeypatch):
    limits(monkeypatch, full=4, reopens=3, most=7, share=2)
    full = Book()
    for number in range(4):
        full.add(entry(number))
    for number in (4, 5):
        assert full.has_room("bob")
        full.add(entry(number, "bob"))
    assert not full.has_room("bob") and full.has_room("carol")
    full.add(entry(6, "carol"))
    assert not full.has_room("carol") and not full.has_room("dave")


def test_a_job_with_many_words_weighs_more():
    after = tuple(names.make_job(1e9 + n, b"dcba") for n in range(50))
    assert entry(1).weight == 1
    assert entry(1, after=after).weight == 51
    assert entry(1, needs=("x" * 800,)).weight == 3


# -- a full book, and what lies in incoming/ meanwhile -------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """A spool whose server has room for four jobs, and for one of each other person."""
    limits(monkeypatch, full=4, reopens=3, most=6, share=1)
    world = World(MemoryFiles())
    world.start_server()
    return world


def in_state(world: World, state: State, jobs: list[str]) -> list[str]:
    return [job for job in jobs if world.state(job) is state]


def end(world: World, *jobs: str) -> None:
    for number, job in enumerate(jobs):
        world.request(job, "cancel", nonce=f"{number:08}")
    world.settle_down()


def waiting(world: World) -> int:
    return len(world.files.names(layout.INCOMING))


def test_jobs_that_have_no_room_wait_and_are_taken_in_by_age(small):
    jobs = [small.submit() for _ in range(8)]
    small.settle_down()
    assert in_state(small, State.QUEUED, jobs) == jobs[:4]
    assert waiting(small) == 4
    end(small, jobs[0])
    assert waiting(small) == 4
    end(small, jobs[1])
    assert in_state(small, State.QUEUED, jobs) == jobs[2:6]
    end(small, *jobs[2:6])
    assert in_state(small, State.QUEUED, jobs) == jobs[6:]
    assert waiting(small) == 0


def test_a_flood_of_one_does_not_keep_the_first_job_of_another_out(small):
    jobs = [small.submit() for _ in range(8)]
    small.settle_down()
    first, second = small.submit(submitter="bob"), small.submit(submitter="bob")
    small.settle_down()
    assert in_state(small, State.QUEUED, [*jobs, first, second]) == [*jobs[:4], first]


def test_a_waiting_job_is_not_read_again_while_there_is_no_room(small):
    for _ in range(8):
        small.submit()
    small.settle_down()
    read = []
    plain = small.files.read
    small.files.read = lambda path, limit: read.append(path) or plain(path, limit)
    for _ in range(5):
        small.server.one_pass()
    assert not [path for path in read if path.startswith(layout.INCOMING)]


def test_a_cancel_for_a_waiting_job_is_served_when_that_is_taken_in(small):
    jobs = [small.submit() for _ in range(8)]
    small.settle_down()
    small.request(jobs[5], "cancel")
    small.request(jobs[6], "hold", nonce="zzzzzzzz")
    small.settle_down()
    assert waiting(small) == 6
    end(small, *jobs[:4])
    assert small.state(jobs[5]) is State.CANCELLED
    assert small.state(jobs[6]) is State.HELD


def test_a_cancel_is_served_though_the_book_is_full_again_before_it_is_read(small, monkeypatch):
    """Its job is the last that still had room; the request stands behind it by name."""
    jobs = [small.submit() for _ in range(8)]
    small.settle_down()
    small.request(jobs[5], "cancel", nonce="zzzzzzzz")
    small.settle_down()
    monkeypatch.setattr(look, "NAMES_AT_ONCE", 2)
    end(small, jobs[0], jobs[1])
    for _ in range(4):
        small.settle_down()
    assert small.state(jobs[5]) is State.CANCELLED


def test_requests_about_live_jobs_are_served_while_the_book_is_full(small):
    jobs = [small.submit() for _ in range(8)]
    small.settle_down()
    small.request(jobs[0], "hold")
    small.settle_down()
    assert small.state(jobs[0]) is State.HELD


def test_a_full_book_is_told_once(small):
    jobs = [small.submit() for _ in range(12)]
    small.settle_down()
    end(small, *jobs[:2])
    end(small, *jobs[2:4])
    assert len([line for line in small.log if "wait in incoming/" in line]) == 1


def test_a_second_drop_of_a_live_job_is_served_though_the_book_is_full(small):
    jobs = [small.submit() for _ in range(4)]
    small.settle_down()
    parts = small.parts(jobs[0])
    small.drop(layout.INCOMING, names.drop_name(jobs[0]), pack.join(parts))
    small.settle_down()
    assert waiting(small) == 0


def test_what_nobody_trusts_is_refused_though_the_book_is_full(small):
    for _ in range(4):
        small.submit()
    small.settle_down()
    small.submit(signer=MALLORY)
    small.settle_down()
    assert waiting(small) == 0 and len(small.files.names("rejected")) == 1


def test_a_server_that_starts_with_a_full_book_takes_in_what_waits_later(small):
    jobs = [small.submit() for _ in range(6)]
    small.settle_down()
    small.start_server()
    small.settle_down()
    assert in_state(small, State.QUEUED, jobs) == jobs[:4]
    end(small, *jobs[:4])
    assert in_state(small, State.QUEUED, jobs) == jobs[4:]


def test_jobs_that_wait_for_ever_are_noticed_by_these_tests(small, monkeypatch):
    """A planted bug: what was put off once stays so."""
    monkeypatch.setattr(look.Look, "_is_put_off", lambda self, name: True)
    monkeypatch.setattr(look, "_nothing", lambda name: name in small.server._look._put_off)
    jobs = [small.submit() for _ in range(8)]
    small.settle_down()
    end(small, *jobs[:4])
    assert waiting(small) > 0


def test_a_server_with_room_for_next_to_nothing_loses_nothing_in_the_simulator():
    assert bulk.simulated(range(30)) == []


def test_a_server_that_forgets_what_it_has_put_off_is_caught_in_the_simulator(monkeypatch):
    """A planted bug: what was put off once is never looked at again."""
    plain = look.Look.incoming

    def incoming(self):
        monkeypatch.setattr(look, "_nothing", self._put_off.__contains__)
        return plain(self)

    monkeypatch.setattr(look.Look, "incoming", incoming)
    assert bulk.simulated(range(60))


# -- the other drop boxes ------------------------------------------------------------------------


@pytest.mark.parametrize("box", [layout.LOCKS, layout.RESULTS])
def test_junk_in_a_box_of_workers_is_served_in_pieces_and_hides_nothing(box, monkeypatch):
    monkeypatch.setattr(look, "NAMES_HELD", 20)
    monkeypatch.setattr(look, "CLAIMS_AT_ONCE", 8)
    world = World(MemoryFiles())
    world.start_server()
    job = world.submit()
    world.settle_down()
    for number in range(50):
        world.files.write(f"{box}/{number:03}", b"junk")
    run = world.enrol()
    world.claim(run, job)
    changes = [world.server.one_pass() for _ in range(12)]
    assert max(changes) <= 2 * 8 + 1
    world.deliver(job, 1, run)
    world.settle_down()
    assert world.state(job) is State.DONE
    assert world.files.names(box) == []


def test_ended_jobs_are_counted_at_the_start_without_a_list_of_them():
    class Watched(MemoryFiles):
        def names(self, folder, limit=None, choose=list):
            assert choose is not list or folder not in ("done", "rejected"), folder
            return super().names(folder, limit, choose)

    world = World(Watched())
    for number in range(3):
        world.files.make_folder(f"done/{names.make_job(1e9 + number, b'abcd')}")
    assert world.start_server().book.counts["done"] == 3


def test_only_so_many_paths_that_cannot_be_moved_are_remembered(monkeypatch):
    monkeypatch.setattr(serve, "MOST_STUCK", 3)
    world = World(MemoryFiles())
    server = world.start_server()
    for number in range(9):
        server._stick(f"incoming/{number}", "no")
    assert len(server._stuck) == 3




def test_the_protocol_tells_these_limits():
    numbers = (book.FULL, book.REOPENS, book.AT_MOST, book.SHARE, look.NAMES_HELD)
    text = Path(__file__).parent.parent.joinpath("docs/format.md").read_text()
    told = text.split("**When there is much.**")[1].split("\n\n")[0]
    assert not [number for number in numbers if f"{number:,}" not in told]
