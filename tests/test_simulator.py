"""The simulator finds nothing in the shipped code, and finds every bug that is planted in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator import fairness, world
from simulator.planted import FOCUS, GALLERY, UNFAIR, planted
from simulator.weather import Focus

FIXED, FRESH, AT_ONCE = 2000, 500, 100  # seeds
BUDGET = 400  # seeds in which a planted bug must show
HERE = Path(__file__).parent
FRESH_FROM = int.from_bytes(os.urandom(4), "big") + FIXED


pytestmark = pytest.mark.once


def broken(seeds: range) -> list[str]:
    """What the first seed that breaks a promise has to say."""
    for seed in seeds:
        found = world.run(seed).violations
        if found:
            return [f"replay with: python -m simulator {seed}", *found]
    return []


@pytest.mark.parametrize("first", range(0, FIXED, AT_ONCE))
def test_no_fixed_seed_breaks_a_promise(first):
    assert broken(range(first, first + AT_ONCE)) == []


@pytest.mark.parametrize("part", range(0, FRESH, AT_ONCE))
def test_no_fresh_seed_breaks_a_promise(part):
    assert broken(range(FRESH_FROM + part, FRESH_FROM + part + AT_ONCE)) == []


@pytest.mark.parametrize("bug", GALLERY)
def test_a_planted_bug_is_caught(bug):
    with planted(bug):
        caught = any(world.run(seed, focus=FOCUS.get(bug, Focus())).violations for seed in range(BUDGET))
    assert caught, f"{bug}: not caught in {BUDGET} seeds"


def test_a_flood_delays_anothers_first_job_by_one_job_at_most():
    assert [fairness.run(seed).violations for seed in range(20)] == [[]] * 20


def test_a_queue_that_is_first_come_first_served_is_caught():
    with planted(UNFAIR):
        assert any(fairness.run(seed).violations for seed in range(5))


def story(seed: int, hashes: str) -> str:
    """As somebody would replay it, in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hashes}
    told = subprocess.run(
        [sys.executable, "-m", "simulator", str(seed)], cwd=HERE, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_a_seed_tells_the_same_story_in_every_process():
    first, second = (story(7, hashes) for hashes in ("1", "2"))
    assert first == second and first.count("\n") > 200
