"""From an ended child to a delivery in the spool: receipt, signature, outbox, drop."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Sequence

from .. import layout, pack, records
from ..children import Ended
from ..errors import SpoolError, Unreachable
from ..files import Files
from ..records import Receipt, Worker
from ..signing import RESULT_NAMESPACE, Signer, sign
from ..spool import dropping
from ..spool.settings import Settings
from .outbox import Key, Outbox


class Deliveries:
    """Signs what has ended and keeps it until the spool has it."""

    def __init__(self, outbox: Outbox, signer: Signer) -> None:
        self._outbox = outbox
        self._signer = signer

    def __len__(self) -> int:
        return len(self._outbox)

    def keys(self) -> set[Key]:
        return self._outbox.keys()

    def keep(
        self, ended: Sequence[tuple[Ended, str]], worker: Worker, spool: Settings
    ) -> None:
        """Sign and put away; `ended` has each attempt's end and the sha256 of its envelope."""
        self._outbox.add(
            {(end.job, end.attempt): self._made(end, digest, worker, spool) for end, digest in ended}
        )

    def _made(self, ended: Ended, digest: str, worker: Worker, spool: Settings) -> bytes:
        delivery = make_delivery(ended, worker, spool.id, digest, self._signer)
        if len(delivery) > spool.delivery_limit:
            smaller = _too_large(ended, len(delivery), spool.delivery_limit)
            delivery = make_delivery(smaller, worker, spool.id, digest, self._signer)
        return delivery

    def deliver(self, files: Files, run: str) -> None:
        """Drop all that is in the outbox. A spool that cannot take it is as good as Unreachable."""
        while len(self._outbox):
            some = self._outbox.some()
            drops = [dropping.result_drop(job, attempt, data) for job, attempt, data in some]
            outcomes = dropping.put(files, run, drops)
            for (job, attempt, _), outcome in zip(some, outcomes):
                if outcome is None:
                    self._outbox.remove(job, attempt)
            for outcome in outcomes:
                if isinstance(outcome, SpoolError):
                    raise _as_away(outcome)


def _as_away(error: SpoolError) -> Unreachable:
    if isinstance(error, Unreachable):
        return error
    return Unreachable(f"the spool cannot take results: {error.message}", error.hint)


def _too_large(ended: Ended, size: int, limit: int) -> Ended:
    text = f"the result is too large: {size} bytes, and the spool takes {limit}"
    parts = {name: data[: 1 << 20] for name, data in ended.parts.items() if name != layout.RESULT}
    return replace(ended, outcome="output-limit", error=text, codec="", parts=parts)


def make_delivery(
    ended: Ended, worker: Worker, spool: str, envelope_sha256: str, signer: Signer
) -> bytes:
    """The pack that tells how an attempt ended, signed by the worker."""
    receipt = Receipt(
        spool=spool,
        job=ended.job,
        attempt=ended.attempt,
        envelope_sha256=envelope_sha256,
        worker=worker.worker,
        run=worker.run,
        outcome=ended.outcome,
        exit=ended.exit,
        signal=ended.signal,
        error=ended.error.strip(),
        value=ended.value.strip(),
        codec=ended.codec,
        started=round(ended.started, 3),
        wall_seconds=round(ended.wall_seconds, 6),
        cpu_seconds=round(ended.cpu_seconds, 6),
        peak_memory=ended.peak_memory,
        host=worker.host,
        python=worker.python,
        hashes=tuple(f"{name}={hashlib.sha256(data).hexdigest()}" for name, data in ended.parts.items()),
    )
    text = records.make(receipt)
    signature = sign(signer, text, RESULT_NAMESPACE).encode()
    return pack.join({layout.RECEIPT: text, layout.RECEIPT_SIGNATURE: signature, **ended.parts})
