"""A handle for one job: its state, how it ended, its value once the signatures are checked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from .. import layout, records
from ..errors import (
    BadSignature,
    JobCancelled,
    JobFailed,
    JobRejected,
    SpoolError,
    UnknownJob,
    WaitTimeout,
)
from ..records import Envelope, Receipt
from ..signing import JOB_NAMESPACE, RESULT_NAMESPACE
from ..spool import reading
from ..states import TERMINAL, State
from ..text import clean_lines

if TYPE_CHECKING:
    from .session import Session


class Job:
    """Made by `Session.submit` and `Session.job`; `id` is its name in the spool."""

    def __init__(self, session: Session, id: str, title: str = "") -> None:
        self._session = session
        self._state: State | None = None
        self._parts: dict[str, bytes] = {}
        self.id = id
        self.title = title

    def __repr__(self) -> str:
        return f"<Job {self.id} {self._state or ''}>".replace(" >", ">")

    # -- what is known -----------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the job is now, looked up; UnknownJob if this spool has none of that name."""
        state = self._state or self._session.state(self.id)
        if state is None:
            raise UnknownJob(f"{self.id}: no such job in this spool")
        return state

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in TERMINAL

    @property
    def fetched(self) -> bool:
        return self._state is not None

    def take(self, state: State, parts: dict[str, bytes]) -> None:
        """Keep what the job folder says; called by the session."""
        self._state, self._parts = state, parts

    # -- what became of it -------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> State:
        """Wait until it has ended; the state in which it did. WaitTimeout after `timeout` seconds."""
        if self._state is None:
            try:
                self._session.wait([self], timeout)
            except WaitTimeout:
                raise WaitTimeout(
                    f"{self.id}: has not ended yet", "it goes on; wait again, or `dsage-spool status`"
                ) from None
            self._session.fetch([self])
        return self._state

    def result(self, timeout: float | None = None) -> Any:
        """The value that the job returned; raises JobFailed, JobCancelled or JobRejected otherwise.

        The worker's signature over the receipt, the receipt's words about this very job, and the
        hash of the result are checked in this process before a byte of it is unpickled.
        """
        self.wait(timeout)
        self._raise_unless_done()
        receipt = self.receipt()
        if receipt.codec == "":
            return None  # a command; sworn to by the receipt, which names this very job
        from .. import payload

        verified = payload.verified_result(
            self._parts[layout.RECEIPT],
            self._parts[layout.RECEIPT_SIGNATURE].decode("ascii", "replace"),
            self._parts.get(layout.RESULT, b""),
            self._session.roster,
            self._envelope_sha256(),
            self.id,
            self._session.settings.id,
            self._session.now(),
        )
        return payload.load(verified)

    def exception(self, timeout: float | None = None) -> SpoolError | None:
        """The error that `result` would raise for a job that did not end well, or None."""
        self.wait(timeout)
        try:
            self._raise_unless_done()
        except SpoolError as error:
            return error
        return None

    def _raise_unless_done(self) -> None:
        if self._state is State.DONE:
            return
        kind = {State.CANCELLED: JobCancelled, State.REJECTED: JobRejected}.get(self._state)
        if kind:
            raise kind(f"{self.id}: {self.verdict()}")
        raise JobFailed(
            f"{self.id}: {self.verdict()}",
            f"dsage-spool show {self.id.split('-')[1]}",
            traceback=clean_lines(self._parts.get(layout.TRACEBACK, b"").decode("utf-8", "replace")),
        )

    def verdict(self) -> str:
        """One line: why the job is where it ended."""
        if self._state is State.DONE and layout.VERDICT not in self._parts:
            self._parts |= reading.read_parts(
                self._session.files, self._state, [self.id], [layout.VERDICT], records.RECORD_LIMIT
            )[0]
        text = self._parts.get(layout.VERDICT, b"").decode("utf-8", "replace").strip()
        return clean_lines(text.partition(" ")[2] or text)

    def receipt(self) -> Receipt:
        """The worker's account of this very job, its signature checked; BadSignature otherwise."""
        text = self._parts.get(layout.RECEIPT, b"")
        receipt = records.parse(Receipt, text)
        self._session.roster.verify(
            text,
            self._parts.get(layout.RECEIPT_SIGNATURE, b"").decode("ascii", "replace"),
            receipt.worker,
            RESULT_NAMESPACE,
            self._session.now(),
        )
        about = (receipt.spool, receipt.job, receipt.envelope_sha256)
        if about != (self._session.settings.id, self.id, self._envelope_sha256()):
            raise BadSignature(f"{self.id}: the receipt in its folder is about another job")
        if (receipt.outcome == "ok") is not (self._state is State.DONE):
            raise BadSignature(f"{self.id}: is {self._state}, but its receipt says {receipt.outcome}")
        return receipt

    def _envelope_sha256(self) -> str:
        """The hash of the envelope that this person signed: remembered, or checked afresh."""
        known = self._session.digest_of(self.id)
        if known:
            return known
        wanted = (layout.ENVELOPE, layout.SIGNATURE)
        parts = reading.read_parts(
            self._session.files, self._state, [self.id], wanted, records.RECORD_LIMIT
        )[0]
        text = parts.get(layout.ENVELOPE, b"")
        envelope = records.parse(Envelope, text)
        if envelope.job != self.id:
            raise BadSignature(f"{self.id}: the envelope in its folder is another job's")
        self._session.roster.verify(
            text,
            parts.get(layout.SIGNATURE, b"").decode("ascii", "replace"),
            envelope.submitter,
            JOB_NAMESPACE,
            self._session.now(),
        )
        return hashlib.sha256(text).hexdigest()

    # -- what may be done to it --------------------------------------------------------------

    def cancel(self, timeout: float | None = 10.0) -> bool:
        """Withdraw the job; whether it was withdrawn before it ended. Waits for the server's word."""
        self._session.request([self.id], "cancel")
        return self.wait(timeout) is State.CANCELLED

    def output(self) -> tuple[str, str]:
        """What it printed, as the worker swore to: stdout and stderr, harmless for a terminal."""
        self.wait()
        parts = (layout.STDOUT, layout.STDERR)
        limit = self._session.settings.delivery_limit
        found = reading.read_parts(self._session.files, self._state, [self.id], parts, limit)[0]
        if found or layout.RECEIPT in self._parts:  # no output without somebody who swears to it
            sworn = {word for word in self.receipt().hashes if word.partition("=")[0] in parts}
            if sworn != {f"{part}={hashlib.sha256(data).hexdigest()}" for part, data in found.items()}:
                raise BadSignature(f"{self.id}: what it printed is not what its receipt swears to")
        stdout, stderr = (clean_lines(found.get(p, b"").decode("utf-8", "replace")) for p in parts)
        return stdout, stderr
