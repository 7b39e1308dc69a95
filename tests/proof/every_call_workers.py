"""The verbs of a worker that are struck: the shipped monitor; children and thread are by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Iterator

from crashing_files import Crash
from dsage_spool.children import Ended, Task
from dsage_spool.errors import SpoolError
from dsage_spool.files import LocalFiles
from dsage_spool.records import Worker
from dsage_spool.states import TERMINAL
from dsage_spool.worker.deliver import Deliveries
from dsage_spool.worker.limits import Limits
from dsage_spool.worker.monitor import Monitor
from dsage_spool.worker.outbox import Outbox
from spool_world import LEASE, WORKERS, FakeClock

from .every_call_stories import Scene, Story
from .tracing import Ran, Tell

TURNS = 24  # of a worker at its verb, which may be struck by an error
ROUNDS = 120  # of all parties, five seconds each by their clocks, until everything has ended



class Slots:
    """Children by hand: what was started ends when `finish` says so. Waiting is by the clock."""

    slots = 1

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self.finish = clock, False
        self.tasks: dict[tuple[str, int], Task] = {}
        self._stopped: list[Ended] = []

    def set_roster(self, text: bytes) -> None:
        assert text

    def start(self, task: Task) -> None:
        self.tasks[task.job, task.attempt] = task

    def loads(self) -> list[int]:
        return [len(self.tasks)]

    def stop(self, job: str, attempt: int) -> None:
        if self.tasks.pop((job, attempt), None):
            ended = Ended(job, attempt, "returned", error="stopped", wall_seconds=1.0)
            self._stopped.append(ended)

    def wait(self, timeout: float | None, extra_fds=()) -> list[Ended]:
        ended, self._stopped = self._stopped, []
        if self.finish:
            ended += [_ended(*key) for key in self.tasks]
            self.tasks.clear()
        self._clock.sleep(0.0 if ended else min(timeout or 0.0, 1.0))
        return ended

    def output(self, job: str, attempt: int, offset: int, limit: int) -> bytes:
        return b"so far\n" * 20 if not offset else b""

    def close(self) -> None:
        pass


def _ended(job: str, attempt: int) -> Ended:
    parts = {"result": f"result {job} {attempt}".encode(), "stdout": b"hello\n"}
    return Ended(job, attempt, "ok", value="7", codec="pickle", wall_seconds=1.0, parts=parts)


class Turned(Exception):
    """The heartbeat's thread has had its turn."""


class Threads:
    """Stands for the module `threading`: one thread, which runs a turn when `turn` is called."""

    def __init__(self) -> None:
        self._target: Callable[[], None] | None = None
        self._waits = 0

    @property
    def started(self) -> bool:
        return self._target is not None

    def turn(self) -> None:
        if self._target:
            self._waits = 0
            try:
                self._target()
            except Turned:
                pass

    def Thread(self, target: Callable[[], None], **named: object) -> Threads:
        self._target = target
        return self

    def Condition(self) -> Threads:
        return self

    def wait(self, timeout: float) -> None:
        self._waits += 1
        if self._waits > 1:
            raise Turned

    def notify(self) -> None:
        pass

    start = notify
    join = wait

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Hands:
    """A worker of the shipped parts, as the command puts them together."""

    def __init__(self, scene: Scene) -> None:
        self.slots, self.threads = Slots(scene.clock), Threads()
        self.deliveries = Deliveries(
            Outbox(LocalFiles(scene.home / "outbox"), scene.log.append), WORKERS["kiwi"]
        )
        self.monitor = Monitor(
            lambda: scene.files, scene.clock, scene.random, self.slots, self.deliveries,
            Worker("kiwi", "", host="kiwi"), Limits(), scene.log.append, threads=self.threads,
        )  # fmt: skip

    def step_until(self, done: Callable[[], object]) -> bool:
        for _ in range(TURNS):
            if done():
                return True
            self.monitor.step()
        return bool(done())


class WorkerStory(Story):
    """Then the worker is gone, as if killed. Started again, it and the server end all jobs."""

    party = "worker"

    def __init__(self, name: str, set_up: Callable, verb: Callable) -> None:
        super().__init__(f"worker {name}")
        self._set_up, self._verb = set_up, verb

    def _prepared(self, folder: Path) -> Scene:
        scene = Scene(folder)
        scene.start_server()
        scene.submit(), scene.submit()
        scene.settle_down()
        scene.extra = self._set_up(scene)
        return scene

    def act(self, scene: Scene, tell: Tell) -> None:
        try:
            for job in self._verb(scene, scene.extra):
                tell("delivered", job)
            if any("trying again" in line for line in scene.log):
                tell("noticed")
        except SpoolError as error:
            tell("gave up", str(error))

    def go_on(self, scene: Scene, ran: Ran) -> None:
        hands = Hands(scene)
        for _ in range(ROUNDS):
            if all(scene.state(job) in TERMINAL for job in scene.before):
                break
            hands.slots.finish = True
            hands.threads.turn()
            hands.monitor.step()
            scene.server.one_pass()
            scene.clock.now += LEASE / 12
        scene.settle_down()
        ends = {job: str(scene.state(job)) for job in scene.before}
        assert set(ends.values()) == {"done"}, f"not all is done: {ends}"


def _newcomer(scene: Scene) -> Hands:
    return Hands(scene)


def _enrolled(scene: Scene) -> Hands:
    """Enrolled, and without a job: the server has told of none yet."""
    hidden = f"{scene.files.root}/queue"
    os.rename(hidden, f"{hidden}.away")
    hands = Hands(scene)
    hands.monitor.step()
    os.rename(f"{hidden}.away", hidden)
    scene.clock.now += LEASE / 6
    return hands


def _with_job(scene: Scene) -> Hands:
    hands = Hands(scene)
    assert hands.step_until(lambda: hands.slots.tasks), "it took no job"
    scene.settle_down()
    hands.monitor.step()
    scene.clock.now += 2.0
    return hands


def _killed_with_results(scene: Scene) -> None:
    """What is left of a worker that was killed before its delivery: an outbox."""
    hands = _with_job(scene)
    hands.slots.finish = True
    hands.deliveries.deliver = _killed
    try:
        hands.monitor.step()
    except Crash:
        pass
    scene.kept = hands.deliveries.keys()
    assert scene.kept, "nothing is left in the outbox"


def _killed(*arguments: object) -> None:
    raise Crash


def _enrol(scene: Scene, hands: Hands) -> Iterator[str]:
    hands.step_until(lambda: hands.threads.started)
    yield from ()


def _claim(scene: Scene, hands: Hands) -> Iterator[str]:
    hands.step_until(lambda: hands.slots.tasks)
    yield from ()


def _renew(scene: Scene, hands: Hands) -> Iterator[str]:
    hands.threads.turn()
    hands.threads.turn()
    yield from ()


def _live_output(scene: Scene, hands: Hands) -> Iterator[str]:
    for _ in range(3):
        hands.monitor.step()
        scene.clock.now += 1.1
    yield from ()


def _deliver(scene: Scene, hands: Hands) -> Iterator[str]:
    hands.slots.finish = True
    keys = set(hands.slots.tasks)
    hands.step_until(lambda: not hands.slots.tasks and not len(hands.deliveries))
    if not len(hands.deliveries):
        yield from (job for job, _ in sorted(keys))


def _start_again(scene: Scene, nobody: None) -> Iterator[str]:
    hands = Hands(scene)
    keys = hands.deliveries.keys()
    if hands.step_until(lambda: not len(hands.deliveries)):
        yield from (job for job, _ in sorted(keys))


STORIES = [
    WorkerStory("enrol", _newcomer, _enrol),
    WorkerStory("claim and fetch", _enrolled, _claim),
    WorkerStory("renew", _with_job, _renew),
    WorkerStory("live output", _with_job, _live_output),
    WorkerStory("deliver", _with_job, _deliver),
    WorkerStory("start with results of before", _killed_with_results, _start_again),
]
