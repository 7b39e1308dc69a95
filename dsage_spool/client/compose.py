"""Make a signed job: envelope, signature, payload. Pure but for the clock and chance handed in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from .. import names, records
from ..errors import BadFormat, UsageError
from ..records import Envelope
from ..signing import JOB_NAMESPACE, Signer, sign
from ..text import clean

MEMORY_NEED = "memory={}"


@dataclass(frozen=True)
class Options:
    """What may be said of a job besides what it does. Seconds and bytes; 0 means no limit."""

    title: str = ""
    priority: int = 0
    attempts: int = 3
    time_limit: float = 0
    memory_limit: int = 0
    output_limit: int = 64 << 20
    needs: tuple[str, ...] = ()
    batch: str = ""
    after: tuple[str, ...] = ()
    not_before: int = 0
    not_after: int = 0


@dataclass(frozen=True)
class Work:
    """What a job does: its kind, its payload, what a worker must offer to run it."""

    kind: str
    payload: bytes
    codec: str
    title: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignedJob:
    job: str
    title: str
    envelope: bytes
    signature: str
    payload: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.envelope).hexdigest()


def call_work(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Work:
    """A call of a Python function; UsageError names what cannot travel."""
    from .. import payload

    data = payload.dump_call(function, tuple(args), dict(kwargs))
    title = getattr(function, "__name__", type(function).__name__)
    return Work("call", data, "cloudpickle", title, payload.needs_of_call(data))


def source_work(text: str) -> Work:
    """Source text, run with sympy's names at hand; any Python may run it."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if not first:
        raise UsageError("the source is empty", "give an expression, or -f FILE")
    return Work("source", text.encode(), "source", first)


def command_work(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Work:
    """A command with its arguments, run without a shell."""
    if not argv:
        raise UsageError("no command given", "write it after --: dsage-spool submit -- sleep 10")
    content: dict[str, Any] = {"argv": list(argv)}
    if environment:
        content["env"] = dict(environment)
    return Work("command", json.dumps(content).encode(), "argv", " ".join(argv))


def compose(
    work: Work, options: Options, spool: str, submitter: str, signer: Signer, job: str
) -> SignedJob:
    """Put the parts together and sign them; `job` is the name, made by `names.make_job`."""
    title = clean(options.title or work.title, 200).strip()
    envelope = Envelope(
        spool=spool,
        job=job,
        submitter=submitter,
        kind=work.kind,
        title=title,
        needs=tuple(dict.fromkeys(work.needs + _needs(options))),
        priority=options.priority,
        attempts=options.attempts,
        time_limit=_whole(options.time_limit),
        memory_limit=options.memory_limit,
        output_limit=options.output_limit,
        batch=options.batch,
        after=options.after,
        not_before=options.not_before,
        not_after=options.not_after,
        codec=work.codec,
        payload_size=len(work.payload),
        payload_sha256=hashlib.sha256(work.payload).hexdigest(),
    )
    _check(envelope)
    text = records.make(envelope)
    return SignedJob(job, title, text, sign(signer, text, JOB_NAMESPACE), work.payload)


def _check(envelope: Envelope) -> None:
    """What would be refused there is the caller's mistake here."""
    try:
        envelope.check()
    except BadFormat as error:
        raise UsageError(error.message, "see `dsage-spool submit --help`") from None


def _needs(options: Options) -> tuple[str, ...]:
    memory = (MEMORY_NEED.format(options.memory_limit),) if options.memory_limit else ()
    return options.needs + memory


def _whole(seconds: float) -> int:
    """Whole seconds, at least one where there is a limit at all."""
    return max(1, round(seconds)) if seconds > 0 else 0


class JobNames:
    """New job names that sort by submission, also within one microsecond of one process."""

    def __init__(self, wall: Callable[[], float], random: Callable[[int], bytes]) -> None:
        self._wall = wall
        self._random = random
        self._last = 0

    def new(self) -> str:
        self._last = max(self._last + 1, int(self._wall() * 1_000_000))
        # Half a microsecond more, so that the division cannot fall below.
        return names.make_job((self._last + 0.5) / 1_000_000, self._random(4))
