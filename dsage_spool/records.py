"""The text records of a spool: envelope, receipt, lease, worker, request; each a dataclass and its text.

    dsage-spool-envelope: 1
    spool: 7q2m…
    job: 20261122T232140-4k2m7qx9ab
    …

First line: what it is, and its version. Then one `key: value` line for each field, in the order of
the dataclass; empty fields are left out. A key that is not known, or stands twice, is refused: in a
signed text every word counts. `parse(make(record)) == record`. Raises BadFormat, BadVersion.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TypeVar

from . import names
from .errors import BadFormat, BadVersion
from .text import clean

VERSION = 1
RECORD_LIMIT = 64 * 1024  # bytes; what any record may be large

LAST_MOMENT = 253_402_300_799  # the last second of the year 9999: later ones cannot be shown

# What Python reads as a number besides, such as 1_0, ٣ or inf, has no place in a signed text.
_NUMBERS = {
    "int": (re.compile(r"-?[0-9]{1,24}"), int),
    "float": (re.compile(r"-?[0-9]{1,24}(\.[0-9]{1,9})?"), float),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")

KINDS = ("call", "source", "command")
OUTCOMES = (
    "ok",  # it ran and returned
    "raised",  # it ran and raised an exception
    "exited",  # it ended itself with a status other than 0
    "killed",  # a signal ended it
    "time-limit",
    "memory-limit",
    "output-limit",
    "refused",  # the worker would not run it: signature, Python, payload
    "returned",  # the worker gave the claim back
)


@dataclass(frozen=True)
class Envelope:
    """The signed, readable part of a job. Times are seconds since 1970; limits of 0 mean none."""

    spool: str
    job: str
    submitter: str
    kind: str
    title: str = ""
    needs: tuple[str, ...] = ()
    priority: int = 0
    attempts: int = 3
    time_limit: int = 0  # seconds
    memory_limit: int = 0  # bytes
    output_limit: int = 64 << 20  # bytes of stdout and stderr together
    batch: str = ""
    after: tuple[str, ...] = ()
    not_before: int = 0
    not_after: int = 0
    codec: str = ""
    payload_size: int = 0
    payload_sha256: str = ""

    def check(self) -> None:
        _require(names.is_job(self.job), "job is not a job name")
        _require(names.is_person(self.submitter), "submitter is not a name")
        _require(self.kind in KINDS, f"kind is none of {', '.join(KINDS)}")
        _require(-1000 <= self.priority <= 1000, "priority is not between -1000 and 1000")
        _require(1 <= self.attempts <= 100, "attempts is not between 1 and 100")
        _require(all(map(names.is_job, self.after)), "after names something that is no job")
        _require(all(map(_is_need, self.needs)), "needs has a word that is not `name` or `name=value`")
        _require(not self.batch or names.is_token(self.batch), "batch is not a plain word")
        _require(0 <= self.not_before <= LAST_MOMENT, "not-before is no moment before the year 10000")
        _require(0 <= self.not_after <= LAST_MOMENT, "not-after is no moment before the year 10000")
        for name in ("time_limit", "memory_limit", "output_limit", "payload_size"):
            _require(getattr(self, name) >= 0, f"{_key(name)} is negative")


@dataclass(frozen=True)
class Receipt:
    """A worker's signed text about one attempt: what it ran, how it ended, what came out."""

    spool: str
    job: str
    attempt: int
    envelope_sha256: str
    worker: str
    run: str
    outcome: str
    exit: int = 0  # exit status of the child, or 0
    signal: int = 0  # the signal that ended it, or 0
    error: str = ""  # one line
    value: str = ""  # the beginning of repr(value), one line
    codec: str = ""  # of the result: pickle, cloudpickle, or empty for no result
    started: float = 0.0  # by the worker's clock; a hint for people
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0  # bytes
    host: str = ""
    python: str = ""
    hashes: tuple[str, ...] = ()  # part=sha256, for each part that came with it

    def check(self) -> None:
        _require(names.is_job(self.job), "job is not a job name")
        _require(names.is_worker(self.worker), "worker is not a worker name")
        _require(self.attempt >= 1, "attempt is not positive")
        _require(self.outcome in OUTCOMES, "outcome is not a known word")
        _require(_is_sha256(self.envelope_sha256), "envelope-sha256 is not 64 hexadecimal digits")
        _require(0 <= self.started <= LAST_MOMENT, "started is no moment before the year 10000")
        for name in ("wall_seconds", "cpu_seconds", "peak_memory"):
            _require(getattr(self, name) >= 0, f"{_key(name)} is negative")


@dataclass(frozen=True)
class Lease:
    """The server's note of one claim, kept in the job folder."""

    job: str
    attempt: int
    worker: str
    run: str
    host: str = ""
    since: float = 0.0
    ended: float = 0.0
    why: str = ""  # expired, returned, or empty
    counts: int = 1  # 0 where the worker swore that it never started the job

    def check(self) -> None:
        _require(names.is_job(self.job), "job is not a job name")


@dataclass(frozen=True)
class Worker:
    """One start of one worker: the content of its heartbeat file and so of each of its locks."""

    worker: str
    run: str
    host: str = ""
    pid: int = 0
    slots: int = 1
    started: float = 0.0
    version: str = ""
    python: str = ""
    memory: int = 0  # bytes of the machine
    offers: tuple[str, ...] = ()  # what jobs may need: python=…, tags, packages

    def check(self) -> None:
        _require(names.is_worker(self.worker), "worker is not a worker name")
        parsed = names.parse_run(self.run)
        _require(parsed is not None and parsed[0] == self.worker, "run is not a run of this worker")


@dataclass(frozen=True)
class Request:
    """A person's signed wish about a job: cancel, hold or release."""

    spool: str
    job: str
    nonce: str
    submitter: str
    verb: str
    made: float = 0.0

    def check(self) -> None:
        _require(names.is_job(self.job), "job is not a job name")
        _require(names.is_person(self.submitter), "submitter is not a name")
        _require(self.verb in ("cancel", "hold", "release"), "verb is not a known request")


Record = TypeVar("Record", Envelope, Receipt, Lease, Worker, Request)


def make(record: Record) -> bytes:
    """The text of a record."""
    lines = [f"{_title(type(record))}: {VERSION}"]
    for spec in dataclasses.fields(record):
        value = getattr(record, spec.name)
        if value != _default(spec):
            lines.append(f"{_key(spec.name)}: {_show(value)}")
    return ("\n".join(lines) + "\n").encode()


def parse(kind: type[Record], data: bytes) -> Record:
    """The record of a text; every line must be known, unique and whole."""
    lines = _decode(data).split("\n")
    if lines.pop() != "" or not lines:
        raise BadFormat(f"{_name(kind)}: does not end with a line end: it is truncated")
    _check_version(kind, lines[0])
    values: dict[str, object] = {}
    specs = {_key(spec.name): spec for spec in dataclasses.fields(kind)}
    for line in lines[1:]:
        key, colon, text = line.partition(": ")
        if not colon or key not in specs or specs[key].name in values:
            raise BadFormat(f"{_name(kind)}: a line that is unknown, doubled or torn: {clean(line, 60)}")
        values[specs[key].name] = _read(specs[key], text, kind)
    return _build(kind, values)


def _build(kind: type[Record], values: dict[str, object]) -> Record:
    try:
        record = kind(**values)
        record.check()
    except TypeError:
        raise BadFormat(f"{_name(kind)}: a line that must be there is missing") from None
    except BadFormat as error:
        raise BadFormat(f"{_name(kind)}: {error.message}") from None
    return record


def _decode(data: bytes) -> str:
    if len(data) > RECORD_LIMIT:
        raise BadFormat(f"a record of more than {RECORD_LIMIT} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadFormat("a record that is not UTF-8 text") from None


def _check_version(kind: type, line: str) -> None:
    title, _, version = line.partition(": ")
    if title != _title(kind):
        raise BadFormat(f"{_name(kind)}: its first line is not `{_title(kind)}: {VERSION}`")
    if version != str(VERSION):
        raise BadVersion(
            f"{_name(kind)}: version {clean(version, 20)}, and this release reads version {VERSION}",
            "use the release that wrote it, or a newer one, on every machine",
        )


def _read(spec: dataclasses.Field, text: str, kind: type) -> object:
    if text != clean(text, 20_000) or text != text.strip() or not text:
        raise BadFormat(f"{_name(kind)}: {_key(spec.name)} is empty or has characters that do not belong")
    if spec.type in _NUMBERS:
        pattern, number = _NUMBERS[spec.type]
        if not pattern.fullmatch(text):
            raise BadFormat(f"{_name(kind)}: {_key(spec.name)} is not a number")
        return number(text)
    return tuple(text.split(" ")) if spec.type.startswith("tuple") else text


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, float):
        return f"{value:.6f}"
    return clean(str(value), 20_000).strip() or "?"


def _default(spec: dataclasses.Field) -> object:
    return None if spec.default is dataclasses.MISSING else spec.default


def _title(kind: type) -> str:
    return f"dsage-spool-{_name(kind)}"


def _name(kind: type) -> str:
    return kind.__name__.lower()


def _key(name: str) -> str:
    return name.replace("_", "-")


def _is_need(word: str) -> bool:
    name, _, value = word.partition("=")
    return names.is_token(name) and (not value or names.is_token(value))


def _is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise BadFormat(text)
