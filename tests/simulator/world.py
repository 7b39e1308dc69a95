"""One run: a box, workers and clients, the weather of a seed, and after it a time to come to rest."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from random import Random
from typing import Any, Callable

from dsage_spool import layout, signing
from dsage_spool.errors import DiskError, NoSpace, SpoolError
from dsage_spool.signing import JOB_NAMESPACE, RESULT_NAMESPACE
from dsage_spool.spool import making

from . import parties
from .arithmetic import HashSigner, cheap_signatures
from .disk import Disk
from .machines import Machine, Process, Simulation
from .network import Network
from .oracle import Oracle
from .weather import Focus, draw

REST = 1200.0  # seconds of calm in which everything must have ended
FAULT_OPS = 250  # a sudden fault strikes within so many operations of a process
OWNERS = ("alice", "bob")
WORKERS = ("kiwi", "fig", "plum")


def _nothing(world: Any) -> None:
    return None


@dataclass
class Run:
    """What one seed came to."""

    seed: int
    violations: list[str]
    operations: int
    story: list[str] = field(default_factory=list)


class World:
    def __init__(self, seed: int, told: bool = False, focus: Focus = Focus()) -> None:
        chance = Random(seed)
        self.seed, self.chance, self.sim = seed, chance, Simulation(chance, told)
        self.weather = draw(chance, focus)
        self.calm = False
        self.box = Machine(self.sim, "box")
        self.disk = Disk(self.box.wall, chance, self.weather.ordered_disk)
        with cheap_signatures():
            self.signers = {name: HashSigner(name) for name in (*OWNERS, *WORKERS, "mallory")}
            self.settings = self._make_spool()
        self.oracle = Oracle(self.sim, self.disk)
        self.oracle.on_moment = self._at_once
        self.network = Network(self.sim, self.box, self.disk, self.weather.lease)
        self.network.lossy = self.weather.lossy
        self.trouble: Callable[[str, tuple], None] | None = None
        self.machines: dict[str, Machine] = {"box": self.box}
        self.own_disks: dict[str, Disk] = {}
        self.unfinished: set[str] = set()  # clients that still want something

    def _make_spool(self) -> Any:
        made = making.make_spool(self.disk, self.chance.randbytes, "today", lease=self.weather.lease)
        lines = [(name, JOB_NAMESPACE) for name in OWNERS]
        lines += [(name, RESULT_NAMESPACE) for name in WORKERS]
        roster = "".join(
            signing.line_for(name, self.signers[name].public, space) + "\n" for name, space in lines
        )
        self.disk.append(layout.ROSTER, roster.encode())
        self.disk.settle_all()
        return made

    # -- who is there --------------------------------------------------------------------------

    def begin(self) -> None:
        self.start_server()
        for (slots, local, cron), name in zip(self.weather.workers, WORKERS):
            machine = self.box if local else self.machine(f"m-{name}")
            self.own_disks[name] = Disk(machine.wall, self.chance, True)
            self._begin_worker(machine, name, slots, local, cron)
        for owner, local, count in self.weather.clients:
            machine = self.box if local else self.machine(f"m-{owner}")
            client = parties.Client(self, owner, local, count)
            self.unfinished.add(owner)
            self.keep_up(machine, owner, client.main)
        for moment, kind in self.weather.faults:
            self.sim.at(moment, self._strike, kind)

    def machine(self, name: str) -> Machine:
        return self.machines.setdefault(name, Machine(self.sim, name))

    def start_server(self) -> None:
        self.keep_up(self.box, "server", lambda process: parties.serve(self, process))

    def _begin_worker(self, machine: Machine, name: str, slots: int, local: bool, cron: bool) -> None:
        def main(process: Process) -> None:
            parties.work(self, process, name, slots, local, cron)

        self.keep_up(machine, name, main)

    def keep_up(self, machine: Machine, name: str, main: Callable[[Process], None]) -> None:
        """Start a party, and again a while after each of its ends, as systemd or cron would."""
        if name in OWNERS and name not in self.unfinished:
            return
        if not machine.up:
            return self.sim.after(0.5, self.keep_up, machine, name, main)
        process = Process(machine, name, lambda process: self._guarded(process, main))
        if not self.calm and self.chance.random() < self.weather.sudden:
            process.fault_at = self.chance.randint(1, FAULT_OPS)
            process.fault = self.chance.choice(("before", "after", "torn", "freeze"))
            process.freezes = self.chance.uniform(0.1, 2.5) * self.weather.lease
        process.on_end.append(
            lambda: self.sim.after(self.chance.uniform(0.2, 4), self.keep_up, machine, name, main)
        )

    def _guarded(self, process: Process, main: Callable[[Process], None]) -> None:
        """An error of ours ends a party, as on a command line; any other is a bug."""
        try:
            main(process)
        except SpoolError as error:
            self.sim.tell(process.name, f"ends: {error}")
        except Exception:
            self.oracle.fail(f"{process.name} crashes: {traceback.format_exc(limit=-4)}")

    # -- what goes wrong -----------------------------------------------------------------------

    def _strike(self, kind: str) -> None:
        if not self.calm:
            self.sim.tell("WEATHER", kind)
            getattr(self, "_" + kind.replace(" ", "_"))()

    def _at_once(self) -> None:
        """Something that matters has happened: trouble comes at once, or within a moment."""
        if not self.calm and self.chance.random() < self.weather.nerve:
            pause = self.chance.choice((0.0, 0.001, 0.003, 0.2)) * self.chance.random()
            self.sim.after(pause, self._strike, self.chance.choice(self.weather.at_once))

    def _processes(self, *names: str) -> list[Process]:
        return [p for machine in self.machines.values() for p in machine.processes if p.name in names]

    def _kill_some(self, *names: str) -> None:
        if some := self._processes(*names):
            self.chance.choice(some).kill()

    def _kill_server(self) -> None:
        self._kill_some("server")

    def _kill_worker(self) -> None:
        self._kill_some(*WORKERS)

    def _kill_client(self) -> None:
        self._kill_some(*OWNERS)

    def _stop_worker(self) -> None:
        if some := self._processes(*WORKERS):
            self.chance.choice(some).stopping = True

    def _freeze(self) -> None:
        if some := self._processes("server", *WORKERS, *OWNERS):
            process = self.chance.choice(some)
            process.frozen_until = self.sim.now + self.chance.uniform(0.1, 2.5) * self.weather.lease
            self.sim.tell(process.name, f"is frozen until {process.frozen_until:.2f}")

    def _sleep(self) -> None:
        machine = self.chance.choice(list(self.machines.values()))
        machine.asleep_until = self.sim.now + self.chance.uniform(0.1, 2.5) * self.weather.lease
        self.sim.tell(machine.name, f"sleeps until {machine.asleep_until:.2f}")

    def _box_loses_power(self) -> None:
        self._lose_power(self.box, [self.disk, *(
            self.own_disks[name] for (_, local, _), name in zip(self.weather.workers, WORKERS) if local
        )])  # fmt: skip
        self.network.reset_all()
        self.oracle.look_around()

    def _worker_loses_power(self) -> None:
        far = [name for (_, local, _), name in zip(self.weather.workers, WORKERS) if not local]
        if far:
            name = self.chance.choice(far)
            self._lose_power(self.machines[f"m-{name}"], [self.own_disks[name]])

    def _lose_power(self, machine: Machine, disks: list[Disk]) -> None:
        self.sim.tell(machine.name, "LOSES POWER")
        machine.up = False
        machine.kill_all()
        machine.boot_offset = -self.sim.now * machine.rate + self.chance.uniform(10, 1000)
        for disk in disks:
            disk.lose_power()
        self.sim.after(self.chance.uniform(0.5, 5), self._power_up, machine)

    def _power_up(self, machine: Machine) -> None:
        machine.up, machine.asleep_until = True, 0.0

    def _cut(self) -> None:
        far = [name for name in self.machines if name != "box"]
        if far:
            self.network.cut(self.chance.choice(far), self.chance.uniform(0.2, 3) * self.weather.lease)

    def _reset(self) -> None:
        self.network.reset_all()

    def _lossy(self) -> None:
        self.network.lossy = self.chance.choice((0.03, 0.1, 0.3))
        self.sim.after(10.0, self._no_longer_lossy)

    def _no_longer_lossy(self) -> None:
        self.network.lossy = 0.0 if self.calm else self.weather.lossy

    def _disk_full(self) -> None:
        def full(name: str, arguments: tuple) -> None:
            if name in ("write", "rewrite", "append", "make_folder"):
                raise NoSpace(f"{arguments[0]}: no space left on the disk")

        self._have_trouble(full, self.chance.uniform(0.5, 15))

    def _disk_error(self) -> None:
        """The next operation of a kind fails, once."""
        wanted = self.chance.choice(self.weather.failing)

        def failing(name: str, arguments: tuple) -> None:
            if name == wanted:
                self._no_trouble(failing)
                if name == "sync":
                    self.disk.fail_sync(arguments[0])
                raise DiskError(f"{arguments[0]}: input/output error")

        self._have_trouble(failing, 5.0)

    def _have_trouble(self, trouble: Callable[[str, tuple], None], seconds: float) -> None:
        self.trouble = self.network.trouble = trouble
        self.sim.after(seconds, self._no_trouble, trouble)

    def _no_trouble(self, trouble: Callable[[str, tuple], None]) -> None:
        if self.trouble is trouble:
            self.trouble = self.network.trouble = None

    def _clock_jumps(self) -> None:
        machine = self.chance.choice(list(self.machines.values()))
        machine.wall_offset += self.chance.choice((-1e7, -3600, -5, 5, 3600, 1e7))

    def _forgery(self) -> None:
        parties.forge(self)

    # -- the end -------------------------------------------------------------------------------

    def calm_down(self) -> None:
        self.sim.tell("WEATHER", "all faults are over")
        self.calm = True
        self.trouble = self.network.trouble = None
        self.network.heal()
        for machine in self.machines.values():
            machine.asleep_until = 0.0
            for process in list(machine.processes):
                process.frozen_until = process.fault_at = 0

    def at_rest(self) -> bool:
        return not (self.unfinished or self.oracle.waiting() or self.oracle.leftovers())


def run(seed: int, told: bool = False, focus: Focus = Focus()) -> Run:
    """One seed from beginning to end; the same seed gives the same story, always."""
    return simulated(World(seed, told, focus))


def simulated(
    world: World, more: Callable[[World], None] = _nothing, at_end: Callable[[World], None] = _nothing
) -> Run:
    """Let a world live: its weather, calm, rest. `more` begins what else there is, `at_end` checks."""
    with cheap_signatures():
        world.begin()
        more(world)
        oracle, sim = world.oracle, world.sim
        sim.run(world.weather.seconds, lambda: bool(oracle.violations))
        if not oracle.violations:
            world.calm_down()
            sim.run(sim.now + REST, lambda: bool(oracle.violations) or world.at_rest())
        if not oracle.violations:
            oracle.check_ends()
            at_end(world)
        for machine in world.machines.values():
            machine.kill_all()
        sim.run(sim.now)
    return Run(world.seed, oracle.violations, sim.operations, sim.story or [])
