"""Finished results on their way: kept on the worker's own disk until the spool has them.

A result is written here before it is sent and removed after, so it survives a spool that is away and
a kill of the worker; the next start of the worker delivers it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


from .. import layout, names, pack, records
from ..children import Ended
from ..records import Receipt, Worker
from ..signing import RESULT_NAMESPACE, Signer, sign


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


class Outbox:
    """Deliveries by (job, attempt), in a folder that outlives the worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._waiting: dict[tuple[str, int], bytes] = {}
        for path in sorted(folder.iterdir()):
            claimed = names.parse_claim(path.name)
            if claimed and claimed.kind == "result":
                self._waiting[claimed.job, claimed.attempt] = path.read_bytes()

    def __len__(self) -> int:
        return len(self._waiting)

    def keys(self) -> set[tuple[str, int]]:
        return set(self._waiting)

    def add(self, job: str, attempt: int, delivery: bytes) -> None:
        """Keep a delivery. Written in one step: a kill in between leaves nothing half."""
        path = self._path(job, attempt)
        partial = path.with_name(f".{path.name}")
        partial.write_bytes(delivery)
        os.replace(partial, path)
        self._waiting[job, attempt] = delivery

    def some(self, byte_limit: int = 16 << 20) -> list[tuple[str, int, bytes]]:
        """The oldest deliveries, up to about `byte_limit`, at least one if there is any."""
        chosen, size = [], 0
        for (job, attempt), delivery in self._waiting.items():
            if chosen and size + len(delivery) > byte_limit:
                break
            chosen.append((job, attempt, delivery))
            size += len(delivery)
        return chosen

    def remove(self, job: str, attempt: int) -> None:
        self._waiting.pop((job, attempt), None)
        self._path(job, attempt).unlink(missing_ok=True)

    def _path(self, job: str, attempt: int) -> Path:
        return self._folder / names.claim_name(job, attempt, "result")


