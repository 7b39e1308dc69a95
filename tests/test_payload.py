"""What travels by pickle, what does not, and that nothing is loaded unverified."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from dsage_spool import needs, payload, records, signing
from dsage_spool.errors import BadFormat, BadSignature, UsageError
from signed_jobs import ALICE, MALLORY, ROSTER, SPOOL, WORKER, make_receipt, make_task

NOW = time.time()
JOB = "20261122T232140-4k2m7qx9ab"


def trust():
    return signing.Roster.parse(ROSTER)


def verify(task, **changed):
    task = replace(task, **changed)
    signature = task.signature.decode()
    return payload.verified_payload(task.envelope, signature, task.payload, trust(), NOW)


def round_trip(value):
    codec, data = payload.dump_value(value)
    receipt, signature = make_receipt(data, JOB)
    verified = payload.verified_result(
        receipt, signature, data, trust(), "e" * 64, JOB, SPOOL, NOW, attempt=1
    )
    return codec, payload.load(verified)


def test_a_call_comes_out_as_it_went_in():
    task = make_task("call", payload.dump_call(lambda a, b: a - b, (5,), {"b": 3}))
    function, args, kwargs = payload.load_call(verify(task))
    assert function(*args, **kwargs) == 2


def test_a_pickle_that_is_no_call_is_refused():
    task = make_task("call", pickle.dumps([1, 2]))
    with pytest.raises(BadFormat, match="not of a call"):
        payload.load_call(verify(task))


def test_an_argument_that_cannot_travel_is_named():
    with pytest.raises(UsageError, match=r"argument 2 cannot be sent: TypeError: .*lock"):
        payload.dump_call(print, (1, threading.Lock()))
    with pytest.raises(UsageError, match="argument end cannot be sent"):
        payload.dump_call(print, (), {"end": threading.Lock()})


def test_a_function_that_cannot_travel_is_named():
    lock = threading.Lock()
    with pytest.raises(UsageError, match="the function cannot be sent"):
        payload.dump_call(lambda: lock)


@pytest.mark.parametrize("part", ["envelope", "signature", "payload"])
def test_a_tampered_byte_is_refused(part):
    task = make_task("call", payload.dump_call(print))
    data = bytearray(getattr(task, part))
    data[len(data) // 2] ^= 1
    with pytest.raises((BadSignature, BadFormat)):
        verify(task, **{part: bytes(data)})


def test_a_payload_of_another_length_is_refused():
    task = make_task("call", payload.dump_call(print))
    with pytest.raises(BadSignature, match="its envelope says"):
        verify(task, payload=task.payload + b"x")


def test_a_stranger_cannot_sign_for_alice():
    task = make_task("call", payload.dump_call(print), signer=MALLORY)
    with pytest.raises(BadSignature, match="not in the roster"):
        verify(task)


def test_a_worker_key_cannot_sign_a_job():
    task = make_task("call", payload.dump_call(print), signer=WORKER)
    with pytest.raises(BadSignature):
        verify(task)


def test_only_verified_bytes_are_loaded():
    with pytest.raises(TypeError, match="takes a Verified"):
        payload.load(pickle.dumps(1))
    with pytest.raises(TypeError, match="made by"):
        payload.Verified(None, b"", None)


@pytest.mark.parametrize(
    "expected",
    [{"envelope_sha256": "f" * 64}, {"job": JOB[:-1] + "c"}, {"spool": "other"}, {"attempt": 2}],
)
def test_a_result_for_another_job_is_refused(expected):
    data = pickle.dumps(1)
    receipt, signature = make_receipt(data, JOB)
    bound = {"envelope_sha256": "e" * 64, "job": JOB, "spool": SPOOL, "attempt": 1} | expected
    with pytest.raises(BadSignature, match="not for this job"):
        payload.verified_result(receipt, signature, data, trust(), now=NOW, **bound)


def test_a_result_that_is_not_in_its_receipt_is_refused():
    receipt, signature = make_receipt(pickle.dumps(1), JOB)
    with pytest.raises(BadSignature, match="sha256 is not in its receipt"):
        payload.verified_result(
            receipt, signature, pickle.dumps(2), trust(), "e" * 64, JOB, SPOOL, NOW
        )


def test_a_result_signed_by_a_submitter_is_refused():
    data = pickle.dumps(1)
    receipt, signature = make_receipt(data, JOB, signer=ALICE)
    with pytest.raises(BadSignature):
        payload.verified_result(receipt, signature, data, trust(), "e" * 64, JOB, SPOOL, NOW)


def test_plain_values_travel_by_plain_pickle():
    assert round_trip({"a": [1, 2.5, None]}) == ("pickle", {"a": [1, 2.5, None]})


def test_a_function_travels_by_cloudpickle():
    codec, function = round_trip(lambda x: x + 1)
    assert codec == "cloudpickle" and function(1) == 2


class DumpsButDoesNotLoad(Exception):
    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize("value", [(x for x in ()), threading.Lock(), DumpsButDoesNotLoad(1, 2)])
def test_a_value_that_does_not_survive_is_told(value):
    with pytest.raises(UsageError, match="the result cannot be sent: "):
        payload.dump_value(value)


def test_a_polynomial_keeps_its_domain():
    from sympy import Poly, PurePoly, QQ, sqrt, symbols

    x, y = symbols("x y")
    for poly in (
        Poly(x**2 + 1, x, modulus=7),
        Poly(x**2 + 4, x, modulus=7, symmetric=False),
        Poly(x**3 + x + 1, x, modulus=2**61 - 1),
        Poly(x**2 + 1, x, domain=QQ),
        Poly(x**2 + sqrt(2) * x, x, extension=True),
        Poly(x * y + 1, x),
        Poly(1.5 * x, x),
        PurePoly(x + 1, x),
    ):
        codec, copy = round_trip([poly])
        assert copy == [poly] and copy[0].domain == poly.domain
    assert round_trip(Poly(x**2 + 1, x, modulus=7))[1].eval(3) == 3


def test_a_polynomial_that_would_change_is_refused():
    from sympy import Poly, ZZ, symbols

    x, y = symbols("x y")
    with pytest.raises(UsageError, match="does not survive"):
        payload.dump_value(Poly(x, x, domain=ZZ[y]))


def test_needs_name_the_python_and_the_packages_of_a_call():
    import sympy

    plain = payload.needs_of_call(payload.dump_call(lambda: "sympy-free"))
    assert plain == (payload.python_token(), "cloudpickle=3")
    version = ".".join(sympy.__version__.split(".")[:2])
    for function in (lambda n: sympy.factorint(n), sympy.factorint):
        assert f"sympy={version}" in payload.needs_of_call(payload.dump_call(function))
    data = payload.dump_call(print, (sympy.Integer(3),))
    assert f"sympy={version}" in payload.needs_of_call(data)


def test_needs_see_a_package_that_is_imported_inside():
    def inside():
        from sympy import factorint

        return factorint(91)

    words = payload.needs_of_call(payload.dump_call(inside))
    assert any(word.startswith("sympy=") for word in words)


def test_a_longer_name_is_not_taken_for_the_package():
    data = payload.dump_call(print, ("sympyx", "numpyro.infer", "x.numpy"))
    assert payload.needs_of_call(data) == (payload.python_token(), "cloudpickle=3")


def test_what_a_worker_offers_meets_what_its_own_calls_need():
    import sympy

    data = payload.dump_call(sympy.factorint, (91,))
    assert set(payload.needs_of_call(data)) <= set(payload.offers())
    assert "package=mpmath" in payload.offers()


def test_offers_are_read_from_names_alone(tmp_path):
    folder = tmp_path / "site-packages"
    for name in ("NumPy-2.1.0rc1.dist-info", "numpy", "_hidden", "a-b", "x.pth", "one"):
        (folder / name).mkdir(parents=True)
    versions, packages = needs.installed([str(folder), str(tmp_path / "not there")])
    assert versions == {"numpy": "2.1.0rc1"}
    assert packages == {"numpy", "one"}


def test_offers_fit_into_a_workers_record():
    worker = records.Worker(worker="desk", run="desk.00000000", offers=payload.offers())
    assert records.parse(records.Worker, records.make(worker)).offers == payload.offers()


class ReprRaises:
    def __repr__(self):
        raise RuntimeError("no")


SHOWN = [
    (None, "None"),
    ({2: 10, 3: 1}, "{2: 10, 3: 1}"),
    (2**61 - 1, "2305843009213693951"),
    (10**5000, "e+5000 (an int of 16610 bits)"),
    (-(10**5000) - 1, "-1.0000000e+5000"),
    ([10**5000], "e+5000"),
    (ReprRaises(), "<ReprRaises: its repr raised RuntimeError>"),
    ("a\x1b[2Jb", "'a\\x1b[2Jb'"),
    ("x" * 10**6, "x"),
    (list(range(10**6)), "[0, 1, 2"),
]


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_a_preview_is_one_short_harmless_line(number):
    value, shown = SHOWN[number]
    text = payload.preview(value)
    assert shown in text and len(text) <= 200 and text.isprintable()


def test_a_preview_shows_a_huge_sympy_integer():
    import sympy

    assert "e+5000" in payload.preview(sympy.Integer(10) ** 5000 + 1)


def test_importing_the_needs_imports_no_pickle_and_no_sympy():
    program = (
        "import sys; before = set(sys.modules); from dsage_spool import needs; needs.offers();"
        "print(sorted({'pickle', 'cloudpickle', 'sympy', 'numpy'} & (set(sys.modules) - before)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout == "[]\n", shown.stderr


