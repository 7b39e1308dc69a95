"""The server's look at the drop boxes: read once, check what was read, keep those very bytes.

Verifying a file and then moving it could be forged by a client that keeps its descriptor open
(measured: 200 of 200), so the bytes that were checked are the bytes that are admitted. Nothing is
unpickled. Bounded in number and bytes for each look, so what grows with the drop boxes is only names.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Callable, Iterator

from .. import layout, names, pack, records
from ..errors import BadFormat, FileAnswer, Gone, SpoolError
from ..files import Files
from ..records import Envelope, Receipt, Request
from ..signing import JOB_NAMESPACE, RESULT_NAMESPACE, Roster
from ..spool.dropping import read_worker
from ..spool.settings import Settings
from ..states import ENDS, State
from ..text import clean
from .seen import ClaimSeen, Delivered, JobDropped, Requested, Seen, Unacceptable

NAMES_AT_ONCE = 400
BYTES_AT_ONCE = 32 << 20


class Look:
    def __init__(self, files: Files, settings: Settings, wall: Callable[[], float]) -> None:
        self._files = files
        self._settings = settings
        self._wall = wall
        self.roster = Roster.parse("")
        self._roster_stat: object = None
        self.is_live: Callable[[str], bool] = lambda job: False  # has not ended, for sure
        self.more = False  # there was more than one look takes
        self._backlog: deque[str] = deque()  # names seen in incoming/ and not looked at yet

    def refresh_roster(self) -> bool:
        """Read the roster again if it has changed; whether it has."""
        found = self._files.stat(layout.ROSTER)
        if found == self._roster_stat:
            return False
        self._roster_stat = found
        text = self._files.read(layout.ROSTER, 16 << 20)
        self.roster = Roster.parse(text.decode("utf-8", "replace"))
        return True

    def incoming(self) -> Iterator[Seen]:
        """Jobs and requests that were dropped, checked; the oldest first."""
        if not self._backlog:
            self._backlog.extend(sorted(self._files.names(layout.INCOMING), key=_oldest_first))
        budget = BYTES_AT_ONCE
        for _ in range(min(NAMES_AT_ONCE, len(self._backlog))):
            if budget <= 0:
                break
            seen, size = self._one_drop(self._backlog.popleft())
            budget -= size
            if seen:
                yield seen
        self.more = self.more or bool(self._backlog)

    def _one_drop(self, name: str) -> tuple[Seen | None, int]:
        path = layout.in_box(layout.INCOMING, name)
        job = names.parse_drop(name)
        asked = names.parse_request(name)
        if not job and not asked:
            return Unacceptable(path, f"its name is none of ours: {clean(ascii(name), 120)}"), 0
        try:
            data = self._files.read(path, self._settings.drop_limit)
            seen = self._job(path, job, data) if job else self._request(path, asked, data)
            return seen, len(data)
        except Gone:
            return None, 0
        except (BadFormat, SpoolError) as error:
            _reraise_if_ours(error)
            own = job if job and self._where(job) is None else ""
            return Unacceptable(path, error.message, own or ""), 0

    def _job(self, path: str, job: str, data: bytes) -> JobDropped:
        parts = pack.split(data, layout.JOB_PARTS)
        if parts.keys() != layout.JOB_PARTS:
            raise BadFormat("the job file lacks its envelope, signature or payload")
        envelope = records.parse(Envelope, parts[layout.ENVELOPE])
        self._check_belongs(envelope, job)
        signature = parts[layout.SIGNATURE].decode("ascii", "replace")
        self.roster.verify(
            parts[layout.ENVELOPE], signature, envelope.submitter, JOB_NAMESPACE, self._wall()
        )
        payload = parts[layout.PAYLOAD]
        if len(payload) != envelope.payload_size:
            raise BadFormat("the payload is not as long as the envelope says")
        if hashlib.sha256(payload).hexdigest() != envelope.payload_sha256:
            raise BadFormat("the payload is not the one that was signed: its sha256 differs")
        known = self._where(job)
        fates = {other: self._where(other) for other in envelope.after}
        coming = frozenset(o for o, fate in fates.items() if not fate and self._has(layout.drop(o)))
        return JobDropped(path, envelope, parts, known, self._digest(known, job), fates, coming)

    def _check_belongs(self, record: Envelope | Request | Receipt, job: str) -> None:
        if record.job != job:
            raise BadFormat("the file is named for another job than the one it is about")
        if record.spool != self._settings.id:
            raise BadFormat("it was made for another spool")

    def _request(self, path: str, asked: tuple[str, str], data: bytes) -> Requested:
        job, nonce = asked
        parts = pack.split(data, layout.REQUEST_PARTS)
        if parts.keys() != layout.REQUEST_PARTS:
            raise BadFormat("the request lacks its text or its signature")
        request = records.parse(Request, parts["request"])
        self._check_belongs(request, job)
        if request.nonce != nonce:
            raise BadFormat("the file is named with another nonce than the one that was signed")
        signature = parts["request.sig"].decode("ascii", "replace")
        self.roster.verify(
            parts["request"], signature, request.submitter, JOB_NAMESPACE, self._wall()
        )
        return Requested(path, request, self._where(job), self._has(layout.drop(job)))

    def _where(self, job: str) -> State | None:
        """The terminal state in which a job of that name lies."""
        if self.is_live(job):
            return None
        found = (state for state in ENDS if self._has(layout.job_folder(state, job)))
        return next(found, None)

    def _has(self, path: str) -> bool:
        try:
            self._files.stat(path)
        except FileAnswer:
            return False
        return True

    def _digest(self, state: State | None, job: str) -> bytes:
        if state is None:
            return b""
        try:
            path = layout.in_job(state, job, layout.ENVELOPE)
            return hashlib.sha256(self._files.read(path, records.RECORD_LIMIT)).digest()
        except FileAnswer:
            return b""

    def claims(self, known: set[str]) -> Iterator[Seen]:
        """Locks that are new since the last look; `known` holds the names already served."""
        for name in self._files.names(layout.LOCKS):
            if name in known:
                continue
            claimed = names.parse_claim(name)
            path = layout.in_box(layout.LOCKS, name)
            if not claimed or claimed.kind != "lock":
                yield Unacceptable(path, f"not the name of a lock: {clean(ascii(name), 120)}")
                continue
            try:
                worker = read_worker(self._files.read(path, records.RECORD_LIMIT))
            except Gone:
                continue
            except SpoolError as error:
                _reraise_if_ours(error)
                yield Unacceptable(path, error.message)
                continue
            enrolled = self.roster.has(worker.worker, RESULT_NAMESPACE)
            yield ClaimSeen(path, claimed.job, claimed.attempt, worker, enrolled)

    def results(self) -> Iterator[Seen]:
        """Deliveries, checked; what running jobs print so far (.out) is for others."""
        budget = BYTES_AT_ONCE
        for name in sorted(self._files.names(layout.RESULTS)):
            if name.endswith(".out") and names.parse_claim(name):
                continue
            if budget <= 0:
                self.more = True
                return
            seen, size = self._one_result(name)
            budget -= size
            if seen:
                yield seen

    def _one_result(self, name: str) -> tuple[Seen | None, int]:
        path = layout.in_box(layout.RESULTS, name)
        claimed = names.parse_claim(name)
        if not claimed or claimed.kind != "result":
            return Unacceptable(path, f"not the name of a result: {clean(ascii(name), 120)}"), 0
        try:
            data = self._files.read(path, self._settings.delivery_limit)
            parts = pack.split(data, layout.RESULT_PARTS)
            receipt = self._receipt(parts, claimed)
            known = self._where(claimed.job)
            served = known is not None and parts[layout.RECEIPT] == self._receipt_in(known, claimed)
            return Delivered(path, receipt, parts, known, served), len(data)
        except Gone:
            return None, 0
        except SpoolError as error:
            _reraise_if_ours(error)
            return Unacceptable(path, error.message), 0

    def _receipt_in(self, state: State, claimed: names.Claimed) -> bytes:
        try:
            path = layout.in_job(state, claimed.job, layout.RECEIPT)
            return self._files.read(path, records.RECORD_LIMIT)
        except FileAnswer:
            return b""

    def _receipt(self, parts: dict[str, bytes], claimed: names.Claimed) -> Receipt:
        if not {layout.RECEIPT, layout.RECEIPT_SIGNATURE} <= parts.keys():
            raise BadFormat("the delivery lacks its receipt or its signature")
        text = parts[layout.RECEIPT]
        receipt = records.parse(Receipt, text)
        self._check_belongs(receipt, claimed.job)
        if (names.parse_run(receipt.run) or ("",))[0] != receipt.worker:
            raise BadFormat("the receipt is of another worker's run")
        if receipt.attempt != claimed.attempt:
            raise BadFormat("the file is named for another attempt than the one it is about")
        signature = parts[layout.RECEIPT_SIGNATURE].decode("ascii", "replace")
        self.roster.verify(text, signature, receipt.worker, RESULT_NAMESPACE, self._wall())
        check_parts(receipt, parts)
        return receipt


def _oldest_first(name: str) -> tuple[str, bool, str]:
    """By the job's name, and so by time; the requests about a job come right after it."""
    return name.partition(".")[0], names.parse_drop(name) is None, name


def check_parts(receipt: Receipt, parts: dict[str, bytes]) -> None:
    """Whether the parts of a delivery are those that the receipt swears to; BadFormat if not."""
    found = {
        f"{name}={hashlib.sha256(data).hexdigest()}"
        for name, data in parts.items()
        if name not in (layout.RECEIPT, layout.RECEIPT_SIGNATURE)
    }
    if found != set(receipt.hashes):
        raise BadFormat("the parts of the delivery are not those that its receipt swears to")


def _reraise_if_ours(error: SpoolError) -> None:
    """A full or failing disk is not the fault of the file that was read."""
    from ..errors import Denied, DiskError

    if isinstance(error, DiskError) and not isinstance(error, Denied):
        raise error
