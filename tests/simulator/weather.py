"""What goes wrong in one run, drawn from its seed: some runs are calm, most have a few kinds of faults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Mapping

# A kind of fault: how often it comes in a run in which it comes at all.
KINDS = {
    "kill server": 3,
    "kill worker": 3,
    "kill client": 2,
    "stop worker": 1,
    "freeze": 2,
    "sleep": 2,
    "box loses power": 2,
    "worker loses power": 1,
    "cut": 2,
    "reset": 2,
    "lossy": 2,
    "disk full": 1,
    "disk error": 3,
    "clock jumps": 2,
    "forgery": 4,
}


FAILING = ("sync", "sync", "write", "append", "read", "move", "link", "remove")
AT_ONCE = ("box loses power", "box loses power", "kill server", "kill worker", "reset", "disk error")


@dataclass(frozen=True)
class Weather:
    """`faults`: moments (seconds of true time) and kinds; `sudden`: chance of a fault by operation;
    `nerve`: chance of one right after something that matters (an acknowledgement, a start, an end);
    `lossy`: chance that a batch of requests is lost; `failing`: operations that a bad disk refuses;
    `at_once`: what comes with `nerve`."""

    lease: float
    seconds: float
    ordered_disk: bool
    events_lost: float
    sudden: float
    nerve: float
    lossy: float
    failing: tuple[str, ...]
    at_once: tuple[str, ...]
    faults: tuple[tuple[float, str], ...]
    workers: tuple[tuple[int, bool, bool], ...]  # slots, on the box, from cron
    clients: tuple[tuple[str, bool, int], ...]  # owner, on the box, jobs
    poison: bool


@dataclass(frozen=True)
class Focus:
    """Where to look: `kinds` come in any case, and often; `fixed` values of the weather are not drawn."""

    kinds: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


def draw(chance: Random, focus: Focus = Focus()) -> Weather:
    return replace(_drawn(chance, focus.kinds), **focus.fixed)


def _drawn(chance: Random, kinds: tuple[str, ...]) -> Weather:
    seconds = chance.choice((8.0, 16.0, 30.0))
    lease = chance.choice((4.0, 8.0, 16.0))
    return Weather(
        lease=lease,
        seconds=seconds,
        ordered_disk=chance.random() < 0.4,
        events_lost=chance.choice((0.0, 0.3, 1.0)),
        sudden=chance.choice((0.0, 0.3, 0.8, 0.9)),
        nerve=chance.choice((0.0, 0.0, 0.05, 0.2)),
        lossy=chance.choice((0.0, 0.0, 0.0, 0.02)),
        failing=FAILING,
        at_once=AT_ONCE,
        faults=_faults(chance, seconds, kinds),
        workers=_workers(chance),
        clients=_clients(chance),
        poison=chance.random() < 0.2,
    )


def _faults(chance: Random, seconds: float, focus: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    counts = {kind: chance.randint(1, most) for kind, most in KINDS.items() if chance.random() < 0.4}
    counts |= {kind: chance.randint(2, 8) for kind in focus}
    times = [(chance.uniform(0, seconds), kind) for kind, n in counts.items() for _ in range(n)]
    return tuple(sorted(times))


def _workers(chance: Random) -> tuple[tuple[int, bool, bool], ...]:
    """At least one that stays, so that everything can end."""
    first = (chance.choice((1, 1, 2)), chance.random() < 0.3, False)
    others = [
        (chance.choice((1, 1, 2)), chance.random() < 0.3, chance.random() < 0.4)
        for _ in range(chance.choice((0, 1, 1, 2)))
    ]
    return (first, *others)


def _clients(chance: Random) -> tuple[tuple[str, bool, int], ...]:
    owners = ["alice"] if chance.random() < 0.6 else ["alice", "bob"]
    return tuple((owner, chance.random() < 0.3, chance.randint(1, 5)) for owner in owners)
