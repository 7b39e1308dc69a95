"""The server's look at the drop boxes: read once, check what was read, keep those very bytes.

Verifying a file and then moving it could be forged by a client that keeps its descriptor open
(measured: 200 of 200), so the bytes that were checked are the bytes that are admitted. Nothing is
unpickled. Each look is bounded in number and bytes, and so are the names that are held: nothing
here grows with what lies in a drop box.
"""

from __future__ import annotations

import hashlib
from collections import deque
from heapq import nsmallest
from itertools import chain
from typing import Callable, Iterable, Iterator

from .. import layout, names, pack, records
from ..clock import Clock
from ..errors import BadFormat, FileAnswer, Gone, SpoolError
from ..files import Choice, Files
from ..records import Envelope, Receipt, Request
from ..signing import JOB_NAMESPACE, RESULT_NAMESPACE, Roster
from ..spool.dropping import read_worker
from ..spool.settings import Settings
from ..states import ENDS, State
from ..text import clean
from .book import Book, PutOff
from .seen import ClaimSeen, Delivered, JobDropped, Requested, Seen, Unacceptable

NAMES_AT_ONCE = 400
CLAIMS_AT_ONCE = 2_000
AGAIN_AT_MOST = NAMES_AT_ONCE // 2  # so that a pass has room for others
BYTES_AT_ONCE = 32 << 20
NAMES_HELD = 50_000  # of one drop box; a million names are gone through in about a second
PATIENCE = 4  # times as long as a long listing took, until the next one may begin


class Box:
    """The names in a drop box, the oldest first; only so many of them are held.

    The next ones are those behind the last that were held, and after the end it begins anew, so
    that what stays in the box cannot hide what comes later.
    """

    def __init__(self, files: Files, folder: str, boottime: Callable[[], float]) -> None:
        self._files, self._folder, self._boottime = files, folder, boottime
        self._names: deque[str] = deque()
        self._behind = ""  # names up to this one have had their turn
        self._due = float("-inf")

    @property
    def more(self) -> bool:
        return bool(self._names) or (bool(self._behind) and self._is_due())

    def _is_due(self) -> bool:
        return self._boottime() >= self._due

    def begin_anew(self) -> None:
        self._names.clear()
        self._behind = ""

    def take(self, count: int, without: Callable[[str], bool]) -> Iterator[str]:
        """The next names, `count` at most; `without` says which are not wanted."""
        if not self._names and self._is_due():
            self._list(without)
        for _ in range(min(count, len(self._names))):
            yield self._names.popleft()

    def _list(self, without: Callable[[str], bool]) -> None:
        behind, began, gone_by = self._behind, self._boottime(), 0

        def wanted(names: Iterable[str]) -> Iterator[str]:
            nonlocal gone_by
            for name in names:
                gone_by += 1
                if name > behind and not without(name):
                    yield name

        oldest = Choice(
            f"{NAMES_HELD} behind {behind!r}", lambda names: nsmallest(NAMES_HELD, wanted(names))
        )
        self._names.extend(self._files.names(self._folder, None, oldest))
        self._behind = self._names[-1] if len(self._names) == NAMES_HELD else ""
        ended = self._boottime()
        if gone_by > NAMES_HELD:
            self._due = ended + PATIENCE * (ended - began)


class Look:
    def __init__(self, files: Files, settings: Settings, clock: Clock) -> None:
        self._files = files
        self._settings = settings
        self._wall = clock.wall
        self.roster = Roster.parse("")
        self._roster_stat: object = None
        self.book = Book()  # what it has no room for stays in incoming/
        self.more = False  # there was more than one look takes
        self._boxes = {
            box: Box(files, box, clock.boottime)
            for box in (layout.INCOMING, layout.LOCKS, layout.RESULTS)
        }
        self._put_off = PutOff()
        self._asked_early = PutOff()  # about jobs that are; looked at when that may have changed
        self._was_full = False
        self._again: list[str] = []  # requests that the next pass may be able to serve,
        self._second: dict[str, None] = {}  # and those of the last pass, looked at a second time

    def begin_anew(self, book: Book) -> None:
        """With another book; what the last pass has taken may not have been served."""
        self.book = book
        for box in self._boxes.values():
            box.begin_anew()

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
        """Jobs and requests that were dropped, checked; the oldest first.

        While the book is full, what waits for room is passed over; once it is not, its turn comes
        by its age.
        """
        box = self._boxes[layout.INCOMING]
        if self.book.full != self._was_full:
            self._was_full = self.book.full
            box.begin_anew()
            self._asked_early = PutOff()
        without = self._is_put_off if self._was_full else _nothing
        self._second, self._again = dict.fromkeys(self._again), []
        taken = (name for name in box.take(NAMES_AT_ONCE, without) if name not in self._second)
        yield from self._within_budget(chain(self._second, taken), self._one_drop)
        self.more = self.more or box.more

    def _within_budget(
        self, taken: Iterator[str], look: Callable[[str], tuple[Seen | None, int]]
    ) -> Iterator[Seen]:
        budget = BYTES_AT_ONCE
        while budget > 0 and (name := next(taken, None)) is not None:
            seen, size = look(name)
            budget -= size
            if seen:
                yield seen

    def _one_drop(self, name: str) -> tuple[Seen | None, int]:
        path = layout.in_box(layout.INCOMING, name)
        job = names.parse_drop(name)
        asked = names.parse_request(name)
        if not job and not asked:
            return Unacceptable(path, f"its name is none of ours: {clean(ascii(name), 120)}"), 0
        try:
            data = self._files.read(path, self._settings.drop_limit)
            seen = self._job(path, job, data) if job else self._request(path, asked, data)
            return (None if self._waits(name, seen) else seen), len(data)
        except Gone:
            return None, 0
        except (BadFormat, SpoolError) as error:
            _reraise_if_ours(error)
            own = job if job and self._where(job) is None else ""
            return Unacceptable(path, error.message, own or ""), 0

    def _waits(self, name: str, seen: JobDropped | Requested) -> bool:
        """Whether the book has no room for this job, or for the one that is asked about."""
        job = seen.about
        if job in self.book.entries or seen.known:
            waits = False
        elif isinstance(seen, JobDropped):
            waits = not self.book.has_room(seen.envelope.submitter) or any(
                self._was_full and names.drop_name(other) in self._put_off for other in seen.coming
            )
        else:
            waits = seen.dropped and self._was_full and names.drop_name(job) in self._put_off
        if waits:
            (self._put_off if isinstance(seen, JobDropped) else self._asked_early).add(name)
        elif isinstance(seen, Requested) and seen.dropped and name not in self._second:
            self._again += [name] if len(self._again) < AGAIN_AT_MOST else []
        return waits

    def _is_put_off(self, name: str) -> bool:
        return name in self._put_off or name in self._asked_early

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
        if job in self.book.entries:
            return None  # it has not ended, for sure
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
        box = self._boxes[layout.LOCKS]
        for name in box.take(CLAIMS_AT_ONCE, known.__contains__):
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
        self.more = self.more or box.more

    def results(self) -> Iterator[Seen]:
        """Deliveries, checked; what running jobs print so far (.out) is for others."""
        box = self._boxes[layout.RESULTS]
        yield from self._within_budget(box.take(CLAIMS_AT_ONCE, _is_output), self._one_result)
        self.more = self.more or box.more

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


def _nothing(name: str) -> bool:
    return False


def _is_output(name: str) -> bool:
    return name.endswith(".out") and names.parse_claim(name) is not None


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
