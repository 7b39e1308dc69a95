"""Throw-away people, their rosters, and tasks signed by them, for tests that run jobs."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from pathlib import Path

import cloudpickle
from cryptography.hazmat.primitives.asymmetric import ed25519

from dsage_spool import names, payload, records, signing
from dsage_spool.children import Ended, SlotProcesses, Task

SPOOL = "thespool"
BOUND = 60.0  # seconds; only a hang comes near it

_numbers = itertools.count(1)


def make_signer() -> signing.PrivateKeySigner:
    return signing.PrivateKeySigner(ed25519.Ed25519PrivateKey.generate())


ALICE, MALLORY, WORKER = make_signer(), make_signer(), make_signer()
ROSTER = (
    f'alice namespaces="{signing.JOB_NAMESPACE}" {ALICE.public.text}\n'
    f'desk namespaces="{signing.RESULT_NAMESPACE}" {WORKER.public.text}\n'
)


def by_value(module: str) -> None:
    """Send functions of a test module with their code: slots cannot import tests."""
    cloudpickle.register_pickle_by_value(sys.modules[module])


def make_task(kind: str, data: bytes, signer=ALICE, **fields) -> Task:
    job = names.make_job(time.time(), next(_numbers).to_bytes(4, "big"))
    fields.setdefault("payload_sha256", hashlib.sha256(data).hexdigest())
    envelope = records.make(
        records.Envelope(
            spool=SPOOL, job=job, submitter="alice", kind=kind, payload_size=len(data), **fields
        )
    )
    signature = signing.sign(signer, envelope, signing.JOB_NAMESPACE).encode()
    return Task(job, 1, envelope, signature, data)


def call(function, *args, limits: dict | None = None, **kwargs) -> Task:
    return make_task("call", payload.dump_call(function, args, kwargs), **(limits or {}))


def source(text: str, **fields) -> Task:
    return make_task("source", text.encode(), **fields)


def command(*argv: str, env: dict | None = None, **fields) -> Task:
    content = {"argv": list(argv), **({"env": env} if env else {})}
    return make_task("command", json.dumps(content).encode(), **fields)


def slots(count: int, folder: Path) -> SlotProcesses:
    children = SlotProcesses(count, folder / "scratch")
    children.set_roster(ROSTER.encode())
    return children


def collect(children: SlotProcesses, count: int) -> dict[str, Ended]:
    """The next `count` ended tasks, by job."""
    ended: dict[str, Ended] = {}
    end = time.monotonic() + BOUND
    while len(ended) < count:
        assert time.monotonic() < end, f"only {len(ended)} of {count} have ended"
        ended.update({one.job: one for one in children.wait(1.0)})
    return ended


def run(children: SlotProcesses, task: Task) -> Ended:
    children.start(task)
    return collect(children, 1)[task.job]


def value_of(ended: Ended):
    """The result, loaded as a client would, from a receipt signed for this purpose."""
    assert ended.outcome == "ok", (ended.outcome, ended.error, ended.parts)
    data = ended.parts["result"]
    receipt, signature = make_receipt(data, ended.job)
    roster, now = signing.Roster.parse(ROSTER), time.time()
    verified = payload.verified_result(
        receipt, signature, data, roster, "e" * 64, ended.job, SPOOL, now
    )
    return payload.load(verified)


def make_receipt(data: bytes, job: str, signer=WORKER, **fields) -> tuple[bytes, str]:
    values = {"spool": SPOOL, "attempt": 1, "envelope_sha256": "e" * 64, "worker": "desk"} | fields
    hashes = (f"result={hashlib.sha256(data).hexdigest()}",)
    receipt = records.make(
        records.Receipt(job=job, run="desk.0", outcome="ok", hashes=hashes, **values)
    )
    return receipt, signing.sign(signer, receipt, signing.RESULT_NAMESPACE)


def is_gone(pid: int) -> bool:
    """No such process, or only its entry in the process table."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def read_when_there(path: Path) -> str:
    """The first line of a file that another process is about to write."""
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path.name} is written")
    return path.read_text().strip()


