"""One trial: a story, a fault in its verb, the others going on, and a look at what is left.

This is the warm process of `every_call`: it has one thread, has imported everything, and answers
lines of JSON. What is the same spool after a fault as after one before is gone on from only once:
what comes of it is the same too, since clocks and chance are handed in.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any, Iterator

import test_server_crash as crash
from dsage_spool import layout, names, pack, records, signing
from dsage_spool.errors import SpoolError
from dsage_spool.records import Envelope, Receipt
from dsage_spool.server.look import check_parts
from dsage_spool.spool import dropping, reading
from dsage_spool.states import JOB_FOLDERS, TERMINAL, State
from format_doc import broken_rules
from spool_world import ROSTER

from . import every_call_workers, tracing
from .every_call_planted import PLANTED
from .every_call_stories import STORIES, Scene, Story
from .tracing import Fault, Ran

BY_NAME = {story.name: story for story in [*STORIES, *every_call_workers.STORIES]}
TOLD_ONLY = (layout.JOURNAL, layout.LOG, layout.QUEUE, "tmp/server-queue")  # trusted by no server
FLUSHES = ("fsync", "fdatasync", "syncfs")
ANY = 1 << 40  # bytes
roster = signing.Roster.parse(ROSTER)


# -- whole, or half ---------------------------------------------------------------------------


def check_job(parts: dict[str, bytes], job: str) -> None:
    envelope = records.parse(Envelope, parts[layout.ENVELOPE])
    assert envelope.job == job, f"the envelope is of {envelope.job}"
    signature = parts[layout.SIGNATURE].decode()
    roster.verify(parts[layout.ENVELOPE], signature, envelope.submitter, signing.JOB_NAMESPACE, 0)
    digest = hashlib.sha256(parts[layout.PAYLOAD]).hexdigest()
    assert digest == envelope.payload_sha256, "the payload is another one"


def check_delivery(parts: dict[str, bytes]) -> None:
    receipt = records.parse(Receipt, parts[layout.RECEIPT])
    signature = parts[layout.RECEIPT_SIGNATURE].decode()
    roster.verify(
        parts[layout.RECEIPT], signature, receipt.worker, signing.RESULT_NAMESPACE, 0
    )
    check_parts(receipt, {k: v for k, v in parts.items() if k in layout.RESULT_PARTS})


def check_drop(scene: Scene, box: str, name: str) -> None:
    """What lies in a drop box is whole from the first moment."""
    data = scene.files.read(f"{box}/{name}", ANY)
    if box == layout.INCOMING:
        kinds = layout.JOB_PARTS if name.endswith(".job") else layout.REQUEST_PARTS
        parts = pack.split(data, kinds)
        if name.endswith(".job"):
            check_job(parts, names.parse_drop(name) or "")
    elif box == layout.RESULTS and name.endswith(".result"):
        check_delivery(pack.split(data, layout.RESULT_PARTS))
    elif box in (layout.LOCKS, layout.WORKERS):
        worker = dropping.read_worker(data)
        assert box == layout.LOCKS or worker.run == name, "it is of another run"


def check_folder(scene: Scene, state: State, job: str) -> None:
    parts = scene.parts_in(layout.job_folder(state, job))
    broken = broken_rules(str(state), set(parts))
    assert not broken, broken
    if state is not State.REJECTED:
        check_job(parts, job)
        if layout.RECEIPT in parts:
            check_delivery(parts)


def told(what: str, check, *arguments: Any) -> Iterator[str]:
    """The violation, in one line, if there is one."""
    try:
        check(*arguments)
    except (AssertionError, SpoolError, KeyError, UnicodeDecodeError) as error:
        yield f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:400]}"


# -- at the moment of the fault ---------------------------------------------------------------


def boxes(scene: Scene) -> set[tuple[str, str]]:
    return {(box, name) for box in layout.DROP_BOXES for name in scene.files.names(box)}


def ended(scene: Scene) -> dict[str, dict[str, bytes]]:
    """All ends that somebody may have read by now."""
    found = {}
    for state in TERMINAL:
        if state is not State.REJECTED:
            for job in scene.files.names(str(state)):
                parts = scene.parts_in(layout.job_folder(state, job))
                parts = {k: v for k, v in parts.items() if not k.startswith("late.")}
                found[layout.job_folder(state, job)] = parts
    return found


def at_once(scene: Scene, before: set[tuple[str, str]]) -> Iterator[str]:
    yield from told("queue", reading.read_queue, scene.files)
    for box, name in sorted(boxes(scene) - before):
        yield from told(f"{box}/{name} can be seen half", check_drop, scene, box, name)


def outlasts(folder: str, parts: dict[str, bytes], now: dict[str, bytes]) -> None:
    assert parts == now, f"seen with {sorted(parts)}, now {sorted(now)}, or other bytes"


# -- when all is at rest ----------------------------------------------------------------------


def at_end(scene: Scene, ran: Ran, seen: dict[str, dict[str, bytes]]) -> Iterator[str]:
    for job in sorted(scene.before | set(ran.said("job"))):
        yield from told(f"{job} was acknowledged", in_one_state, scene, job)
    for state in JOB_FOLDERS:
        for job in scene.files.names(str(state)):
            yield from told(f"{state}/{job}", check_folder, scene, state, job)
    now = ended(scene)
    for folder, parts in seen.items():
        yield from told(f"{folder} was seen", outlasts, folder, parts, now.get(folder, {}))
    for job in ran.said("delivered"):
        yield from told(f"{job} was delivered", has_result, scene, job)
    for job, attempt in sorted(scene.kept):
        yield from told(f"{job} was in the outbox", is_by, scene, job, attempt)
    yield from told("left over", nothing_left, scene)


def in_one_state(scene: Scene, job: str) -> None:
    found = scene.states(job)
    assert len(found) == 1, [str(state) for state in found]
    assert found[0] is not State.REJECTED or job in scene.forged, scene.verdicts()


def has_result(scene: Scene, job: str) -> None:
    assert scene.state(job) is State.DONE and layout.RESULT in scene.parts(job)


def is_by(scene: Scene, job: str, attempt: int) -> None:
    """What was run and put away is not run again."""
    receipt = records.parse(Receipt, scene.parts(job)[layout.RECEIPT])
    assert receipt.attempt == attempt, f"attempt {receipt.attempt} ended it, not {attempt}"


def nothing_left(scene: Scene) -> None:
    locks = {names.parse_claim(name) for name in scene.files.names(layout.LOCKS)}
    idle = [lock for lock in locks if scene.state(lock.job) is not State.RUNNING]
    results = [n for n in scene.files.names(layout.RESULTS) if n.endswith(".result")]
    left = [*scene.files.names(layout.INCOMING), *results, *idle]
    assert not left, left
    odd = [name for name in scene.files.names(layout.TMP) if not may_lie_in_tmp(name)]
    assert not odd, f"in tmp/: {odd}"


def may_lie_in_tmp(name: str) -> bool:
    """By section 3 of docs/format.md, at rest: no folder of the server, no half-made `queue`."""
    if name.startswith("server"):
        return name.startswith(("server.served.", "server-queue."))
    run, _, rest = name.partition(".")
    return bool(run) and bool(names.parse_run(name) or rest)


# -- trials -----------------------------------------------------------------------------------


class Known:
    """What is known of a story: how it ends undisturbed, and which spools were gone on from."""

    def __init__(self, folder: Path, story: Story) -> None:
        self._folder, self.story = folder / "trial", story
        self.expected: Any = None
        self.seen: dict[str, list[str]] = {}
        self.offers = self._offers_at_rest() if story.exact else []
        ran, wrong = self.tried(None)
        self.calls, self.elsewhere = tracing.calls(ran.trace, str(self._folder))
        assert not wrong, f"{story.name}, undisturbed: {wrong}"

    def tried(self, fault: Fault | None) -> tuple[Ran, list[str]]:
        self._folder.mkdir()
        try:
            scene = self.story.prepare(self._folder)
            before = boxes(scene)
            ran = tracing.forked(lambda tell: self.story.act_in_child(scene, tell), fault)
            if fault and not ran.struck:
                return ran, []
            key = fingerprint(self._folder, ran) + str(fault and fault.call in FLUSHES)
            if key not in self.seen:
                self.seen[key] = list(self._judged(scene, before, ran, fault))
            return ran, self.seen[key]
        finally:
            shutil.rmtree(self._folder)

    def _judged(
        self, scene: Scene, before: set[tuple[str, str]], ran: Ran, fault: Fault | None
    ) -> Iterator[str]:
        for text in ran.said("broken"):
            yield f"{self.story.party}: {text}"
        if fault and fault.kind != "KILL" and fault.call in FLUSHES:
            if not ran.said("noticed") and not ran.said("gave up"):
                yield f"{self.story.party}: a flush that failed was taken for done"
        yield from at_once(scene, before)
        yield from told("queue offers", self._check_offers, scene, ran)
        seen = ended(scene)
        yield from told("the others go on", self._go_on, scene, ran)
        yield from at_end(scene, ran, seen)

    def _offers_at_rest(self) -> list[tuple[str, int]]:
        self._folder.mkdir()
        try:
            scene = self.story.prepare(self._folder)
            self.story.rest(scene)
            return offers(scene)
        finally:
            shutil.rmtree(self._folder)

    def _check_offers(self, scene: Scene, ran: Ran) -> None:
        """A server that bore an error comes to tell the same as one that had none."""
        if self.story.exact and ran.said("alive") and ran.said("noticed"):
            found = offers(scene)
            assert found == self.offers, f"{found}, undisturbed {self.offers}"

    def _go_on(self, scene: Scene, ran: Ran) -> None:
        scene.server_files = scene.files
        scene.chance_anew()
        scene.start_server()
        if self.story.exact:
            crash.assert_in_order(scene)
            found = crash.at_rest(scene)
            self.expected = self.expected if self.expected is not None else found
            differs = [k for k in {*found, *self.expected} if found.get(k) != self.expected.get(k)]
            assert not differs, f"other than undisturbed: {sorted(differs)}"
        self.story.go_on(scene, ran)


def offers(scene: Scene) -> list[tuple[str, int]]:
    view = reading.read_queue(scene.files)
    return sorted((row.job, row.attempt) for row in [*view.next, *view.running])


def fingerprint(folder: Path, ran: Ran) -> str:
    """Of all that the parties can find: names, links, bytes without the server's time stamps."""
    digest = hashlib.sha256(json.dumps([ran.told, ran.killed]).encode())
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder)).removeprefix("spool/")
        data = b""
        if path.is_file() and not name.startswith(TOLD_ONLY):
            data = crash.STAMPS.sub(b"", path.read_bytes())
        digest.update(f"\0{name} {path.lstat().st_nlink} {len(data)}\0".encode() + data)
    return digest.hexdigest()


class Bench:
    """What the other end may ask for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Known] = {}

    def stories(self) -> list[str]:
        return list(BY_NAME)

    def known(self, story: str) -> Known:
        if story not in self._known:
            self._known[story] = Known(self._folder, BY_NAME[story])
        return self._known[story]

    def trace(self, story: str) -> dict[str, Any]:
        known = self.known(story)
        return {"calls": known.calls, "elsewhere": known.elsewhere}

    def strike(
        self, story: str, call: str, kind: str, at: list[int], more: int, plant: str
    ) -> dict[str, Any]:
        known, points, violations = self.known(story), 0, []
        if plant:
            known = copy(known)
            known.seen = {}
        ends = len(known.seen)
        with PLANTED[plant]() if plant else nullcontext():
            for number in at or itertools.count(1):
                fault = Fault(call, kind, number, more)
                struck, wrong = self._try(known, fault)
                violations += [f"{story}: {fault}: {' '.join(text.split())}" for text in wrong]
                if not struck:
                    break
                points += 1
                if plant and violations:
                    break
        return {"points": points, "ends": len(known.seen) - ends, "violations": violations}


    def _try(self, known: Known, fault: Fault) -> tuple[bool, list[str]]:
        try:
            ran, wrong = known.tried(fault)
            return ran.struck, wrong
        except tracing.Strange as error:
            return False, [f"tracing: {error}"]


def serve(folder: Path) -> None:
    bench = Bench(folder)
    for line in sys.stdin:
        what, content = json.loads(line)
        print(json.dumps(getattr(bench, what)(**content)), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
