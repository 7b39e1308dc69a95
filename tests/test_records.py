"""Records: what is written is what is read, and only that."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool import names, records
from dsage_spool.errors import BadFormat, BadVersion
from dsage_spool.records import Envelope, Lease, Receipt, Request, Worker
from dsage_spool.text import clean

JOB = "20261122T232140-4k2m7qx9ab"
SHA = "0123456789abcdef" * 4

LINES = st.text(max_size=60).map(lambda text: clean(text).strip())
WORDS = LINES.map(lambda text: text.replace(" ", "")).filter(lambda text: text and not text.isspace())
JOBS = st.builds(names.make_job, st.floats(0, 4e9), st.binary(min_size=4, max_size=4))
TOKENS = st.from_regex(names._TOKEN, fullmatch=True)
PERSONS = st.from_regex(names._PERSON, fullmatch=True)
WORKERS = st.from_regex(names._WORKER_ONLY, fullmatch=True)
NONCES = st.builds(names.make_nonce, st.binary(min_size=5, max_size=5))
SHAS = st.binary(min_size=32, max_size=32).map(bytes.hex)
SIZES = st.integers(0, 10**19)
MOMENTS = st.integers(0, records.LAST_MOMENT)
SECONDS = st.integers(0, 10**15).map(lambda micros: round(micros / 1e6, 6))
NEEDS = st.one_of(TOKENS, st.builds("{}={}".format, TOKENS, TOKENS))

ENVELOPES = st.builds(
    Envelope, spool=TOKENS, job=JOBS, submitter=PERSONS, kind=st.sampled_from(records.KINDS), title=LINES,
    needs=st.lists(NEEDS, max_size=4).map(tuple), priority=st.integers(-1000, 1000),
    attempts=st.integers(1, 100), time_limit=SIZES, memory_limit=SIZES, output_limit=SIZES,
    batch=st.one_of(st.just(""), TOKENS), after=st.lists(JOBS, max_size=3).map(tuple), not_before=MOMENTS,
    not_after=MOMENTS, codec=st.one_of(st.just(""), TOKENS), payload_size=SIZES, payload_sha256=SHAS,
)  # fmt: skip
RECEIPTS = st.builds(
    Receipt, spool=TOKENS, job=JOBS, attempt=st.integers(1, 999_999), envelope_sha256=SHAS, worker=WORKERS,
    run=TOKENS, outcome=st.sampled_from(records.OUTCOMES), exit=st.integers(-300, 300), signal=st.integers(0, 64),
    error=LINES, value=LINES, codec=st.one_of(st.just(""), TOKENS), started=SECONDS, wall_seconds=SECONDS,
    cpu_seconds=SECONDS, peak_memory=SIZES, host=LINES, python=LINES,
    hashes=st.lists(st.builds("{}={}".format, TOKENS, SHAS), max_size=4).map(tuple),
)  # fmt: skip
LEASES = st.builds(
    Lease, job=JOBS, attempt=st.integers(1, 999_999), worker=WORKERS, run=TOKENS, host=LINES, since=SECONDS,
    ended=SECONDS, why=LINES, counts=st.integers(0, 1),
)  # fmt: skip


@st.composite
def workers(draw) -> Worker:
    name = draw(WORKERS)
    return Worker(
        name, names.run_name(name, draw(NONCES)), host=draw(LINES), pid=draw(SIZES), slots=draw(SIZES),
        started=draw(SECONDS), version=draw(LINES), python=draw(LINES), memory=draw(SIZES),
        offers=tuple(draw(st.lists(NEEDS, max_size=5))),
    )  # fmt: skip


REQUESTS = st.builds(
    Request, spool=TOKENS, job=JOBS, nonce=NONCES, submitter=PERSONS,
    verb=st.sampled_from(["cancel", "hold", "release"]), made=SECONDS,
)  # fmt: skip
RECORDS = st.one_of(ENVELOPES, RECEIPTS, LEASES, workers(), REQUESTS)

SAMPLES = [
    Envelope("7q2mspool", JOB, "alice", "call", title="a title", needs=("gpu", "sympy=1.14"), payload_sha256=SHA),
    Receipt("7q2mspool", JOB, 1, SHA, "kiwi", "kiwi.7m2q9x4b", "ok", wall_seconds=0.25, hashes=(f"result={SHA}",)),
    Lease(JOB, 1, "kiwi", "kiwi.7m2q9x4b", since=1795389700.5),
    Worker("kiwi", "kiwi.7m2q9x4b", slots=4, offers=("gpu",)),
    Request("7q2mspool", JOB, "0c5n7t3e", "alice", "cancel"),
]
by_kind = pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record):
    text = records.make(record)
    assert records.parse(type(record), text) == record
    assert len(text.splitlines()) <= 1 + len(dataclasses.fields(record))


@given(RECORDS)
def test_a_record_is_plain_text_of_one_line_a_field(record):
    lines = records.make(record).decode().split("\n")
    assert lines.pop() == ""
    assert all(": " in line and line == clean(line, 30_000) for line in lines)


@by_kind
def test_an_unknown_key_is_refused(record):
    with pytest.raises(BadFormat, match="unknown"):
        records.parse(type(record), records.make(record) + b"colour: red\n")


@by_kind
def test_a_doubled_key_is_refused(record):
    lines = records.make(record).splitlines(keepends=True)
    with pytest.raises(BadFormat, match="doubled"):
        records.parse(type(record), b"".join([*lines, lines[-1]]))


@by_kind
def test_each_truncation_is_refused_or_lacks_whole_lines_only(record):
    text = records.make(record)
    for length in range(len(text)):
        try:
            records.parse(type(record), text[:length])
        except BadFormat:
            continue
        assert text[:length].endswith(b"\n")


@by_kind
@pytest.mark.parametrize("version", ["2", "0", "01", "", "1 ", "x", "1.0"])
def test_another_version_is_refused_with_a_way_out(record, version):
    first, rest = records.make(record).split(b"\n", 1)
    text = first[:-1] + version.encode() + b"\n" + rest
    with pytest.raises(BadVersion) as caught:
        records.parse(type(record), text)
    assert "reads version 1" in caught.value.message and caught.value.hint


@by_kind
def test_a_record_of_another_kind_is_refused(record):
    for other in SAMPLES:
        if type(other) is not type(record):
            with pytest.raises(BadFormat, match="its first line is not"):
                records.parse(type(other), records.make(record))


@by_kind
@pytest.mark.parametrize("character", ["\0", "\x1b", "\r", "\x7f", "\x9b", "\u202e", "\u200b", "\ufeff", "\u2028"])
def test_control_characters_are_refused(record, character):
    lines = records.make(record).decode().split("\n")
    lines[1] += character
    with pytest.raises(BadFormat):
        records.parse(type(record), "\n".join(lines).encode())


@by_kind
def test_a_missing_line_is_refused(record):
    lines = records.make(record).splitlines(keepends=True)
    with pytest.raises(BadFormat, match="missing"):
        records.parse(type(record), b"".join([lines[0], *lines[2:]]))


@pytest.mark.parametrize("text", [
    b"", b"\n", b"\n\n", b"\xff\xfe\n", b"dsage-spool-lease: 1", b"x" * (records.RECORD_LIMIT + 1),
    b"dsage-spool-lease: 1\n\n", b"dsage-spool-lease: 1\njob:\n", b"dsage-spool-lease: 1\njob: \n",
])  # fmt: skip
def test_what_is_no_record_is_refused(text):
    with pytest.raises(BadFormat):
        records.parse(Lease, text)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data):
    for kind in (Envelope, Receipt, Lease, Worker, Request):
        title = f"dsage-spool-{kind.__name__.lower()}: 1\n".encode()
        for text in (data, title + data, title + data + b"\n"):
            with pytest.raises(BadFormat):
                records.parse(kind, text)


def changed(record, key: str, value: str) -> bytes:
    lines = [line for line in records.make(record).decode().splitlines() if not line.startswith(f"{key}: ")]
    return "\n".join([*lines, f"{key}: {value}", ""]).encode()


@pytest.mark.parametrize("value", [
    "1_0", "+1", " 1", "1 ", "0x1", "٣", "1.0", "1e3", "", "--1", "inf", "1" * 25, "True",
])  # fmt: skip
def test_a_whole_number_is_written_with_digits(value):
    with pytest.raises(BadFormat):
        records.parse(Envelope, changed(SAMPLES[0], "priority", value))


@pytest.mark.parametrize("value", ["inf", "nan", "-inf", "1e3", "1_0", ".5", "5.", "٣", "1" * 25, "-1"])
def test_a_span_is_written_with_digits_and_is_not_negative(value):
    with pytest.raises(BadFormat):
        records.parse(Receipt, changed(SAMPLES[1], "wall-seconds", value))


@pytest.mark.parametrize("key, value", [
    ("job", "../../etc"), ("submitter", "a b"), ("kind", "pickle"), ("priority", "1001"), ("attempts", "0"),
    ("attempts", "101"), ("after", "not-a-job"), ("needs", "a,b"), ("needs", "a=b=c"), ("needs", "a  b"),
    ("batch", "a b"), ("not-after", str(10**15)), ("not-before", "-1"), ("time-limit", "-1"),
    ("memory-limit", "-1"), ("output-limit", "-1"), ("payload-size", "-1"),
])  # fmt: skip
def test_an_envelope_that_makes_no_sense_is_refused(key, value):
    with pytest.raises(BadFormat):
        records.parse(Envelope, changed(SAMPLES[0], key, value))


@pytest.mark.parametrize("key, value", [
    ("job", "x"), ("worker", "a/b"), ("attempt", "0"), ("outcome", "fine"), ("envelope-sha256", "zz"),
    ("envelope-sha256", SHA.upper()), ("started", str(10**15)), ("peak-memory", "-1"),
])  # fmt: skip
def test_a_receipt_that_makes_no_sense_is_refused(key, value):
    with pytest.raises(BadFormat):
        records.parse(Receipt, changed(SAMPLES[1], key, value))


@pytest.mark.parametrize("run", ["../queue", "fig.7m2q9x4b", "kiwi", "kiwi.7m2q9x4b.x", "kiwi.short"])
def test_a_worker_has_runs_of_its_own_name_only(run):
    with pytest.raises(BadFormat, match="run"):
        records.parse(Worker, changed(SAMPLES[3], "run", run))


def test_hostile_text_is_made_harmless_when_it_is_written():
    record = dataclasses.replace(SAMPLES[0], title="a\nspool: other\x1b[2J\u202e")
    found = records.parse(Envelope, records.make(record))
    assert found.spool == SAMPLES[0].spool and found.title == "a?spool: other?[2J?"
