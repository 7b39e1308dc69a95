"""Names: made, parsed, sorted; and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool import names
from dsage_spool.client.compose import JobNames

JOB = "20261122T232140-4k2m7qx9ab"
MOMENTS = st.floats(0, 4_000_000_000)
CHANCE = st.binary(min_size=4, max_size=4)
JOBS = st.builds(names.make_job, MOMENTS, CHANCE)
ATTEMPTS = st.integers(1, 999_999)
KINDS = st.sampled_from(["lock", "result", "out"])
NONCES = st.builds(names.make_nonce, st.binary(min_size=5, max_size=5))
WORKERS = st.from_regex(names._WORKER_ONLY, fullmatch=True)
# Names that are nearly right, or anything at all.
ANY = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="0123456789TZab-._joblckresutqn\n", max_size=60),
    st.builds(lambda job, tail: job + tail, JOBS, st.text(alphabet=".0123456789jobresultlock\n/", max_size=12)),
    st.builds("{}{}".format, st.text(max_size=2), JOBS),
)


@given(JOBS)
def test_a_made_job_name_is_one(job):
    assert names.is_job(job)
    assert names.parse_drop(names.drop_name(job)) == job


@given(JOBS, ATTEMPTS, KINDS)
def test_a_claim_is_read_as_it_was_made(job, attempt, kind):
    made = names.claim_name(job, attempt, kind)
    assert names.parse_claim(made) == names.Claimed(job, attempt, kind)


@given(JOBS, NONCES)
def test_a_request_is_read_as_it_was_made(job, nonce):
    assert names.parse_request(names.request_name(job, nonce)) == (job, nonce)


@given(WORKERS, NONCES)
def test_a_run_is_read_as_it_was_made(worker, nonce):
    assert names.parse_run(names.run_name(worker, nonce)) == (worker, nonce)


@given(ANY)
def test_whatever_is_read_at_all_is_made_again_letter_by_letter(name):
    if (job := names.parse_drop(name)) is not None:
        assert names.is_job(job) and names.drop_name(job) == name
    if (asked := names.parse_request(name)) is not None:
        assert names.is_job(asked[0]) and names.request_name(*asked) == name
    if (claimed := names.parse_claim(name)) is not None:
        assert names.is_job(claimed.job) and claimed.attempt >= 1
        assert names.claim_name(claimed.job, claimed.attempt, claimed.kind) == name
    if (run := names.parse_run(name)) is not None:
        assert names.is_worker(run[0]) and names.run_name(*run) == name


@given(ANY)
def test_a_name_is_at_most_one_thing(name):
    readers = (names.parse_drop, names.parse_request, names.parse_claim)
    assert sum(reader(name) is not None for reader in readers) <= 1


@given(ANY)
def test_no_name_leads_out_of_its_folder(name):
    readers = (names.parse_drop, names.parse_request, names.parse_claim, names.parse_run)
    if any(reader(name) for reader in readers) or names.is_job(name):
        assert not set(name) & set("/\\\0\n ") and not name.startswith((".", "-"))
        assert name.isascii() and name.isprintable() and len(name) < 128


@pytest.mark.parametrize("name", [
    "", JOB[:-1], JOB + "a", JOB + "\n", "\n" + JOB, JOB.upper(), JOB.replace("k", "i"), JOB.replace("-", "_"),
    "２" + JOB[1:], f"{JOB}.job", f"../{JOB}",
])  # fmt: skip
def test_what_is_nearly_a_job_name_is_none(name):
    assert not names.is_job(name)


@pytest.mark.parametrize("name", [
    f"{JOB}.0.lock", f"{JOB}.01.lock", f"{JOB}.1000000.lock", f"{JOB}.-1.lock", f"{JOB}.1.locks", f"{JOB}..lock",
    f"{JOB}.1.lock\n", f"{JOB}.1.job", f"{JOB}.lock", f"{JOB}.١.lock", f"{JOB}.1.LOCK", f"./{JOB}.1.lock",
])  # fmt: skip
def test_what_is_nearly_a_claim_is_none(name):
    assert names.parse_claim(name) is None


@given(MOMENTS, MOMENTS, CHANCE, CHANCE)
def test_job_names_sort_by_time(one, other, first, second):
    if int(one * 1_000_000) < int(other * 1_000_000):
        assert names.make_job(one, first) < names.make_job(other, second)


@given(st.lists(st.sampled_from([0.0, 1.0, 1.0000004]), min_size=2, max_size=20))
def test_names_of_one_client_sort_by_submission_whatever_its_clock_does(moments):
    clock = iter(moments)
    maker = JobNames(lambda: 1_000_000 + next(clock), lambda count: b"\xff" * count)
    made = [maker.new() for _ in moments]
    assert made == sorted(made) and len(set(made)) == len(made)


def test_the_alphabet_sorts_as_its_numbers_do():
    assert list(names.ALPHABET) == sorted(names.ALPHABET)
    assert len(set(names.ALPHABET)) == 32 and not set("ilou") & set(names.ALPHABET)


@given(st.binary(min_size=5, max_size=5), st.binary(min_size=5, max_size=5))
def test_different_chance_makes_different_nonces(one, other):
    assert (names.make_nonce(one) == names.make_nonce(other)) == (one == other)


@given(st.text(max_size=100))
def test_any_host_gives_a_worker_name(host):
    assert names.is_worker(names.worker_from_host(host))


@pytest.mark.parametrize("host, worker", [
    ("kiwi.example.org", "kiwi"), ("fig", "fig"), ("my host", "my-host"), ("--", "worker"), ("", "worker"),
    ("ünï", "n"), ("a" * 90, "a" * 64),
])  # fmt: skip
def test_a_worker_is_called_after_its_host(host, worker):
    assert names.worker_from_host(host) == worker


@pytest.mark.parametrize("name", ["alice", "a.b@lab+x", "_x", "9"])
def test_a_person_may_be_called(name):
    assert names.is_person(name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "@a", "a b", "a,b", "a*", "a\n", "ä", "a" * 65])
def test_a_person_may_not_be_called(name):
    assert not names.is_person(name)


@pytest.mark.parametrize("word", ["", "a=b", "a b", "a,b", "-a", "a\n", "a" * 65])
def test_what_is_no_token(word):
    assert not names.is_token(word)
