"""The queue file: advice that is read by machines that its writer does not know."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool import layout, queuefile
from dsage_spool.errors import BadFormat, BadVersion, Torn
from dsage_spool.queuefile import Next, Running
from dsage_spool.spool import reading

JOB = "20261122T232140-4k2m7qx9ab"
TITLES = st.text(max_size=80)


def text(*lines: str) -> bytes:
    return queuefile.finish(list(lines))


@given(TITLES, st.integers(-1000, 1000), st.lists(st.sampled_from(["gpu", "sympy=1.14", "memory=5"])))
def test_a_line_of_what_runs_next_is_read_as_it_was_written(title, priority, needs):
    row = Next(JOB, 3, priority, "alice", tuple(needs), title)
    [found] = queuefile.parse(text(queuefile.next_line(row))).next
    assert (found.job, found.attempt, found.priority, found.owner) == (JOB, 3, priority, "alice")
    assert found.needs == tuple(needs) and "\n" not in found.title and len(found.title) <= 60


@given(TITLES)
def test_a_line_of_what_runs_now_is_read_as_it_was_written(title):
    row = Running(JOB, 2, "kiwi", 1795389650.0, "alice", title)
    [found] = queuefile.parse(text(queuefile.running_line(row))).running
    assert (found.job, found.attempt, found.worker, found.since) == (JOB, 2, "kiwi", 1795389650.0)


def test_the_head_is_read_as_it_was_written():
    head = queuefile.head_lines(1795389700.4, "20261122.3", "box 4711", {"queued": 3, "done": 100_000})
    view = queuefile.parse(queuefile.finish(head))
    assert (view.written, view.journal, view.server) == (1795389700, "20261122.3", "box 4711")
    assert view.counts == {"queued": 3, "done": 100_000}


def test_the_numbers_of_an_owner_are_read_as_they_were_written():
    view = queuefile.parse(text(queuefile.owner_line("alice", {"queued": 2, "use": 311.2})))
    assert view.owners == {"alice": {"queued": 2, "use": 311.2}}


def test_two_versions_mixed_are_torn_wherever_the_seam_is():
    old, new = (text(f"written: {n}", "journal: 20261122.1", "next: " + "x" * n) for n in (7, 23))
    for at in range(len(text("")) + 1, len(old)):
        with pytest.raises(Torn):
            queuefile.parse(new[:at] + old[at:])
        with pytest.raises(Torn):
            queuefile.parse(new[:at])


class Mixture:
    """Files of which the first `torn` reads find a file that is being written."""

    def __init__(self, torn: int) -> None:
        self.torn, self.reads = torn, 0

    def read(self, path: str, limit: int) -> bytes:
        assert path == layout.QUEUE
        self.reads += 1
        return text("written: 5")[: -1 if self.reads <= self.torn else None]


def test_a_reader_of_a_mixture_reads_again():
    files = Mixture(reading.READS - 1)
    assert reading.read_queue(files).written == 5 and files.reads == reading.READS


def test_a_file_that_stays_a_mixture_is_an_answer_and_no_endless_loop():
    files = Mixture(1000)
    with pytest.raises(Torn):
        reading.read_queue(files)
    assert files.reads == reading.READS


@pytest.mark.parametrize("line", [
    "next: too few", f"next: {JOB} x 0 alice - t", f"next: {JOB} 1 x alice - t", "next: ../../x 1 0 alice - t",
    "written: soon", "counts: queued=many", "counts: queued=inf", "counts: queued=nan", "counts: queued",
    "owner: alice use=lots", f"running: {JOB} 1 kiwi when alice t", "colour: red", "", ":", "next", "\x1b[2J",
    "written: " + "9" * 5000, f"next: {JOB} {'9' * 5000} 0 alice - t", f"next: {JOB} 1 0 alice -",
])  # fmt: skip
def test_a_line_that_cannot_be_read_is_passed_over(line):
    good = queuefile.next_line(Next(JOB, 1, 0, "alice", (), "t"))
    view = queuefile.parse(text(line, good))
    assert [row.job for row in view.next] == [JOB]


@given(st.lists(st.text(max_size=60), max_size=8), st.binary(max_size=200))
def test_no_lines_do_more_than_be_passed_over(lines, data):
    keys = ["written: ", "journal: ", "counts: ", "owner: ", "running: ", "next: ", "server: "]
    queuefile.parse(text(*(key + line for key in keys for line in lines)))
    with pytest.raises(Torn):
        queuefile.parse(text() + b"x" + data)


@pytest.mark.parametrize("data", [b"", b"x", b"\xff", b"queue: 1\n"])
def test_another_file_is_refused(data):
    with pytest.raises(BadFormat, match="first line"):
        queuefile.parse(data)


def test_another_version_is_refused():
    with pytest.raises(BadVersion, match="another release"):
        queuefile.parse(b"dsage-spool-queue: 2\n")


def test_hostile_words_are_harmless_when_they_are_read():
    line = f"running: {JOB} 1 ki\x1bwi 5 al\u202eice ti\x07tle"
    [row] = queuefile.parse(text(line)).running
    assert (row.worker, row.owner, row.title) == ("ki?wi", "al?ice", "ti?tle")
