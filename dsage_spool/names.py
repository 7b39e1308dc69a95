"""Every name that appears in a spool: made, parsed and checked here and nowhere else.

    job      20261122T232140-4k2m7qx9ab      second of submission (UTC), then fraction and chance
    drop     <job>.job                       in incoming/
    request  <job>.<nonce>.request           in incoming/
    lock     <job>.<attempt>.lock            in locks/
    result   <job>.<attempt>.result          in results/
    output   <job>.<attempt>.out             in results/, what a running job has printed so far
    run      <worker>.<nonce>                in workers/, one start of one worker

Job names sort by time of submission and are told apart by any part that is unique. What does not
match is never opened; `parse` answers None.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

# Crockford's base 32 in lower case: sorts like the numbers, no i, l, o, u to misread.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_CHAR = f"[{ALPHABET}]"
_JOB = rf"[0-9]{{8}}T[0-9]{{6}}-{_CHAR}{{10}}"
_WORKER = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9_])?"
_JOB_ONLY = re.compile(_JOB)
_DROP = re.compile(rf"({_JOB})\.job")
_REQUEST = re.compile(rf"({_JOB})\.({_CHAR}{{8}})\.request")
_CLAIM = re.compile(rf"({_JOB})\.([1-9][0-9]{{0,5}})\.(lock|result|out)")
_RUN = re.compile(rf"({_WORKER})\.({_CHAR}{{8}})")
_WORKER_ONLY = re.compile(_WORKER)
_PERSON = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")


@dataclass(frozen=True)
class Claimed:
    """A name that speaks of one attempt at one job; `kind` is lock, result or out."""

    job: str
    attempt: int
    kind: str


def make_nonce(random: bytes) -> str:
    """Eight characters from five random bytes."""
    return _encode(int.from_bytes(random[:5], "big"), 8)


def make_request_nonce(moment: float, random: bytes) -> str:
    """Eight characters that sort by the moment (for a year), with some chance in the last."""
    return _encode(round(moment * 1000) & ((1 << 35) - 1), 7) + _encode(random[0], 1)


def _encode(number: int, width: int) -> str:
    return "".join(ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(width)))


def make_job(moment: float, random: bytes) -> str:
    """A job name for `moment` (seconds since 1970, the submitter's clock) and four random bytes."""
    micros = int(moment * 1_000_000)
    second, fraction = divmod(micros, 1_000_000)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(second))
    chance = int.from_bytes(random[:4], "big") & 0x3FFFFFFF
    return f"{stamp}-{_encode(fraction, 4)}{_encode(chance, 6)}"


def is_job(name: str) -> bool:
    return _JOB_ONLY.fullmatch(name) is not None


def is_worker(name: str) -> bool:
    return _WORKER_ONLY.fullmatch(name) is not None


def is_person(name: str) -> bool:
    return _PERSON.fullmatch(name) is not None


def is_token(name: str) -> bool:
    """A tag, a package name or another word that stands in a list of needs."""
    return _TOKEN.fullmatch(name) is not None


def drop_name(job: str) -> str:
    return f"{job}.job"


def parse_drop(name: str) -> str | None:
    """The job of a dropped job file."""
    found = _DROP.fullmatch(name)
    return found[1] if found else None


def request_name(job: str, nonce: str) -> str:
    return f"{job}.{nonce}.request"


def parse_request(name: str) -> tuple[str, str] | None:
    found = _REQUEST.fullmatch(name)
    return (found[1], found[2]) if found else None


def claim_name(job: str, attempt: int, kind: str) -> str:
    return f"{job}.{attempt}.{kind}"


def parse_claim(name: str) -> Claimed | None:
    found = _CLAIM.fullmatch(name)
    return Claimed(found[1], int(found[2]), found[3]) if found else None


def run_name(worker: str, nonce: str) -> str:
    return f"{worker}.{nonce}"


def parse_run(name: str) -> tuple[str, str] | None:
    found = _RUN.fullmatch(name)
    return (found[1], found[2]) if found else None


def worker_from_host(host: str) -> str:
    """A worker name from a host name: its first label, odd characters replaced."""
    label = re.sub(r"[^A-Za-z0-9_-]", "-", host.split(".")[0]).strip("-")[:64].strip("-")
    return label if is_worker(label) else "worker"
