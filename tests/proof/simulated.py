"""The simulator as a harness: seeds by the thousand on all cores, its planted bugs, its floods."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Callable, Sequence

from simulator import fairness, world
from simulator.planted import FOCUS, GALLERY, UNFAIR, planted
from simulator.weather import Focus

from .promises import Outcome

SEEDS = {"quick": 2_000, "full": 20_000}
FLOODS = {"quick": 20, "full": 200}
BUDGET = 400  # seeds in which a planted bug must show
CHUNK = 50

Report = tuple[list[str], int, float]  # violations, operations, CPU seconds


def prove(level: str) -> list[Outcome]:
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        return [
            _row((1, 2, 3, 5), "simulated cluster: crashes, power, network, clocks, forgery",
                 pool, _weather, SEEDS[level]),
            _row((6,), "simulated flood of 30 jobs, another's first job", pool, _floods, FLOODS[level]),
            _planted_row(pool),
        ]  # fmt: skip


def _row(
    promises: tuple[int, ...], method: str, pool: ProcessPoolExecutor, work: Callable, seeds: int
) -> Outcome:
    began = time.monotonic()
    parts = [range(first, min(first + CHUNK, seeds)) for first in range(0, seeds, CHUNK)]
    told = list(pool.map(work, parts))
    operations, cpu = sum(one[1] for one in told), sum(one[2] for one in told)
    return Outcome(
        promises=promises,
        method=method,
        n=seeds,
        unit="seeds",
        violations=tuple(line for one in told for line in one[0]),
        seconds=round(time.monotonic() - began, 1),
        seeds=f"0-{seeds - 1}",
        notes=(f"{operations} file operations, {operations / cpu:,.0f} a second and core",),
    )


def _weather(seeds: Sequence[int]) -> Report:
    return _report(seeds, world.run, "python -m simulator {}")


def _floods(seeds: Sequence[int]) -> Report:
    return _report(seeds, fairness.run, "simulator.fairness.run({}, told=True)")


def _report(seeds: Sequence[int], run: Callable[[int], world.Run], replay: str) -> Report:
    began, violations, operations = time.process_time(), [], 0
    for seed in seeds:
        found = run(seed)
        operations += found.operations
        violations += [f"{replay.format(seed)}: {text}" for text in found.violations[:1]]
    return violations, operations, time.process_time() - began


def _planted_row(pool: ProcessPoolExecutor) -> Outcome:
    began = time.monotonic()
    bugs = [*GALLERY, UNFAIR]
    seeds = list(pool.map(seeds_until_caught, bugs))
    return Outcome(
        promises=(1, 2, 3, 5, 6),
        method="bugs planted in the shipped code, which the simulator must catch",
        n=len(bugs),
        unit="bugs",
        violations=tuple(f"{bug}: not caught in {BUDGET} seeds" for bug, n in zip(bugs, seeds) if not n),
        seconds=round(time.monotonic() - began, 1),
        notes=(f"each within {max(seeds)} seeds, {sorted(seeds)[len(seeds) // 2]} at the median",),
    )


def seeds_until_caught(bug: str) -> int:
    """How many seeds it took; 0 if none in the budget showed it."""
    with planted(bug):
        for seed in range(BUDGET):
            found = fairness.run(seed) if bug == UNFAIR else world.run(seed, focus=_focus(bug))
            if found.violations:
                return seed + 1
    return 0


def _focus(bug: str) -> Focus:
    return FOCUS.get(bug, Focus())
