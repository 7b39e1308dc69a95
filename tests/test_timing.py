"""The times that parties must agree on."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool.server.leases import Leases
from dsage_spool.spool import settings
from dsage_spool.errors import BadFormat
from dsage_spool.timing import DEFAULT_LEASE, SHORTEST_LEASE, Times, patience
from dsage_spool.worker.heart import Heart
from spool_world import FakeClock

LEASES = st.floats(SHORTEST_LEASE, 30 * 86_400)


@given(LEASES)
def test_the_inequality_holds_for_every_lease(lease):
    times = Times(lease)
    assert times.holds()
    assert 3 * times.heartbeat < times.give_up < times.lease
    assert times.give_up <= times.lease - times.lease / 4
    # The server's own observations are never older than its patience with itself.
    assert 2 * times.watch < times.server_gap < times.give_up
    assert times.watch < times.heartbeat


@pytest.mark.parametrize("lease", [SHORTEST_LEASE, 2.0, 10.0, DEFAULT_LEASE, 3600.0, 30 * 86_400.0])
def test_a_spool_may_have_this_lease(lease):
    made = settings.Settings("0123456789", lease=lease)
    assert settings.parse(settings.make(made)) == made


@pytest.mark.parametrize("lease", ["0", "0.5", "-1", "1e9", "NaN", "Infinity", '"120"', "null", "[]"])
def test_a_spool_may_not_have_this_lease(lease):
    with pytest.raises(BadFormat):
        settings.parse(f'{{"format": 1, "id": "0123456789", "lease": {lease}}}'.encode())


@given(LEASES, st.floats(0, 1), st.floats(0, 1))
def test_a_worker_has_stopped_before_the_server_gives_its_jobs_away(lease, sent, seen):
    """The last heartbeat arrives, the line is cut: whatever the delays, the worker is first."""
    times, clock = Times(lease), FakeClock()
    clock.now = sent * lease
    heart = Heart(clock, times, "kiwi.00000000", 10)
    leases, now = Leases(times), clock.now + seen * times.watch  # the first look after it
    while not leases.observe(now, {"kiwi.00000000": "same"}):
        now += times.watch
    clock.now = now
    assert heart.must_stop()
    clock.now = now - (times.lease - times.give_up) + 1e-6 * lease
    assert heart.must_stop()


@given(st.floats(0, 1e6), st.floats(0.01, 100))
def test_patience_grows_with_the_silence_and_is_bounded(idle, longest):
    pause = patience(idle, longest)
    assert min(0.002, longest) <= pause <= longest
    assert pause <= max(0.002, idle / 10)
    assert patience(idle + 1, longest) >= pause
