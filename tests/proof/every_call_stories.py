"""The verbs that are struck, each brought to the moment before it, and how the others go on after.

A story is played over shipped `LocalFiles` in a folder of its own. `prepare` brings the spool to
the moment before; `act` is the verb, and runs in the child that is struck; `go_on` is what happens
next in the living process: a new server, and whoever was killed doing the same again. No person
helps.
"""

from __future__ import annotations

import os
import random as chance
from pathlib import Path
from typing import Any, Callable

import test_server_crash as crash
from crashing_files import Crash, CrashingFiles
from dsage_spool import layout
from dsage_spool.cli.parties import _spool_log
from dsage_spool.client.compose import source_work
from dsage_spool.client.ledger import Ledger
from dsage_spool.client.session import Session
from dsage_spool.errors import SpoolError
from dsage_spool.files import LocalFiles
from dsage_spool.server.serve import Server
from dsage_spool.states import State
from spool_world import LEASE, PEOPLE, FakeClock, World

from .tracing import Ran, Tell


class SomeFiles(LocalFiles):
    """Flushes only when told to: that is for the child, whose calls are counted."""

    flushing = False

    def sync(self, paths) -> None:
        if self.flushing:
            super().sync(paths)

    def sync_all(self) -> None:
        if self.flushing:
            super().sync_all()


class Scene(World):
    """A world in a folder: `spool`, and `home` for what clients and workers keep by themselves."""

    def __init__(self, folder: Path, server_files: Callable = lambda files: files) -> None:
        self.folder, self.home = folder, folder / "home"
        for made in (folder / "spool", self.home, self.home / "outbox"):
            made.mkdir()
        files = SomeFiles(folder / "spool")
        self._to_file = _spool_log(files, True)
        super().__init__(files, FakeClock(), server_files(files))
        self.extra: Any = None  # what the verb is done with
        self.before: set[str] = set()  # jobs that were acknowledged before
        self.kept: set[tuple[str, int]] = set()  # results that a worker had put away before
        self.forged: set[str] = set()  # those that the server must refuse

    def job_parts(self, signer=None, **fields) -> tuple[str, dict[str, bytes]]:
        job, parts = super().job_parts(signer, **fields)
        self.forged |= {job} if signer else set()
        return job, parts

    def start_server(self, files=None) -> Server:
        self.server = Server(
            files or self.server_files, self.clock, self.random, self.note, "a server"
        )
        self.server.open()
        return self.server

    def chance_anew(self) -> None:
        """Who comes after does not draw what the child has drawn."""
        self.random = chance.Random("afterwards").randbytes

    def note(self, text: str) -> None:
        self.log.append(text)
        self._to_file(text)


class Story:
    """What all have in common. `exact`: the end is byte by byte that of the undisturbed one."""

    party, exact = "server", False

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, folder: Path) -> Scene:
        scene = self._prepared(folder)
        scene.before = set(scene.texts)
        scene.files.flushing = False
        return scene

    def act_in_child(self, scene: Scene, tell: Tell) -> None:
        scene.files.flushing = True
        self.act(scene, tell)

    def _prepared(self, folder: Path) -> Scene:
        raise NotImplementedError

    def act(self, scene: Scene, tell: Tell) -> None:
        raise NotImplementedError

    def rest(self, scene: Scene) -> None:
        """Server stories: what follows the verb undisturbed, until there is nothing left to do."""

    def go_on(self, scene: Scene, ran: Ran) -> None:
        """After a new server has opened the spool."""


# -- the server -------------------------------------------------------------------------------


class ServerPass(Story):
    """One pass, and after an error as many as the server's own loop needs."""

    exact = True

    def __init__(self, story: Callable[[World], None], name: str = "") -> None:
        super().__init__(f"server {name or story.__name__}")
        self._story = story

    def _prepared(self, folder: Path) -> Scene:
        scene = Scene(folder)
        scene.start_server()
        self._story(scene)
        return scene

    def act(self, scene: Scene, tell: Tell) -> None:
        _serve(scene, tell)

    def rest(self, scene: Scene) -> None:
        _serve(scene, _nobody, at_rest=True)


def _nobody(word: str, content: str = "") -> None:
    pass


class Waits:
    """Lets the clock go on where the server waits, and so far that heartbeats are looked at."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def wait(self, timeout: float) -> None:
        self._clock.sleep(max(timeout, LEASE / 11))


def _serve(scene: Scene, tell: Tell, at_rest: bool = False) -> None:
    """The server's loop, for one pass; after one that failed, until there is nothing left to do.

    What leaves the loop would be the end of the server.
    """
    through: list[int] = []
    one_pass = scene.server.one_pass

    def counted_pass() -> int:
        through.append(one_pass())
        return through[-1]

    def has_failed() -> bool:
        return any(line.startswith("a pass failed") for line in scene.log)

    def stopped() -> bool:
        return bool(through) and (not through[-1] or not (at_rest or has_failed()))

    scene.server.one_pass = counted_pass
    scene.server.run(Waits(scene.clock), stopped)
    if has_failed():
        tell("noticed")
    tell("alive")


class Opening(Story):
    """A server opens what another one left that was stopped at change `at` of its pass."""

    exact = True

    def __init__(self, story: Callable[[World], None], at: int, torn: bool = False) -> None:
        super().__init__(f"server opening after {story.__name__} {at}{' torn' if torn else ''}")
        self._story, self._at, self._torn = story, at, torn

    def _prepared(self, folder: Path) -> Scene:
        scene = Scene(folder, CrashingFiles)
        scene.start_server()
        self._story(scene)
        scene.server_files.arm(self._at, self._torn)
        try:
            scene.server.one_pass()
        except Crash:
            scene.server_files = scene.files
            return scene
        raise AssertionError(f"{self.name}: no change {self._at} in that pass")

    def act(self, scene: Scene, tell: Tell) -> None:
        try:
            scene.start_server()
        except SpoolError as error:
            return tell("gave up", str(error))  # at its start it may: whoever started it is told
        _serve(scene, tell)

    def rest(self, scene: Scene) -> None:
        scene.start_server()
        _serve(scene, _nobody, at_rest=True)


def sweep(world: Scene) -> None:
    """Old files where the server tidies, and drops that have served."""
    old, older = world.enrol(), world.enrol()
    crash.running(world, world.enrol())
    world.server.one_pass()
    for path in ("tmp/n0nce.x", "tmp/n0nce.y", f"results/{world.new_name()}.1.out"):
        world.files.write(path, b"old")
        _age(world, path)
    _age(world, layout.heartbeat(old)), _age(world, layout.heartbeat(older))
    world.alive -= {old, older}
    world.clock.now += LEASE / 6
    world.start_server()


def _age(world: Scene, path: str) -> None:
    os.utime(f"{world.files.root}/{path}", (1_000_000_000, 1_000_000_000))


def second_attempt(world: World) -> None:
    """A job whose first attempt has ended, running again, and one such that waits."""
    run = world.enrol()
    waits, job = crash.running(world, run), crash.running(world, run)
    world.silent.add(run)
    world.pass_time(LEASE * 1.3)
    other = world.enrol("fig")
    world.claim(other, job, 2)
    world.server.one_pass()
    assert world.state(job) is State.RUNNING and world.state(waits) is State.QUEUED
    world.deliver(job, 2, other)


# -- clients ----------------------------------------------------------------------------------


class ClientStory(Story):
    """`act` tells a job or a request once the verb has returned. Who was struck asks again."""

    party = "client"

    def _prepared(self, folder: Path) -> Scene:
        scene = Scene(folder)
        scene.start_server()
        self.set_up(scene)
        scene.settle_down()
        scene.extra = self._session(scene)
        return scene

    def set_up(self, scene: Scene) -> None:
        pass

    def _session(self, scene: Scene) -> Session:
        return Session(
            scene.files, PEOPLE["alice"], "alice", clock=scene.clock,
            random=chance.Random(len(scene.log)).randbytes, ledger=Ledger(scene.home / "ledger"),
        )  # fmt: skip

    def act(self, scene: Scene, tell: Tell) -> None:
        try:
            self.ask(scene, tell)
            tell("done")
        except SpoolError as error:
            tell("gave up", str(error))

    def ask(self, scene: Scene, tell: Tell) -> None:
        raise NotImplementedError

    def go_on(self, scene: Scene, ran: Ran) -> None:
        scene.settle_down()
        if not ran.said("done"):
            scene.extra, scene.clock.now = self._session(scene), scene.clock.now + 1
            self.ask(scene, lambda word, content="": ran.told.append([word, content]))
        scene.settle_down()


class Submit(ClientStory):
    def __init__(self, count: int) -> None:
        super().__init__(f"client submit of {count}")
        self._count = count

    def ask(self, scene: Scene, tell: Tell) -> None:
        for job in scene.extra.submit_all([source_work(f"2+{n}") for n in range(self._count)]):
            tell("job", job.id)


class Ask(ClientStory):
    def __init__(self, verb: str, end: State) -> None:
        super().__init__(f"client request to {verb}")
        self._verb, self._end = verb, end

    def set_up(self, scene: Scene) -> None:
        scene.submit()

    def ask(self, scene: Scene, tell: Tell) -> None:
        scene.extra.request(sorted(scene.texts), self._verb)

    def go_on(self, scene: Scene, ran: Ran) -> None:
        super().go_on(scene, ran)
        [job] = scene.texts
        assert scene.state(job) is self._end, f"{self._verb} was acknowledged; {scene.state(job)}"


PASSES = [*crash.VERBS, sweep, second_attempt, crash.everything]
OPENINGS = [
    (crash.accept, 4, False), (crash.reject, 2, False), (crash.settle, 3, True),
    (crash.settle, 6, False), (crash.fail, 7, False), (crash.start, 2, False),
    (crash.expire, 1, True),
    (crash.fail_those_that_wait, 8, False), (second_attempt, 2, False),
]  # fmt: skip
STORIES: list[Story] = [
    *(ServerPass(story) for story in PASSES),
    *(Opening(*how) for how in OPENINGS),
    Submit(1),
    Submit(8),
    Ask("cancel", State.CANCELLED),
    Ask("hold", State.HELD),
]
