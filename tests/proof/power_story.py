"""A day in the life of a spool, by one seed, on a disk with a log: what was promised, and when.

All verbs are the shipped ones, on `LocalFiles`; people's and workers' hands are those of
`spool_world.World`. A moment is a position in the log of the disk. What is noted here as
acknowledged or seen must outlast a power loss at any later position.
"""

from __future__ import annotations

import random as chance
from bisect import bisect_right
from dataclasses import dataclass
from typing import Callable, Sequence

from dsage_spool import layout, names, pack, records, signing
from dsage_spool.errors import Gone
from dsage_spool.files import LocalFiles
from dsage_spool.records import Request
from dsage_spool.signing import JOB_NAMESPACE
from dsage_spool.spool import dropping, reading
from dsage_spool.spool.dropping import Drop
from dsage_spool.states import State
from spool_world import LEASE, MALLORY, PEOPLE, WORKERS, World

NEVER = 1 << 62  # a moment that did not come
ENDED = (State.DONE, State.FAILED, State.CANCELLED)
LIVE = (State.QUEUED, State.HELD, State.RUNNING)
RESTLESS = 0.02  # of the operations after which the kernel writes out by itself
GROUPS = (1, 1, 1, 2, 3, 12)  # how many things at once: fsync each, or one syncfs for all


@dataclass
class Sent:
    """A drop: the bytes, when it was begun, and when the verb told that it is safe."""

    drop: Drop
    job: str
    begun: int
    acked: int = NEVER
    wish: str = ""  # the outcome of a delivery, the verb of a request; "" for a job


@dataclass(frozen=True)
class Claimed:
    """A claim that was told to the worker, who then ran the job."""

    job: str
    attempt: int
    run: str
    acked: int


@dataclass(frozen=True)
class Visible:
    """An end that anybody could read, from the rename on, before it was flushed."""

    job: str
    state: State
    parts: dict[str, bytes]
    seen: int


def lasting(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Of an ended job: what never changes. Late deliveries come later, leases are not flushed."""
    return {name: data for name, data in parts.items() if not name.startswith(("late.", "lease."))}


class Killed(Exception):
    """Whoever was at work is dead; what it did so far is done, in memory or on the disk."""


class Witness(LocalFiles):
    """The spool's files; notes each operation, and what can be read of ended jobs."""

    def __init__(self, root: str, position: Callable[[], int], seed: int) -> None:
        super().__init__(root)
        self._position, self._chance = position, chance.Random(seed)
        self.operations: list[tuple[int, str]] = []  # position behind it, what
        self.left = 0  # operations until whoever is at work is killed; 0 or less: nobody is
        self.visible: list[Visible] = []

    def note(self, what: str) -> None:
        self.operations.append((self._position(), what))
        self.left -= 1
        if not self.left:
            raise Killed
        if self._chance.random() < RESTLESS:
            super().sync_all()  # as the kernel does every few seconds, whoever asked or not

    def move(self, source: str, path: str) -> None:
        super().move(source, path)
        state, _, job = path.partition("/")
        if state in map(str, ENDED) and "/" not in job:
            self._see(State(state), job, self._position())
        self.note(f"move {source} to {path}")

    def _see(self, state: State, job: str, now: int) -> None:
        folder = layout.job_folder(state, job)
        parts = {name: self.read(f"{folder}/{name}", 1 << 26) for name in self.names(folder)}
        self.visible.append(Visible(job, state, lasting(parts), now))


def _noted(name: str):
    def operation(self, *arguments):
        answer = getattr(LocalFiles, name)(self, *arguments)
        told = arguments[0] if arguments else ""
        self.note(f"{name} {told if isinstance(told, str) else ' '.join(told[:3])}")
        return answer

    return operation


for _name in ("write", "rewrite", "append", "resize", "link", "remove", "make_folder", "sync"):
    setattr(Witness, _name, _noted(_name))


class Story(World):
    """Many jobs in several batches, so that at any moment there are jobs in all states."""

    def __init__(self, root: str, position: Callable[[], int], seed: int) -> None:
        self._position = position
        self.witness = Witness(root, position, seed)
        self.chance = chance.Random(seed)
        super().__init__(self.witness)
        self.random = chance.Random(f"names {seed}").randbytes
        self.witness.sync([layout.ROSTER])
        self.made = position()
        self.sent: list[Sent] = []
        self.claims: list[Claimed] = []
        self.untold: list[Claimed] = []  # claims whose worker still has to deliver
        self.runs = [self.enrol(worker) for worker in sorted(WORKERS)]
        self.start_server()

    def play(self, turns: int) -> None:
        for _ in range(turns):
            acts, weights = zip(*self._acts())
            self.chance.choices(acts, weights)[0]()
        self.end = self._position()

    def _acts(self) -> list[tuple[Callable[[], object], int]]:
        return [
            (self.submit_some, 5), (self.work, 8), (self.claim_some, 5), (self.deliver_some, 6),
            (self.ask, 3), (self.lose_a_worker, 1), (self.drop_junk, 1), (self.kill_one, 4),
        ]  # fmt: skip

    def work(self) -> None:
        self.server.one_pass()

    def kill_one(self) -> None:
        """The server or somebody else is killed at any operation; then a new server comes."""
        others = (self.submit_some, self.claim_some, self.deliver_some, self.ask)
        self.witness.left = int(10 ** (2 * self.chance.random()))
        try:
            self.chance.choice((self.work, self.work, *others))()
        except Killed:
            pass
        self.witness.left = 0
        self.start_server()

    # -- people ------------------------------------------------------------------------------

    def submit_some(self) -> None:
        self._put([self._job() for _ in range(self.chance.choice(GROUPS))])

    def _job(self) -> Sent:
        roll = self.chance.random
        fields = {"submitter": self.chance.choice(sorted(PEOPLE)), "attempts": 1 + int(roll() * 3)}
        live = self.jobs_in(*LIVE)
        if live and roll() < 0.15:
            fields["after"] = (self.chance.choice(live),)
        payload = self.random(int(10 ** (5 * roll())))
        job, parts = self.job_parts(payload=payload, **fields)
        return Sent(Drop(layout.INCOMING, names.drop_name(job), pack.join(parts)), job, 0)

    def ask(self) -> None:
        live = self.jobs_in(*LIVE)
        if live:
            verb = self.chance.choice(("cancel", "hold", "hold", "release", "release"))
            held = self.jobs_in(State.HELD)
            jobs = held if verb == "release" and held else live
            self._put([self.request_for(self.chance.choice(jobs), verb)])

    def request_for(self, job: str, verb: str) -> Sent:
        owner = records.parse(records.Envelope, self.texts[job]).submitter
        nonce = names.make_nonce(self.random(5))
        request = Request(self.settings.id, job, nonce, owner, verb, self.clock.wall())
        text = records.make(request)
        signature = signing.sign(PEOPLE[owner], text, JOB_NAMESPACE)
        return Sent(dropping.request_drop(request, text, signature), job, 0, wish=verb)

    def drop_junk(self) -> None:
        """Nobody promises anything about it; but it must not hurt the others."""
        job, parts = self.job_parts(signer=MALLORY)
        del self.texts[job]
        junk = [
            Drop(layout.INCOMING, f"what is this {job}", b"x"),
            Drop(layout.INCOMING, names.drop_name(job), pack.join(parts)),
            Drop(layout.RESULTS, names.claim_name(job, 1, "result"), b"no pack"),
        ]
        dropping.put(self.files, "junk", self.chance.sample(junk, 1))

    def _put(self, sent: Sequence[Sent]) -> None:
        """Told as safe when the verb has returned, and not before."""
        for one in sent:
            one.begun = self._position()
        self.sent += sent
        outcomes = dropping.put(self.files, "n0nce", [one.drop for one in sent])
        assert outcomes == [None] * len(sent), outcomes
        for one in sent:
            one.acked = self._position()

    # -- workers -----------------------------------------------------------------------------

    def claim_some(self) -> None:
        run = self.chance.choice(self.runs)
        offered = [(row.job, row.attempt) for row in reading.read_queue(self.files).next]
        wanted = offered[: self.chance.choice(GROUPS)]
        won = dropping.claim(self.files, run, wanted)
        now = self._position()
        fresh = [Claimed(*key, run, now) for key, mine in zip(wanted, won) if mine]
        self.claims += fresh
        self.untold += fresh

    def deliver_some(self) -> None:
        """The oldest first, or whichever: also what the server has taken back by now."""
        count = min(len(self.untold), self.chance.choice(GROUPS))
        chosen = [self.untold.pop(self.chance.randrange(len(self.untold))) for _ in range(count)]
        if chosen:
            self._put([self._delivery(claim) for claim in chosen])

    def _delivery(self, claim: Claimed) -> Sent:
        outcome = self.chance.choice(("ok", "ok", "ok", "ok", "raised", "returned"))
        parts = {} if outcome == "returned" else {"stdout": b"hello\n"}
        if outcome == "ok":
            parts["result"] = self.random(int(10 ** (5 * self.chance.random())))
        data = self.delivery(claim.job, claim.attempt, claim.run, outcome, parts=parts)
        drop = dropping.result_drop(claim.job, claim.attempt, data)
        return Sent(drop, claim.job, 0, wish=outcome)

    def lose_a_worker(self) -> None:
        """It is silent for so long that its jobs go back; the next run of it comes."""
        run = self.runs.pop(self.chance.randrange(len(self.runs)))
        self.silent.add(run)
        self.pass_time(LEASE * 1.3)
        self.runs.append(self.enrol(run.partition(".")[0]))

    # -- what there is -----------------------------------------------------------------------

    def jobs_in(self, *states: State) -> list[str]:
        return sorted(job for state in states for job in self.files.names(str(state)))

    @property
    def told(self) -> set[int]:
        """Positions at which somebody heard that something is safe."""
        return {one.acked for one in (*self.sent, *self.claims)} - {NEVER}

    @property
    def seen(self) -> set[int]:
        """Positions from which on the end of a job could be read."""
        return {end.seen for end in self.witness.visible}

    def doing(self, position: int) -> str:
        """The operation that was under way at a position."""
        operations = self.witness.operations
        at = bisect_right(operations, position, key=lambda row: row[0])
        return f"operation {at}: {operations[at][1] if at < len(operations) else 'the end'}"


def attempt_of(files: LocalFiles, state: State, job: str) -> tuple[int, records.Lease | None]:
    """The present attempt as the leases in its folder tell it, and the lease of a running job.

    In running/ the highest is the present one, also if it has ended: its end was not carried out.
    """
    folder = layout.job_folder(state, job)
    numbers = sorted(int(n[6:]) for n in files.names(folder) if n.startswith("lease."))
    leases = [read_lease(files, f"{folder}/{layout.lease_name(n)}") for n in numbers]
    if state is State.RUNNING:
        return (numbers or [0])[-1], (leases or [None])[-1]
    ended = [lease.attempt for lease in leases if lease and lease.ended]
    return max(ended, default=0) + 1, None


def read_lease(files: LocalFiles, path: str) -> records.Lease | None:
    try:
        return records.parse(records.Lease, files.read(path, records.RECORD_LIMIT))
    except (Gone, records.BadFormat):
        return None
