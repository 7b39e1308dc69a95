"""A flood of one person, and the first job of another: calm weather, no faults.

The bound: from its acknowledgement to its start another's first job waits for at most one job of the
flood, and the moment in which the server and a worker get to hear of it (`HEARD`).
"""

from __future__ import annotations

from dsage_spool.client.compose import Options, source_work
from dsage_spool.client.session import Session

from .machines import Process
from .parties import Client
from .weather import Focus
from .world import Run, World, simulated

FLOOD = 30  # jobs
HEARD = 6.0  # seconds: the longest polls of server and worker, by slow clocks, and some round trips
CALM = Focus((), {
    "faults": (), "sudden": 0.0, "nerve": 0.0, "poison": False, "clients": (), "seconds": 1.0,
})  # fmt: skip


class Flooder(Client):
    """Submits all at once; every job takes `length` seconds."""

    length = 1.0

    def _submit(self, session: Session) -> None:
        works = [source_work(self._payload()) for _ in range(self.to_submit)]
        self._note(session, works, Options())

    def _payload(self) -> str:
        return f"{self.length} {self.world.chance.randrange(10**6)} ok"


def run(seed: int, told: bool = False) -> Run:
    """One flood, drawn from a seed: how long its jobs are, who works where, when the other comes."""
    return simulated(World(seed, told, CALM), _flood, _late_start)


def _flood(world: World) -> None:
    length = world.chance.choice((0.05, 0.5, 3.0, 20.0))
    alice, bob = (Flooder(world, owner, False, count) for owner, count in (("alice", FLOOD), ("bob", 1)))
    alice.length = bob.length = length
    _begin(world, alice, 0.0)
    _begin(world, bob, world.chance.uniform(0.5, 2.0))
    world.bob, world.length = bob, length


def _begin(world: World, client: Client, after: float) -> None:
    def main(process: Process) -> None:
        process.pause(after)
        client.main(process)

    world.unfinished.add(client.owner)
    world.keep_up(world.machine(f"m-{client.owner}"), client.owner, main)


def _late_start(world: World) -> None:
    [job] = world.bob.jobs
    waited = world.oracle.started_at[job] - world.oracle.acked_at[job]
    world.sim.tell("ORACLE", f"bob waited {waited:.2f} s, jobs take {world.length} s")
    if waited > world.length + HEARD:
        world.oracle.fail(f"bob's first job waited {waited:.2f} s behind jobs of {world.length} s")
