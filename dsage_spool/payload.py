"""What is pickled and unpickled: calls on their way out, results on their way back.

The only importer of pickle and cloudpickle. `load` is the only function that unpickles; it takes a
`Verified`: bytes whose signature this very process has checked, or that it has just pickled itself.
`verified_payload` and `verified_result` make one or raise BadSignature, BadFormat.

A value travels by plain pickle where that works, else by cloudpickle, and is loaded once before it
is called sendable; what does not survive is a UsageError. Exceptions travel as text, elsewhere.
A pickled function crosses only to the same bytecode (`needs.py`).
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import layout, needs, records
from .errors import BadFormat, BadSignature, UsageError
from .needs import offers, python_token
from .preview import preview
from .records import Envelope, Receipt
from .signing import JOB_NAMESPACE, RESULT_NAMESPACE, Unproven
from .text import clean

if TYPE_CHECKING:
    from .signing import Roster

__all__ = [
    "Verified",
    "dump_call",
    "dump_value",
    "load",
    "load_call",
    "needs_of_call",
    "offers",
    "preview",
    "python_token",
    "verified_payload",
    "verified_result",
    "warm_up",
]

PROTOCOL = 5
PICKLE, CLOUDPICKLE = "pickle", "cloudpickle"

_SEAL = object()


class Verified:
    """Bytes that may be unpickled here. Only this module makes one."""

    def __init__(self, seal: object, data: bytes, record: Envelope | Receipt | None) -> None:
        if seal is not _SEAL:
            raise TypeError("a Verified is made by verified_payload and verified_result only")
        self.data, self.record = data, record


@dataclass(frozen=True)
class Unopened:
    """A payload of which everything is read and nothing is proven: `verified` is the check."""

    envelope_bytes: bytes
    envelope: Envelope
    unproven: Unproven
    payload: bytes

    def verified(self) -> Verified:
        """The payload, if the submitter signed this envelope and it names these very bytes."""
        self.unproven.prove(self.envelope_bytes)
        if len(self.payload) != self.envelope.payload_size:
            said = self.envelope.payload_size
            raise BadSignature(f"payload: {len(self.payload)} bytes, and its envelope says {said}")
        if _sha256(self.payload) != self.envelope.payload_sha256:
            raise BadSignature("payload: its sha256 is not the one in its envelope")
        return Verified(_SEAL, self.payload, self.envelope)


def unopened(
    envelope_bytes: bytes, signature_text: str, payload: bytes, roster: Roster, now: float
) -> Unopened:
    """Read envelope and signature, and find the key that must have signed; `now` in seconds."""
    envelope = records.parse(Envelope, envelope_bytes)
    found = roster.unproven(signature_text, envelope.submitter, JOB_NAMESPACE, now)
    return Unopened(envelope_bytes, envelope, found, payload)


def verified_payload(
    envelope_bytes: bytes, signature_text: str, payload: bytes, roster: Roster, now: float
) -> Verified:
    """The payload that the envelope's submitter signed; `now` in seconds since 1970."""
    return unopened(envelope_bytes, signature_text, payload, roster, now).verified()


def verified_result(
    receipt_bytes: bytes,
    signature_text: str,
    result_bytes: bytes,
    roster: Roster,
    envelope_sha256: str,
    job: str,
    spool: str,
    now: float,
    attempt: int | None = None,
) -> Verified:
    """The result that the receipt's worker signed for this very job, envelope and spool."""
    receipt = records.parse(Receipt, receipt_bytes)
    roster.verify(receipt_bytes, signature_text, receipt.worker, RESULT_NAMESPACE, now)
    bound = {"job": job, "spool": spool, "envelope_sha256": envelope_sha256}
    if attempt is not None:
        bound["attempt"] = attempt
    for name, value in bound.items():
        if getattr(receipt, name) != value:
            word = name.replace("_", " ")
            raise BadSignature(f"receipt: its {word} is another: it is not for this job")
    if f"{layout.RESULT}={_sha256(result_bytes)}" not in receipt.hashes:
        raise BadSignature("result: its sha256 is not in its receipt")
    return Verified(_SEAL, result_bytes, receipt)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load(verified: Verified) -> Any:
    """Unpickle. What the pickle does, this process does; exceptions of any kind may come out."""
    if type(verified) is not Verified:
        raise TypeError("load takes a Verified")
    return pickle.loads(verified.data)


def dump_call(function: Callable[..., Any], args: tuple = (), kwargs: dict | None = None) -> bytes:
    """The payload of a `call` job; UsageError names what cannot travel."""
    call = (function, tuple(args), dict(kwargs or {}))
    _teach_sympy()
    try:
        return _cloudpickled(call)
    except Exception as error:
        raise _cannot_travel(call, error) from error


def load_call(verified: Verified) -> tuple[Callable[..., Any], tuple, dict]:
    """The function, arguments and keywords of a verified `call` payload."""
    call = load(verified)
    if type(call) is not tuple or len(call) != 3 or not callable(call[0]):
        raise BadFormat("payload: it is a pickle, but not of a call")
    return call


def dump_value(value: object) -> tuple[str, bytes]:
    """Codec and bytes of a result that was seen to survive; UsageError if it does not."""
    _teach_sympy()
    try:
        return _survivor(PICKLE, pickle.dumps(value, PROTOCOL))
    except MemoryError:
        raise
    except Exception:  # whatever it was: cloudpickle may do better, or says it better
        pass
    try:
        return _survivor(CLOUDPICKLE, _cloudpickled(value))
    except MemoryError:
        raise
    except Exception as error:
        why = clean(f"{type(error).__name__}: {error}", 300)
        raise UsageError(
            f"the result cannot be sent: {why}",
            "return plain data: numbers, text, lists, dicts, or objects that pickle can copy",
        ) from error


def _survivor(codec: str, data: bytes) -> tuple[str, bytes]:
    load(Verified(_SEAL, data, None))
    return codec, data


def warm_up() -> None:
    """Import cloudpickle, so that processes forked from this one have it already."""
    import cloudpickle  # noqa: F401


def _cloudpickled(value: object) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(value, PROTOCOL)


def _cannot_travel(call: tuple, error: Exception) -> UsageError:
    function, args, kwargs = call
    parts = [("the function", function)]
    parts += [(f"argument {place}", value) for place, value in enumerate(args, 1)]
    parts += [(f"argument {name}", value) for name, value in kwargs.items()]
    where = next((name for name, value in parts if not _travels(value)), "the call")
    why = clean(f"{type(error).__name__}: {error}", 300)
    return UsageError(
        f"{where} cannot be sent: {why}",
        "files, sockets, locks, threads and generators stay at home: open them inside the function",
    )


def _travels(value: object) -> bool:
    try:
        _cloudpickled(value)
    except Exception:
        return False
    return True


def needs_of_call(*data: bytes) -> tuple[str, ...]:
    """What a worker must offer to run these pickles (`needs.py` has the words)."""
    import cloudpickle

    return needs.of_pickles(data, cloudpickle.__version__)


# --- sympy's Poly loses its domain in a plain pickle (sympy/sympy#19644): write it out instead ---


def _teach_sympy() -> None:
    """Have Poly pickled with its domain, if sympy is loaded; cheap to call again."""
    polytools = sys.modules.get("sympy.polys.polytools")
    for name in ("Poly", "PurePoly"):
        kind = getattr(polytools, name, None)
        if kind is not None and kind not in copyreg.dispatch_table:
            copyreg.pickle(kind, _reduce_poly)


def _reduce_poly(poly: Any) -> tuple:
    make = functools.partial(type(poly).from_dict, **_domain_of(poly))
    # from_dict changes the dict it is given, so each use has its own.
    copy = make(dict(poly.terms()), *poly.gens)
    if copy != poly or copy.domain != poly.domain:
        raise pickle.PicklingError(f"a Poly over {poly.domain} does not survive pickling")
    return make, (dict(poly.terms()), *poly.gens)


def _domain_of(poly: Any) -> dict[str, Any]:
    """Keywords of Poly for its domain, in values that pickle; none where sympy finds it itself."""
    domain = poly.domain
    if domain.is_FiniteField:
        return {"modulus": int(domain.mod), "symmetric": bool(domain.sym)}
    if domain.is_Algebraic:
        root = domain.orig_ext
        return {"extension": list(root) if isinstance(root, tuple) else [root]}
    simple = ("ZZ", "QQ", "ZZ_I", "QQ_I", "RR", "CC", "EX")
    return {"domain": str(domain)} if str(domain) in simple else {}
