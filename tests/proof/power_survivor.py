"""A spool after a power loss: a fresh server opens it, and whatever was promised must be there.

`check(files, story, position)` answers what is wrong, one line each, nothing if all is well. It
looks when the server has opened the spool, when it has come to rest, and when all jobs have ended.
"""

from __future__ import annotations

import hashlib
import random as chance
import re
from functools import lru_cache
from typing import Iterator

from dsage_spool import layout, names, records, signing
from dsage_spool.errors import SpoolError
from dsage_spool.files import LocalFiles
from dsage_spool.records import Envelope, Receipt
from dsage_spool.signing import JOB_NAMESPACE, RESULT_NAMESPACE
from dsage_spool.spool import dropping, reading, settings
from dsage_spool.states import JOB_FOLDERS, State
from format_doc import broken_rules
from spool_world import ROSTER, START, FakeClock, World

from .power_story import ENDED, LIVE, Claimed, Sent, Story, attempt_of, lasting

VERDICT = re.compile(rb"\S+ ([a-z]+): [^\n]*\n")
ROUNDS = 60  # of claiming and delivering, in which everything must have ended


class Survivor(World):
    """The same people and workers with a new server, on what is left of their spool."""

    def __init__(self, files: LocalFiles, story: Story, position: int) -> None:
        self.files = self.server_files = files
        self.story, self.position = story, position
        self.clock = FakeClock()
        self.clock.now = story.clock.now + 100.0
        self.random = chance.Random(f"after {position}").randbytes
        self.log: list[str] = []
        self.texts = story.texts
        self.alive, self.silent = set(), set()
        self.settings = settings.load(files)

    # -- what was promised before the cut ------------------------------------------------------

    def sent(self, box: str) -> list[Sent]:
        """Drops of which somebody was told that they are safe."""
        return [one for one in self.story.sent if one.drop.box == box and self._told(one.acked)]

    def _told(self, moment: int) -> bool:
        return moment <= self.position

    @property
    def promised(self) -> list[str]:
        return [one.job for one in self.sent(layout.INCOMING) if not one.wish]

    # -- looks ---------------------------------------------------------------------------------

    def look_at_places(self, dropped_counts: bool) -> Iterator[str]:
        """Each acknowledged job in one state, and no job at all in two."""
        places: dict[str, list[str]] = {}
        for state in JOB_FOLDERS:
            for job in self.files.names(str(state)):
                places.setdefault(job, []).append(str(state))
        drops = set(self.files.names(layout.INCOMING)) if dropped_counts else set()
        for job in self.promised:
            if job not in places and names.drop_name(job) not in drops:
                yield f"acknowledged job {job} is lost"
        for job, found in places.items():
            if len(found) > 1:
                yield f"job {job} is in {' and '.join(found)}"
        for job in set(self.promised) & set(self.files.names(str(State.REJECTED))):
            yield f"acknowledged job {job} was rejected"

    def look_into_folders(self) -> Iterator[str]:
        for state in JOB_FOLDERS:
            for job in sorted(self.files.names(str(state))):
                parts = self.parts_in(layout.job_folder(state, job))
                for problem in _wrong_in(state, job, parts, self.texts):
                    yield f"{state}/{job}: {problem}"

    def look_at_ends(self) -> Iterator[str]:
        """What anybody could read in an ended job is there, to the byte."""
        for end in self.story.witness.visible:
            if self._told(end.seen):
                folder = layout.job_folder(end.state, end.job)
                try:
                    parts = lasting(self.parts_in(folder))
                except SpoolError:
                    yield f"{folder} could be read and is gone"
                    continue
                changed = [n for n in end.parts | parts if end.parts.get(n) != parts.get(n)]
                if changed:
                    yield f"{folder}: changed after it could be read: {' '.join(changed)}"

    def look_at_words(self) -> Iterator[str]:
        """At rest, no acknowledged delivery or cancellation is without effect."""
        live = {job: state for state in LIVE for job in self.files.names(str(state))}
        for one in (*self.sent(layout.RESULTS), *self.sent(layout.INCOMING)):
            ends = one.wish in ("ok", "raised", "cancel")
            if one.job in live and (ends or self._kept(one, live)):
                yield f"an acknowledged {one.wish} of {one.job} is lost: it is {live[one.job]}"
        for claim in self.story.claims:
            if self._told(claim.acked) and claim.job in live:
                yield from self._look_at_claim(claim, live[claim.job])

    def _kept(self, one: Sent, live: dict[str, State]) -> bool:
        """Whether an attempt runs that was given back."""
        if one.wish != "returned" or live[one.job] is not State.RUNNING:
            return False
        attempt, _ = attempt_of(self.files, State.RUNNING, one.job)
        return attempt == names.parse_claim(one.drop.name).attempt

    def _look_at_claim(self, claim: Claimed, state: State) -> Iterator[str]:
        """No attempt that somebody was allowed to run is given out once more."""
        attempt, lease = attempt_of(self.files, state, claim.job)
        if state is State.RUNNING:
            other = lease and lease.attempt == claim.attempt and lease.run != claim.run
            again = lease is None or lease.attempt < claim.attempt or other
        else:
            again = attempt <= claim.attempt
        if again:
            told = f"attempt {claim.attempt} of {claim.job}, claimed by {claim.run}"
            yield f"{told}, may run again: {state}, attempt {attempt}, lease {lease}"

    # -- life goes on --------------------------------------------------------------------------

    def repeat(self) -> None:
        """Whoever did not hear that a drop is safe does it again: the same bytes and name."""
        doubtful = [one for one in self.story.sent if one.begun <= self.position < one.acked]
        if doubtful:
            dropping.put(self.files, "again", [one.drop for one in doubtful])

    def finish(self) -> Iterator[str]:
        """Everything that is here ends, also what was held."""
        self.repeat()
        run = self.enrol()
        for _ in range(ROUNDS):
            self.settle_down()
            running, held = self.files.names("running"), self.files.names("held")
            offered = [(row.job, row.attempt) for row in reading.read_queue(self.files).next]
            if not (running or held or offered):
                break
            requests = [self.story.request_for(job, "release") for job in held]
            deliveries = list(filter(None, map(self._delivery, running)))
            dropping.put(self.files, "on", [one.drop for one in (*requests, *deliveries)])
            dropping.claim(self.files, run, offered)
        for state in LIVE:
            yield from (f"{job} never ends: {state}" for job in self.files.names(str(state)))

    def _delivery(self, job: str) -> Sent | None:
        lease = attempt_of(self.files, State.RUNNING, job)[1]
        if lease is None:
            return None  # told by the matrix, or as a job that never ends
        data = self.delivery(job, lease.attempt, lease.run)
        return Sent(dropping.result_drop(job, lease.attempt, data), job, 0)

    def deliver_late(self) -> None:
        """A zombie has another result for a job that was done already."""
        done = [end for end in self.story.witness.visible if self._told(end.seen)][-3:]
        for end in done:
            receipt = end.parts.get(layout.RECEIPT)
            if receipt:
                first = records.parse(Receipt, receipt)
                other = {"result": b"another result"}
                self.deliver(end.job, first.attempt, first.run, parts=other)
        self.settle_down()


def check(files: LocalFiles, story: Story, position: int) -> list[str]:
    """What does not hold on a spool whose power went out at `position` of the story's log."""
    try:
        return list(_checked(Survivor(files, story, position)))
    except Exception as error:  # whatever a server dies of, a person would be needed
        return [f"{type(error).__name__}: {error}"]


def _checked(spool: Survivor) -> Iterator[str]:
    spool.start_server()
    yield from spool.look_at_places(dropped_counts=True)
    yield from spool.look_at_ends()
    yield from spool.look_into_folders()
    spool.settle_down()
    yield from spool.look_at_places(dropped_counts=False)
    yield from spool.look_at_words()
    yield from spool.finish()
    spool.deliver_late()
    yield from spool.look_at_places(dropped_counts=False)
    yield from spool.look_at_ends()
    yield from spool.look_into_folders()
    yield from (f"log: {line}" for line in spool.log if "left alone" in line)


# -- one job folder -------------------------------------------------------------------------------


def _wrong_in(
    state: State, job: str, parts: dict[str, bytes], texts: dict[str, bytes]
) -> Iterator[str]:
    yield from broken_rules(str(state), set(parts))
    if state is not State.REJECTED and layout.ENVELOPE in parts:
        if parts[layout.ENVELOPE] != texts.get(job):
            yield "the envelope is not the one that was signed"
        else:
            yield from _wrong_with_payload(parts)
    if layout.RECEIPT in parts:
        yield from _wrong_with_receipt(parts)
    if layout.VERDICT in parts:
        verdict = VERDICT.fullmatch(parts[layout.VERDICT])
        if not verdict or verdict[1].decode() != str(state):
            yield f"its verdict says {parts[layout.VERDICT][:60]!r}"


def _wrong_with_payload(parts: dict[str, bytes]) -> Iterator[str]:
    text, signature = parts[layout.ENVELOPE], parts.get(layout.SIGNATURE, b"")
    envelope = records.parse(Envelope, text)
    if not verifies(text, signature, envelope.submitter, JOB_NAMESPACE):
        yield "the signature of its envelope does not hold"
    if hashlib.sha256(parts.get(layout.PAYLOAD, b"")).hexdigest() != envelope.payload_sha256:
        yield "its payload is not the one that was signed"


def _wrong_with_receipt(parts: dict[str, bytes]) -> Iterator[str]:
    text, signature = parts[layout.RECEIPT], parts.get(layout.RECEIPT_SIGNATURE, b"")
    try:
        receipt = records.parse(Receipt, text)
    except SpoolError as error:
        yield f"its receipt is torn: {error.message}"
        return
    if not verifies(text, signature, receipt.worker, RESULT_NAMESPACE):
        yield "the signature of its receipt does not hold"
    if receipt.envelope_sha256 != hashlib.sha256(parts.get(layout.ENVELOPE, b"")).hexdigest():
        yield "its receipt is for another envelope"
    for part, digest in (pair.split("=") for pair in receipt.hashes):
        if hashlib.sha256(parts.get(part, b"")).hexdigest() != digest:
            yield f"its {part} is not what the receipt swears to"


@lru_cache(maxsize=4096)
def verifies(text: bytes, signature: bytes, name: str, namespace: str) -> bool:
    """Cached: the same few signatures are looked at in hundreds of images."""
    try:
        _roster().verify(text, signature.decode("ascii", "replace"), name, namespace, START)
    except SpoolError:
        return False
    return True


@lru_cache
def _roster() -> signing.Roster:
    return signing.Roster.parse(ROSTER)
