"""One job's story, for `show`: what its folder says, read with bounds and signatures checked, and
never a byte unpickled.

Raises UnknownJob where the spool has no such job. What cannot be read or is not signed by whom it
should be is part of the story, not an error: it stands in `problems` and in the checks.
"""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Callable

from .. import layout, records
from ..clock import stamp
from ..errors import BadFormat, FileAnswer, SpoolError, UnknownJob
from ..files import Files
from ..records import Envelope, Lease, Receipt
from ..spool import reading, settings
from ..states import TERMINAL, State
from ..text import clean, clean_lines
from . import snapshot

if TYPE_CHECKING:
    from ..signing import Roster

JSON_VERSION = 1
FILES_LIMIT = 200  # names in a job folder that are looked at
ENDS = 16 << 10  # bytes of a text part that are read from its beginning, and from its end
LINES = 10  # of an output, from its beginning, and from its end
LINES_OF_TRACEBACK = 30
LINE_LIMIT = 2000  # characters
LOOKS = 3  # a job may move on while it is being read
_LEASE = re.compile(r"lease\.([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Check:
    """Whether a signed text is what it should be; if not, why."""

    verified: bool = False
    why: str = ""


@dataclass(frozen=True)
class Excerpt:
    """The beginning and the end of a text. `left_out` bytes lie between them."""

    size: int
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    left_out: int = 0
    signed: bool | None = None  # as the receipt swears; None: not checked, or no receipt


@dataclass
class Story:
    """Times in seconds since 1970; `taken` and those of leases by the spool host's clock."""

    job: str
    state: State
    place: str
    folder: str
    taken: float
    submitted: float | None = None  # by the submitter's clock, from the job's name
    envelope: Envelope | None = None
    envelope_check: Check = Check()
    leases: list[Lease] = field(default_factory=list)
    receipt: Receipt | None = None
    receipt_check: Check = Check()
    verdict: str = ""
    waits: list[str] = field(default_factory=list)  # why it does not run, in words
    sizes: dict[str, int] = field(default_factory=dict)  # of the files in the folder, in bytes
    outputs: dict[str, Excerpt] = field(default_factory=dict)  # stdout, stderr, traceback, so far
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"version": JSON_VERSION, **asdict(self), "state": str(self.state)}


def submitted(job: str) -> float | None:
    """The second in which a job was submitted, by its submitter's clock, out of its name."""
    try:
        return float(calendar.timegm(time.strptime(job[:15], "%Y%m%dT%H%M%S")))
    except ValueError:
        return None


def collect(files: Files, job: str, roster: Roster | None = None, place: str = "") -> Story:
    """Read a job's story; `roster` is the spool's own where none is given."""
    # Here, since who only looks at a spool must not pay for cryptography.
    from ..signing import Roster

    spool = settings.load(files, place or "this spool")
    if roster is None:
        roster = Roster.parse(files.read(layout.ROSTER, 16 << 20).decode("utf-8", "replace"))
    for look in range(LOOKS):
        state = reading.state_of(files, job)
        if state is None:
            raise UnknownJob(f"{clean(job, 60)}: no such job in this spool")
        story = _Reader(files, job, state, roster, spool.id, place).read()
        if story.sizes or state is State.INCOMING:
            break
    return story


class _Reader:
    """One look at one job folder."""

    def __init__(
        self, files: Files, job: str, state: State, roster: Roster, spool: str, place: str
    ) -> None:
        folder = layout.drop(job) if state is State.INCOMING else layout.job_folder(state, job)
        self._files, self._roster, self._spool = files, roster, spool
        self._texts: dict[str, bytes] = {}
        self._story = Story(job, state, place, folder, files.now(), submitted(job))

    def read(self) -> Story:
        story = self._story
        if story.state is State.INCOMING:
            story.waits.append("the server has not looked at it yet")
            return story
        self._look_inside()
        self._read_records()
        for part in (layout.STDOUT, layout.STDERR, layout.TRACEBACK):
            if part in story.sizes:
                self._read_output(part, f"{story.folder}/{part}", story.sizes[part])
        if story.state is State.RUNNING and story.leases:
            self._read_live_output(story.leases[-1].attempt)
        if story.state not in TERMINAL:
            self._why_it_waits()
        return story

    def _try(self, read: Callable[..., Any], *args: Any) -> Any:
        """What `read` answers; where it fails for this one file, None and a line in `problems`."""
        try:
            return read(*args)
        except (FileAnswer, BadFormat) as error:
            self._story.problems.append(clean(error.message, 200))
            return None

    def _look_inside(self) -> None:
        """Which files the folder holds, and the texts of the small ones."""
        story = self._story
        inside = self._try(self._files.names, story.folder, FILES_LIMIT) or []
        paths = [(f"{story.folder}/{name}",) for name in sorted(inside)]
        for name, found in zip(sorted(inside), self._files.many("stat", paths)):
            if not isinstance(found, SpoolError) and found.kind == "file":
                story.sizes[clean(name, 60)] = found.size
        small = [name for name in story.sizes if name in _RECORDS or _LEASE.fullmatch(name)]
        rows = [(f"{story.folder}/{name}", records.RECORD_LIMIT) for name in small]
        for name, data in zip(small, self._files.many("read", rows)):
            if isinstance(data, bytes):
                self._texts[name] = data
            else:
                story.problems.append(clean(data.message, 200))

    def _read_records(self) -> None:
        story = self._story
        story.verdict = clean(self._text(layout.VERDICT).strip(), 1000)
        if layout.ENVELOPE in self._texts:
            story.envelope = self._record(Envelope, layout.ENVELOPE)
            story.envelope_check = self._check_envelope()
        if layout.RECEIPT in self._texts:
            story.receipt = self._record(Receipt, layout.RECEIPT)
            story.receipt_check = self._check_receipt()
        attempts = sorted(int(found[1]) for found in map(_LEASE.fullmatch, self._texts) if found)
        leases = [self._record(Lease, layout.lease_name(attempt)) for attempt in attempts]
        story.leases = [lease for lease in leases if lease]

    def _text(self, name: str) -> str:
        return self._texts.get(name, b"").decode("utf-8", "replace")

    def _record(self, kind: type, name: str) -> Any:
        return self._try(records.parse, kind, self._texts[name])

    # -- signatures --------------------------------------------------------------------------

    def _check_envelope(self) -> Check:
        from ..signing import JOB_NAMESPACE

        envelope = self._story.envelope
        if envelope is None:
            return Check(False, "it cannot be read")
        if (envelope.job, envelope.spool) != (self._story.job, self._spool):
            return Check(False, "it is another job's, or another spool's")
        return self._signed(layout.ENVELOPE, layout.SIGNATURE, envelope.submitter, JOB_NAMESPACE)

    def _check_receipt(self) -> Check:
        from ..signing import RESULT_NAMESPACE

        receipt = self._story.receipt
        if receipt is None:
            return Check(False, "it cannot be read")
        if (receipt.job, receipt.spool) != (self._story.job, self._spool):
            return Check(False, "it is another job's, or another spool's")
        words = self._texts.get(layout.ENVELOPE, b"")
        if receipt.envelope_sha256 != hashlib.sha256(words).hexdigest():
            return Check(False, "it is for other words than those of the envelope")
        return self._signed(
            layout.RECEIPT, layout.RECEIPT_SIGNATURE, receipt.worker, RESULT_NAMESPACE
        )

    def _signed(self, name: str, signature: str, who: str, namespace: str) -> Check:
        text, now = self._texts[name], time.time()
        try:
            self._roster.verify(text, self._text(signature), who, namespace, now)
        except SpoolError as error:
            return Check(False, clean(error.message, 200))
        return Check(True)

    # -- what it printed ---------------------------------------------------------------------

    def _read_output(self, part: str, path: str, size: int) -> None:
        """The ends of an output; whole where it is short, and then held against the receipt."""
        whole = size <= 2 * ENDS
        rows = [(path, 0, 2 * ENDS)] if whole else [(path, 0, ENDS), (path, size - ENDS, ENDS)]
        found = self._files.many("read_from", rows)
        if not all(isinstance(data, bytes) for data in found):
            return self._story.problems.append(f"{part}: cannot be read")
        lines = LINES_OF_TRACEBACK if part == layout.TRACEBACK else LINES
        signed = self._matches_receipt(part, found[0]) if whole else None
        self._story.outputs[part] = _excerpt(found, size, lines, signed)

    def _matches_receipt(self, part: str, data: bytes) -> bool | None:
        story = self._story
        if not story.receipt or not story.receipt_check.verified:
            return None
        return f"{part}={hashlib.sha256(data).hexdigest()}" in story.receipt.hashes

    def _read_live_output(self, attempt: int) -> None:
        path = layout.output(self._story.job, attempt)
        try:
            size = self._files.stat(path).size
        except FileAnswer:
            return  # it has not printed anything yet
        self._read_output("so far", path, size)

    # -- why it does not run -----------------------------------------------------------------

    def _why_it_waits(self) -> None:
        story, envelope = self._story, self._story.envelope
        if story.state is State.HELD:
            story.waits.append("a person has set it aside; `dsage-spool release` puts it back")
        if story.state is not State.QUEUED or envelope is None:
            return
        story.waits += self._dates(envelope) + self._others(envelope)
        if not story.waits:
            shot = snapshot.take(self._files, story.place, local=False)
            story.waits.append(snapshot.why_waits(envelope.needs, shot))
            ahead = next((n for n, row in enumerate(shot.waiting) if row.job == story.job), None)
            if ahead is not None:
                story.waits.append(f"{ahead} before it" if ahead else "it is the next to run")

    def _dates(self, envelope: Envelope) -> list[str]:
        if envelope.not_before <= self._story.taken:
            return []
        return [f"not before {_date(envelope.not_before)}"]

    def _others(self, envelope: Envelope) -> list[str]:
        states = reading.states_of(self._files, envelope.after[:FILES_LIMIT])
        waits = zip(envelope.after, states)
        live = ((job, state) for job, state in waits if state not in TERMINAL)
        return [f"runs after {job}, which is {state}" for job, state in live]


_SIGNATURES = {layout.SIGNATURE, layout.RECEIPT_SIGNATURE}
_RECORDS = {layout.ENVELOPE, layout.RECEIPT, layout.VERDICT} | _SIGNATURES


def _date(moment: float) -> str:
    try:
        return stamp(moment)
    except (ValueError, OverflowError, OSError):
        return "a date that no calendar has"


def _excerpt(found: list[bytes], size: int, count: int, signed: bool | None) -> Excerpt:
    """The first and last lines of what was read: a whole text, or its two ends."""
    head, tail = _lines(found[0]), _lines(found[-1])
    if len(found) == 1 and len(head) <= 2 * count:
        return Excerpt(size, tuple(head), signed=signed)
    first, last = tuple(head[:count]), tuple(tail[-count:])
    shown = sum(len(line.encode("utf-8", "replace")) + 1 for line in first + last)
    return Excerpt(size, first, last, max(1, size - shown), signed)


def _lines(data: bytes) -> list[str]:
    if not data:
        return []
    text = clean_lines(data.decode("utf-8", "replace"))
    return [line[:LINE_LIMIT].expandtabs() for line in text.removesuffix("\n").split("\n")]
