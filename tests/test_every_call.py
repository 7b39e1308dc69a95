"""Killed at any file-system call, or met by an error there: a sample of what the proof tries."""

from __future__ import annotations

import os
import random as chance
import signal
import time

import pytest

from proof import every_call
from proof.every_call import CATCHES, Crew, Series, sample, verbs
from proof.tracing import KINDS, Fault, Strange, calls
from signed_jobs import is_gone, wait_until

SECONDS = 4.0  # of wall time, after which the sample begins nothing new
AT_LEAST = 6  # trials, however slow the machine is


@pytest.fixture(scope="module")
def crew():
    if lacking := every_call.why_not():
        pytest.skip(lacking)
    with Crew(1) as made:
        yield made


def test_verbs_that_are_struck_anywhere_lose_nothing_and_leave_nothing_half(crew):
    seed = chance.SystemRandom().randrange(1 << 32)
    chosen, end, trials = chance.Random(seed), time.monotonic() + SECONDS, 0
    stories = crew.ask("stories")
    chosen.shuffle(stories)
    for story in stories:
        for kind in KINDS:
            [struck] = crew.strike(list(sample(verbs(crew, [story]), kind, 1, chosen)))
            assert not struck.violations, f"seed {seed}"
            trials += struck.points
        if trials >= AT_LEAST and time.monotonic() > end:
            return


def test_every_planted_bug_is_caught(crew):
    struck = every_call.strike_planted(crew)
    missed = [one.series.plant for one in struck if not one.violations]
    assert len(struck) == len(CATCHES) >= 7 and not missed


def check_all(crew, *series: Series) -> None:
    """Faults that once were a bug each."""
    for struck in crew.strike(series):
        assert struck.points and not struck.violations


def test_a_job_is_acknowledged_though_its_short_name_cannot_be_noted(crew):
    """The file of short names is opened last."""
    [verb] = verbs(crew, ["client submit of 1"])
    check_all(crew, Series(verb.story, "openat", "ENOSPC", (verb.calls["openat"],)))


def test_a_server_outlives_a_disk_that_stays_full_and_cannot_even_log(crew):
    check_all(crew, Series("server accept", "write", "ENOSPC", (1, 5), more=4))


def test_a_lock_that_the_disk_does_not_give_is_not_taken_for_a_lost_one(crew):
    check_all(crew, Series("server opening after expire 1 torn", "read", "EIO"))


def test_a_lost_worker_does_not_live_longer_by_what_the_server_removes(crew):
    check_all(crew, Series("server everything", "rename", "EIO", (2, 3)))


def test_a_pass_that_failed_gives_nobody_another_turn(crew):
    check_all(crew, Series("server late_in_the_same_pass", "read", "EIO", (1,)))


def test_all_calls_of_a_verb_are_counted_and_no_others(crew):
    """So the counters of strace begin at the verb, and no import happens in it."""
    for verb in verbs(crew, ["server settle", "client submit of 8", "worker deliver"]):
        assert not verb.elsewhere
        assert {"openat", "write", "rename", "close"} <= set(verb.calls)
        assert verb.calls.keys() & {"fsync", "syncfs"}
        [struck] = crew.strike([Series(verb.story, "rename", "KILL")])
        assert struck.points == verb.calls["rename"]


def test_a_trace_tells_what_does_not_touch_the_folder():
    trace = [
        'openat(AT_FDCWD</x>, "/spool/a", O_RDONLY) = 3</spool/a>',
        "poll([{fd=5<socket:[1]>, events=POLLIN}], 1, -1) = 1",
        'openat(AT_FDCWD</x>, "/lib/codec.py", O_RDONLY) = 3</lib/codec.py>',
        "+++ exited with 0 +++",
    ]
    assert calls(trace, "/spool") == ({"openat": 2}, [trace[2]])


def test_a_fault_is_told_as_it_can_be_repeated():
    assert str(Fault("rename", "KILL", 3)) == "KILL at rename 3"
    assert str(Fault("write", "ENOSPC", 1, more=4)) == "ENOSPC x5 at write 1"


def test_where_nothing_can_be_traced_every_row_says_why(monkeypatch):
    monkeypatch.setattr(every_call, "why_not", lambda: "strace is not installed")
    rows = every_call.prove("quick")
    assert len(rows) == 11
    assert all(row.not_run == "strace is not installed" and not row.n for row in rows)


def test_nothing_is_left_of_a_crew_whose_process_is_killed(crew):
    with Crew(1) as other:
        pid, folder = other.pids[0], other.folder
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Strange):
            other.ask("stories")
    wait_until(lambda: is_gone(pid), "it is gone")
    assert not folder.exists()
