"""Time, machines and processes: what is due next, whose clock says what, who is dead or frozen.

A process has tasks, each a greenlet that runs shipped code until it asks for something (a file, time,
a message); then the next event of the heap goes on. All choice comes from one `random.Random`.
"""

from __future__ import annotations

import heapq
import itertools
from random import Random
from typing import Any, Callable

from greenlet import getcurrent, greenlet

from dsage_spool.clock import Clock


class Killed(BaseException):
    """The process is dead: nothing of it may run on."""


class Simulation:
    """The heap of what is due. `now` is true time, in seconds, which no party can see."""

    def __init__(self, chance: Random, told: bool = False) -> None:
        self.chance, self.now, self.operations = chance, 0.0, 0
        self.story: list[str] | None = [] if told else None
        self._heap: list[tuple[float, int, Callable, tuple]] = []
        self._numbers = itertools.count()
        self._until = 0.0
        self.hub = getcurrent()

    def at(self, when: float, callback: Callable, *arguments: Any) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), callback, arguments))

    def after(self, seconds: float, callback: Callable, *arguments: Any) -> None:
        self.at(self.now + seconds, callback, *arguments)

    def run(self, until: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen that is due by then, or until `enough`."""
        self._until = until
        while self._heap and self._heap[0][0] <= until and not enough():
            self.now, _, callback, arguments = heapq.heappop(self._heap)
            callback(*arguments)
        if not enough():
            self.now = max(self.now, until)

    def may_go_on(self, when: float) -> bool:
        """Nothing else is due before: whoever runs may run on, which is the same and faster."""
        return when <= self._until and (not self._heap or when < self._heap[0][0])

    def tell(self, who: str, text: str) -> None:
        if self.story is not None:
            self.story.append(f"{self.now:9.4f} {who:<8} {text}")


class Machine:
    """A computer: clocks of its own (rate, offset, jumps), up or down, awake or asleep."""

    def __init__(self, sim: Simulation, name: str) -> None:
        chance = sim.chance
        self.sim, self.name, self.up = sim, name, True
        self.rate = chance.uniform(0.95, 1.05)
        self.boot_offset = chance.uniform(0, 1e6)
        self.wall_offset = 1.7e9 + chance.choice((0, 0, chance.uniform(-3e8, 3e8)))
        self.asleep_until = 0.0
        self.processes: list[Process] = []

    def boottime(self) -> float:
        return self.boot_offset + self.sim.now * self.rate

    def wall(self) -> float:
        return self.wall_offset + self.sim.now * self.rate

    def kill_all(self) -> None:
        for process in list(self.processes):
            process.kill()


class SimClock(Clock):
    """A machine's clocks, as one process sees them."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.boottime = process.machine.boottime  # type: ignore[method-assign]
        self.wall = process.machine.wall  # type: ignore[method-assign]

    def sleep(self, seconds: float) -> None:
        self._process.pause(max(0.0, seconds) / self._process.machine.rate)


class Process:
    """One run of a party. `fault_at` counts its operations: at that one `fault` strikes."""

    def __init__(self, machine: Machine, name: str, main: Callable[[Process], None]) -> None:
        self.machine, self.name, self.sim = machine, name, machine.sim
        self.alive, self.frozen_until = True, 0.0
        self.operations, self.fault_at, self.fault, self.freezes = 0, 0, "", 0.0
        self.tasks: list[Task] = []
        self.on_end: list[Callable[[], None]] = []
        machine.processes.append(self)
        self.spawn(lambda: main(self))

    def spawn(self, work: Callable[[], None]) -> Task:
        task = Task(self, work)
        self.tasks.append(task)
        self.sim.after(0.0, task.begin)
        return task

    @property
    def task(self) -> Task:
        return getcurrent().task  # type: ignore[attr-defined]

    def check(self) -> None:
        if not self.alive:
            raise Killed

    def counts(self) -> bool:
        """One more operation; whether the fault strikes now."""
        if not self.alive:
            raise Killed
        self.operations += 1
        self.sim.operations += 1
        return self.operations == self.fault_at

    def spend(self, seconds: float) -> None:
        """An operation takes a little while, in which others may do theirs."""
        sim = self.sim
        when, heap = sim.now + seconds, sim._heap
        alone = when <= sim._until and (not heap or when < heap[0][0])
        if alone and self.frozen_until <= sim.now and self.machine.asleep_until <= sim.now:
            sim.now = when
        else:
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        task, sim = getcurrent().task, self.sim  # type: ignore[attr-defined]
        event = (sim.now + seconds, next(sim._numbers), task.wake, (task.ticket, None))
        heapq.heappush(sim._heap, event)
        task.block()

    def thawed(self) -> float:
        """From when on it may run."""
        return max(self.frozen_until, self.machine.asleep_until)

    def freeze(self) -> None:
        """From within: it stops here for `freezes` seconds."""
        self.frozen_until = self.sim.now + self.freezes
        self.sim.tell(self.name, f"is frozen until {self.frozen_until:.2f}")
        self.pause(0.0)

    def die(self) -> None:
        """From within: the operation at hand was the last."""
        self.sim.tell(self.name, "DIES")
        self._end()
        raise Killed

    def kill(self) -> None:
        """From outside; called by events only."""
        if self.alive:
            self.sim.tell(self.name, "is killed")
            self._end()

    def _end(self) -> None:
        self.alive = False
        self.machine.processes.remove(self)
        self.sim.after(0.0, self._clear)
        for callback in self.on_end:
            callback()

    def _clear(self) -> None:
        for task in self.tasks:
            task.throw()

    def finished(self, task: Task) -> None:
        if self.alive and task is self.tasks[0]:
            self._end()


class Task:
    """One line of control of a process."""

    def __init__(self, process: Process, work: Callable[[], None]) -> None:
        self.process, self.ticket, self.done = process, 0, False
        self._work = work
        self._greenlet = greenlet(self._live, process.sim.hub)
        self._greenlet.task = self  # type: ignore[attr-defined]
        self.waiters: list[Task] = []

    def _live(self) -> None:
        try:
            self._work()
        except Killed:
            pass
        finally:
            self.done = True
            for waiter in self.waiters:
                self.process.sim.after(0.0, waiter.wake, waiter.ticket, None)
        self.process.finished(self)

    def begin(self) -> None:
        if self.process.alive and not self._postponed(self.begin):
            self._greenlet.switch()

    def _postponed(self, again: Callable[..., None], *arguments: Any) -> bool:
        """Whether the process is frozen; then it is tried again when it thaws."""
        thawed = self.process.thawed()
        if thawed > self.process.sim.now:
            self.process.sim.at(thawed, again, *arguments)
            return True
        return False

    def block(self) -> Any:
        """Wait to be woken; what `wake` was given."""
        if not self.process.alive:
            raise Killed
        answer = self.process.sim.hub.switch()
        self.ticket += 1
        if not self.process.alive:
            raise Killed
        return answer

    def wake(self, ticket: int, answer: Any) -> None:
        """Go on, unless something else has woken it since `ticket` was taken."""
        if ticket == self.ticket and self.process.alive and not self.done:
            if not self._postponed(self.wake, ticket, answer):
                self._greenlet.switch(answer)

    def throw(self) -> None:
        if self._greenlet and not self.done:
            self._greenlet.throw(Killed)


class Threads:
    """What a process has in the place of the module `threading`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def Condition(self) -> Condition:
        return Condition(self._process)

    def Thread(self, target: Callable[[], None], name: str, daemon: bool) -> Thread:
        return Thread(self._process, target)


class Condition:
    """Tasks change places only where they wait, so the lock itself has nothing to do."""

    def __init__(self, process: Process) -> None:
        self._process, self._waiting = process, []

    def __enter__(self) -> None:
        self._process.check()

    def __exit__(self, *exception: object) -> None:
        return None

    def wait(self, seconds: float) -> None:
        task = self._process.task
        self._waiting.append((task, task.ticket))
        self._process.pause(seconds / self._process.machine.rate)

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for task, ticket in waiting:
            self._process.sim.after(0.0, task.wake, ticket, None)


class Thread:
    def __init__(self, process: Process, target: Callable[[], None]) -> None:
        self._process, self._target = process, target

    def start(self) -> None:
        self._task = self._process.spawn(self._target)

    def join(self, seconds: float) -> None:
        if not self._task.done:
            self._task.waiters.append(self._process.task)
            self._process.pause(seconds)
