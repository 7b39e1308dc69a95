"""One job of no consequence, verified, loaded and reported in the slot itself before it forks any.

What is done for the first time (algorithms looked up, patterns compiled, tables filled) is then done
once for all children instead of once in each: half of what a small job costs.
"""

from __future__ import annotations

import hashlib
import time

from .. import payload, records
from ..preview import preview
from ..records import Envelope
from ..signing import JOB_NAMESPACE, PrivateKeySigner, Roster, sign


def rehearse() -> None:
    """Go through verify, load, dump and preview with a key that nobody else has."""
    signer = PrivateKeySigner.passing()
    roster = Roster.parse(f'nobody namespaces="{JOB_NAMESPACE}" {signer.public.text}\n')
    codec, data = payload.dump_value((abs, (-1,), {}))
    envelope = Envelope(
        spool="rehearsal",
        job="20261122T000000-0000000000",
        submitter="nobody",
        kind="call",
        codec=codec,
        payload_size=len(data),
        payload_sha256=hashlib.sha256(data).hexdigest(),
    )
    text = records.make(envelope)
    signature = sign(signer, text, JOB_NAMESPACE)
    verified = payload.verified_payload(text, signature, data, roster, time.time())
    function, args, kwargs = payload.load_call(verified)
    value = function(*args, **kwargs)
    payload.dump_value(value)
    preview(value)
