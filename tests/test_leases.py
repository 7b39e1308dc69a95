"""Who is lost: only change counts, only on the clock that was handed in."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool.server.leases import Leases
from dsage_spool.timing import Times

L = 120.0
STEP = Times(L).watch


def watch(leases: Leases, seconds: float, fingerprint, start: float = 0.0) -> list[float]:
    """Looks at one run `a` in even steps; when it was found lost."""
    lost, now = [], start
    while now <= start + seconds:
        value = fingerprint(now) if callable(fingerprint) else fingerprint
        if leases.observe(now, {"a": value}):
            lost.append(now)
        now += STEP
    return lost


def test_a_run_that_never_changes_is_lost_after_a_lease():
    lost = watch(Leases(Times(L)), 3 * L, "same")
    assert L < lost[0] <= L + 2 * STEP


def test_a_run_that_changes_now_and_then_is_never_lost():
    assert watch(Leases(Times(L)), 50 * L, lambda now: now // (L - 2 * STEP)) == []


def test_a_file_that_is_gone_is_no_change():
    leases = Leases(Times(L))
    assert watch(leases, L / 2, "there") == []
    lost = watch(leases, 2 * L, None, start=L / 2 + STEP)
    assert L < lost[0] <= L + 2 * STEP


def test_a_file_that_comes_back_as_it_was_is_no_change():
    assert watch(Leases(Times(L)), 2 * L, lambda now: None if now % 20 else "same") != []


@pytest.mark.parametrize("pause", [Times(L).server_gap + 1, L, 100 * L])
def test_after_a_pause_of_the_server_all_observations_start_anew(pause):
    leases = Leases(Times(L))
    assert watch(leases, L, "same") == []
    start = L + pause
    lost = watch(leases, 3 * L, "same", start=start)
    assert lost[0] - start > L


def test_a_pause_that_is_short_forgives_nothing():
    leases = Leases(Times(L))
    watch(leases, L - STEP, "same")
    assert leases.observe(L - STEP + Times(L).server_gap, {"a": "same"}) == ["a"]


def test_only_the_one_that_is_silent_is_lost():
    leases, now, lost = Leases(Times(L)), 0.0, set()
    while now < 2 * L:
        lost |= set(leases.observe(now, {"a": "same", "b": now}))
        now += STEP
    assert lost == {"a"}


def test_a_run_that_was_not_watched_for_a_while_starts_anew():
    leases = Leases(Times(L))
    watch(leases, L, "same")
    leases.observe(L + STEP, {})
    assert leases.observe(L + 2 * STEP, {"a": "same"}) == []


def test_dates_in_a_fingerprint_mean_nothing():
    """A forged or skewed time stamp is a change like any other, and silence like any other."""
    assert watch(Leases(Times(L)), 3 * L, ("file", 10.0, 9e9)) != []
    assert watch(Leases(Times(L)), 3 * L, lambda now: ("file", 10.0, -now)) == []


def test_it_is_time_to_look_after_a_twelfth_of_a_lease():
    leases = Leases(Times(L))
    assert leases.due(0.0)
    leases.observe(0.0, {})
    assert not leases.due(STEP - 0.1)
    assert leases.due(STEP)


def test_who_is_forgotten_starts_anew():
    leases = Leases(Times(L))
    watch(leases, L, "same")
    leases.forget(["a", "never seen"])
    assert leases.observe(L + STEP, {"a": "same"}) == []


@given(st.lists(st.tuples(st.floats(0.1, 200), st.sampled_from(["x", "y", None])), max_size=60))
def test_nobody_is_lost_within_a_lease_of_a_change_that_was_seen(looks):
    leases, now, changed, last = Leases(Times(L)), 0.0, None, object()
    for pause, value in looks:
        now += pause
        if changed is None or (value is not None and value != last):
            changed, last = now, value
        if leases.observe(now, {"a": value}):
            assert now - changed > L


def test_a_server_that_stands_still_while_it_looks_takes_nobody_for_lost_too_early():
    leases = Leases(Times(60.0))
    assert leases.observe(0.0, {"a": 1}) == []
    assert leases.observe(10.0, {"a": 2}, after=25.0) == []  # seen at 25, not at 10
    for now in range(30, 86, 5):
        assert leases.observe(float(now), {"a": 2}) == []
    assert leases.observe(90.0, {"a": 2}) == ["a"]
