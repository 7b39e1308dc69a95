"""A small spool with people and workers whose hands are the test's: no processes, no waiting.

Everybody who signs here has a throw-away key. Time is handed in and stands still unless told.
"""

from __future__ import annotations

import hashlib
import itertools
import random as chance

from cryptography.hazmat.primitives.asymmetric import ed25519

from dsage_spool import layout, names, pack, records, signing
from dsage_spool.clock import Clock
from dsage_spool.errors import Gone
from dsage_spool.records import Envelope, Receipt, Request, Worker
from dsage_spool.server.serve import Server
from dsage_spool.signing import JOB_NAMESPACE, RESULT_NAMESPACE
from dsage_spool.spool import dropping, making
from dsage_spool.states import JOB_FOLDERS, State

START = 1_795_389_700.0
LEASE = 60.0


def make_signer(seed: int) -> signing.PrivateKeySigner:
    return signing.PrivateKeySigner(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


PEOPLE = {"alice": make_signer(1), "bob": make_signer(2)}
WORKERS = {"kiwi": make_signer(3), "fig": make_signer(4)}
MALLORY = make_signer(9)
ROSTER = "".join(
    [signing.line_for(name, key.public, JOB_NAMESPACE) + "\n" for name, key in PEOPLE.items()]
    + [signing.line_for(name, key.public, RESULT_NAMESPACE) + "\n" for name, key in WORKERS.items()]
)


class FakeClock(Clock):
    def __init__(self) -> None:
        self.now = 0.0

    def boottime(self) -> float:
        return 1000.0 + self.now

    def wall(self) -> float:
        return START + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class World:
    """`files` is for the parties, `server_files` (by default the same) for the server alone."""

    def __init__(self, files, clock: FakeClock | None = None, server_files=None) -> None:
        self.files = files
        self.clock = clock or FakeClock()
        self.server_files = server_files or files
        self.random = chance.Random(11).randbytes
        self._numbers = itertools.count(1)
        self.log: list[str] = []
        self.texts: dict[str, bytes] = {}  # envelopes by job
        self.settings = making.make_spool(files, self.random, "today", lease=LEASE)
        files.append(layout.ROSTER, ROSTER.encode())
        self.server: Server | None = None
        self.alive: set[str] = set()  # runs
        self.silent: set[str] = set()

    # -- the server --------------------------------------------------------------------------

    def start_server(self, files=None) -> Server:
        self.server = Server(files or self.server_files, self.clock, self.random, self.log.append)
        self.server.open()
        return self.server

    def settle_down(self, limit: int = 20) -> None:
        """Passes until there is nothing left to do."""
        for _ in range(limit):
            if not self.server.one_pass():
                return
        raise AssertionError("the server never comes to rest")

    def pass_time(self, seconds: float) -> None:
        """Let time go by in steps that the server does not take for a pause of its own."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + LEASE / 12)
            for run in sorted(self.alive - self.silent):
                self.beat(run)
            self.server.one_pass()

    # -- people ------------------------------------------------------------------------------

    def new_name(self) -> str:
        return names.make_job(self.clock.wall() + next(self._numbers), self.random(4))

    def job_parts(self, signer=None, payload=b"2+2", job="", **fields) -> tuple[str, dict[str, bytes]]:
        job = job or self.new_name()
        fields.setdefault("submitter", "alice")
        fields.setdefault("spool", self.settings.id)
        fields.setdefault("payload_sha256", hashlib.sha256(payload).hexdigest())
        fields.setdefault("payload_size", len(payload))
        text = records.make(Envelope(job=job, kind="source", title=f"job of {fields['submitter']}", **fields))
        self.texts[job] = text
        signature = signing.sign(signer or PEOPLE[fields["submitter"]], text, JOB_NAMESPACE)
        return job, {"envelope": text, "envelope.sig": signature.encode(), "payload": payload}

    def submit(self, **fields) -> str:
        job, parts = self.job_parts(**fields)
        self.drop(layout.INCOMING, names.drop_name(job), pack.join(parts))
        return job

    def drop(self, box: str, name: str, data: bytes) -> None:
        [outcome] = dropping.put(self.files, "n0nce", [dropping.Drop(box, name, data)])
        assert outcome is None, outcome

    def request(self, job: str, verb: str, submitter="alice", signer=None, nonce="00000000") -> None:
        request = Request(self.settings.id, job, nonce, submitter, verb, self.clock.wall())
        text = records.make(request)
        signature = signing.sign(signer or PEOPLE[submitter], text, JOB_NAMESPACE)
        dropping.put(self.files, "n0nce", [dropping.request_drop(request, text, signature)])

    # -- workers -----------------------------------------------------------------------------

    def enrol(self, worker: str = "kiwi") -> str:
        run = names.run_name(worker, names.make_nonce(self.random(5)))
        dropping.enrol(self.files, Worker(worker, run, host=worker))
        self.alive.add(run)
        return run

    def beat(self, run: str) -> None:
        size = self.files.stat(layout.heartbeat(run)).size
        text = len(self.files.read(layout.heartbeat(run), 1 << 16).rstrip(b"\0"))
        self.files.resize(layout.heartbeat(run), text + (size == text))

    def claim(self, run: str, job: str, attempt: int = 1) -> None:
        assert dropping.claim(self.files, run, [(job, attempt)]) == [True]

    def delivery(self, job, attempt, run, outcome="ok", signer=None, parts=None, **fields) -> bytes:
        if parts is None:
            parts = {"result": b"result of " + job.encode(), "stdout": b"hello\n"}
            if outcome != "ok":
                parts = {"stderr": b"oh\n", "traceback": b"Traceback: no\n"}
        worker = run.partition(".")[0]
        values = {
            "envelope_sha256": hashlib.sha256(self.texts.get(job, b"")).hexdigest(),
            "spool": self.settings.id,
            "hashes": tuple(f"{k}={hashlib.sha256(v).hexdigest()}" for k, v in parts.items()),
            "wall_seconds": 1.5,
            "error": "" if outcome == "ok" else "ValueError: no",
            "worker": worker,
        } | fields
        text = records.make(Receipt(job=job, attempt=attempt, run=run, outcome=outcome, **values))
        signature = signing.sign(signer or WORKERS[worker], text, RESULT_NAMESPACE)
        return pack.join({"receipt": text, "receipt.sig": signature.encode(), **parts})

    def deliver(self, job: str, attempt: int, run: str, outcome: str = "ok", **fields) -> None:
        data = self.delivery(job, attempt, run, outcome, **fields)
        self.drop(layout.RESULTS, names.claim_name(job, attempt, "result"), data)

    # -- what there is -----------------------------------------------------------------------

    def states(self, job: str) -> list[State]:
        """All states in which a job of this name lies: one, if all is well."""
        found = []
        for state in JOB_FOLDERS:
            try:
                self.files.stat(layout.job_folder(state, job))
                found.append(state)
            except Gone:
                pass
        return found

    def state(self, job: str) -> State | None:
        found = self.states(job)
        assert len(found) < 2, f"{job} is in {found}"
        return found[0] if found else None

    def parts(self, job: str) -> dict[str, bytes]:
        return self.parts_in(layout.job_folder(self.state(job), job))

    def parts_in(self, folder: str) -> dict[str, bytes]:
        return {name: self.files.read(f"{folder}/{name}", 1 << 26) for name in self.files.names(folder)}

    def verdicts(self) -> list[str]:
        """The reasons of all that was rejected."""
        folders = self.files.names("rejected")
        return sorted(
            self.files.read(f"rejected/{name}/verdict", 4096).decode()[21:] for name in folders
        )


def running(world: World, run: str, **fields) -> str:
    """A job that the server has seen this run claim."""
    job = world.submit(**fields)
    world.server.one_pass()
    world.claim(run, job)
    world.server.one_pass()
    assert world.state(job) is State.RUNNING
    return job
