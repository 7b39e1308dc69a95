"""The factoring driver: right on every shape of number, whatever workers answer."""

from __future__ import annotations

import random
from math import prod

import pytest
from sympy import factorint

from dsage_spool.errors import JobCancelled, JobFailed, SpoolError, UsageError
from dsage_spool.functions import algebra, pieces
from dsage_spool.functions.factor import (
    BadAnswer, Factors, Level, LocalSession, Lost, Progress, factor,
)

P11, P12, P13, P20, P25 = 10**11 + 3, 10**12 + 39, 2248313994601, 10**19 + 51, 10**24 + 7
HARD = P11 * P20  # 31 digits: never done on the spot, a few curves
HARDER = P12 * P13 * P25


class Scripted(LocalSession):
    """A session whose workers answer what `script(job id, honest answer)` says."""

    def __init__(self, script) -> None:
        super().__init__()
        self.titles, self.calls, self._script = [], [], script

    def submit(self, function, *args, title):
        self.titles.append(title)
        self.calls.append(args)
        job = super().submit(function, *args, title=title)
        honest = job._call
        job._call = lambda: self._script(job.id, honest)
        return job


def honest(job_id, call):
    return call()


def numbers_of_every_shape():
    chance = random.Random(2007)
    yield from (-1, 0, 1, 2, 3, 4, -4, 97, 2**64, 3**40, -(6**30), 2**61 - 1, 2**127 - 1)
    yield from (10**12 + 39, (10**12 + 39) ** 2, (10**9 + 7) ** 5, 12**20 * 1_000_003**3)
    yield from (P13, P13**2, P13**3, P11 * P12, HARD, -2 * HARD, 7**3 * HARD, 2**100 - 1)
    yield from (10**24 + 1, 3**60 + 2**60, 561 * 1105 * 1729)
    for digits in (3, 6, 9, 12, 15, 18, 21, 24):
        for _ in range(4):
            yield chance.randrange(10 ** (digits - 1), 10**digits)


@pytest.mark.parametrize("n", list(numbers_of_every_shape()))
def test_a_number_of_any_shape_has_the_factors_sympy_finds(n):
    found = factor(n, LocalSession())
    assert found.factors == {int(p): m for p, m in factorint(n).items()}
    assert found.origins.keys() == found.factors.keys()


def test_repeated_large_primes_are_counted():
    found = factor(HARD**2 * P11, LocalSession())
    assert found.factors == {P11: 3, P20: 2}


def test_the_number_of_the_talk_falls_apart_into_its_algebraic_parts():
    seen = []
    n, hints = algebra.parse("11^150+1")
    books = pieces.Pieces(n, hints, seen.append)
    assert [len(str(c)) for c in books.open] == [40, 84]
    assert prod(p**m for p, m in (books.primes | books.open).items()) == n
    assert books.origins[46329453543600481] == "algebra"


def test_events_tell_the_story_and_the_seeds_are_never_used_twice():
    seen = []
    session = Scripted(honest)
    found = factor(HARDER, session, width=3, observe=seen.append)
    assert found.factors == {P12: 1, P13: 1, P25: 1}
    assert [e.b1 for e in seen if isinstance(e, Level)][0] == 2000
    assert [e for e in seen if isinstance(e, Progress)][-1].out == 0
    seeds = [s for _, _, _, first, count in session.calls for s in range(first, first + count)]
    assert seeds == list(range(6, 6 + len(seeds)))
    assert any("seed=" in origin and "job" in origin for origin in found.origins.values())


def test_a_constant_number_of_jobs_is_in_flight_and_none_is_left():
    session = Scripted(honest)
    widths = []
    wait = session.next_done
    session.next_done = lambda jobs, timeout: widths.append(len(jobs)) or wait(jobs, timeout)
    factor(HARDER, session, width=4)
    assert set(widths) == {4}
    ended = len(widths)
    assert sum(job.cancelled for job in session.jobs) == len(session.jobs) - ended


def test_jobs_of_a_composite_that_vanished_are_cancelled_at_once():
    session = Scripted(lambda i, call: call())
    alive = []
    wait = session.next_done

    def watching(jobs, timeout):
        alive.append({session.calls[job.id - 1][0] for job in jobs})
        return wait(jobs, timeout)

    session.next_done = watching
    factor(HARDER, session, width=5)
    for earlier, later in zip(alive, alive[1:]):
        assert later == earlier or not later & earlier


def nothing_found(curves):
    return {"factor": None, "seed": None, "curves": curves, "seconds": 0}


def lie(value):
    return {"factor": value, "seed": 6, "curves": 1, "seconds": 0.1}


LIES = [
    None, 7, "factor", {}, lie(1), lie(0), lie(-1), lie(HARD), lie(-P11), lie(P11 + 2),
    lie(2 * HARD),
    lie(True), lie(float(P11)), lie(str(P11)), lie(None), {**lie(None), "seconds": float("nan")},
    {**lie(P11), "curves": -5}, {**lie(P11), "seconds": -1}, {**lie(P11), "curves": 10**9},
]


@pytest.mark.parametrize("answer", LIES, ids=range(len(LIES)))
def test_a_lying_worker_never_makes_a_wrong_answer(answer):
    seen = []
    session = Scripted(lambda i, call: answer if i % 2 else call())
    found = factor(HARD, session, observe=seen.append)
    assert found.factors == {P11: 1, P20: 1}
    assert any(isinstance(e, BadAnswer) for e in seen)


def test_a_worker_that_hides_factors_only_costs_time():
    def script(job_id, call):
        return call() if job_id % 3 == 0 else nothing_found(session.calls[job_id - 1][4])

    session = Scripted(script)
    assert factor(HARD, session).factors == {P11: 1, P20: 1}


def test_a_driver_with_only_liars_gives_up_and_says_why():
    with pytest.raises(JobFailed, match="in a row"):
        factor(HARD, Scripted(lambda i, call: lie(HARD)))


def failing(job_id, call):
    raise JobFailed(f"job {job_id}: its worker burned down")


def test_seeds_of_a_lost_job_are_run_again():
    seen = []
    session = Scripted(lambda i, call: failing(i, call) if i in (1, 2) else call())
    assert factor(HARD, session, width=2, observe=seen.append).factors == {P11: 1, P20: 1}
    assert [e.job for e in seen if isinstance(e, Lost)] == [1, 2]
    assert session.calls[0] in session.calls[1:]


def test_the_same_seeds_lost_three_times_end_the_run_and_cancel_the_rest():
    session = Scripted(failing)
    with pytest.raises(JobFailed, match="burned down"):
        factor(HARD, session, width=2)
    assert len(session.calls) <= 7
    assert session.jobs[-1].cancelled


def test_a_job_that_a_person_withdrew_ends_the_run():
    def withdrawn(job_id, call):
        raise JobCancelled("job: cancelled by alice")

    with pytest.raises(JobCancelled):
        factor(HARD, Scripted(withdrawn))


def test_an_error_of_the_observer_reaches_the_caller_and_leaves_no_job():
    session = Scripted(honest)

    def observe(event):
        if isinstance(event, Progress):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        factor(HARDER, session, observe=observe)
    ended = 1
    assert sum(job.cancelled for job in session.jobs) == len(session.jobs) - ended


def test_several_ended_jobs_at_one_look_are_all_handled():
    class AllAtOnce(Scripted):
        def next_done(self, jobs, timeout):
            for job in jobs:
                job.run()
            return list(jobs)

    assert factor(HARDER, AllAtOnce(honest), width=4).factors == {P12: 1, P13: 1, P25: 1}


def test_a_claimed_speed_cannot_blow_up_the_jobs():
    def boast(job_id, call):
        return nothing_found(session.calls[job_id - 1][4]) if job_id <= 3 else call()

    session = Scripted(boast)
    assert factor(HARD, session, width=2).factors == {P11: 1, P20: 1}
    assert max(count for *_, count in session.calls) <= 200


# --- results and expressions ---------------------------------------------------------------------


def test_the_text_of_a_result_reads_as_an_equation():
    assert factor("11^4+1", LocalSession()).text() == "11^4+1 = 2 * 7321"
    assert factor(-360, LocalSession()).text() == "-360 = -1 * 2^3 * 3^2 * 5"
    assert factor(1, LocalSession()).text() == "1 = 1"


@pytest.mark.parametrize("factors", [{2: 1}, {4: 1, 3: 1}, {12: 1}, {}])
def test_check_refuses_a_wrong_product_and_a_composite(factors):
    with pytest.raises(SpoolError, match="factors of 12"):
        Factors(12, factors, {}).check()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("11^150+1", 11**150 + 1), ("2^523-1", 2**523 - 1), ("10^71//9", 10**71 // 9),
        ("(10^71-1)/9", (10**71 - 1) // 9), (" -(2**3**2) ", -512), ("12_345", 12345),
        ("7*-3", -21),
    ],
)
def test_an_expression_has_its_value(text, value):
    assert algebra.parse(text)[0] == value


@pytest.mark.parametrize(
    "text",
    [
        "", "()", "x", "1.5", "1e5", "1,2", "1<<9", "1/0", "5/2", "2^-1", "True", "f(2)", "2(3)",
        "__import__('os').system('true')", "lambda: 0", "1 if 1 else 2", "9^9^9^9", "2^99999999999",
        "10^999*10^999", "9" * 1_001, "9" * 5_000, "(" * 900 + "1" + ")" * 900, "-" * 1_900 + "1",
        "\x00", "\u0663+1", "1\n+\\", "0x10", "007", "11^150+1#", "(2^3000)^(2^3000)",
    ],
)
def test_a_text_that_is_no_sane_expression_is_refused_with_a_hint(text):
    with pytest.raises(UsageError, match="hint"):
        algebra.parse(text)


@pytest.mark.parametrize(("x", "y", "k"), [(3, 2, 30), (11, 1, 150), (7, 4, 12), (10, 1, 71)])
def test_algebraic_parts_multiply_to_the_whole(x, y, k):
    assert prod(algebra.binomial_parts(x**k, y**k, -1)) == x**k - y**k
    assert prod(algebra.binomial_parts(x**k, y**k, 1)) == x**k + y**k


def test_roots_of_powers_are_found_whole():
    assert algebra.as_power(2**360) == (2, 360)
    assert algebra.as_power(6**35) == (6, 35)
    assert algebra.as_power(10**40 + 1) == (10**40 + 1, 1)


@pytest.mark.parametrize(
    "arguments",
    [{"width": 0}, {"first_seed": 5}, {"n": 10**1_001}, {"n": -(10**1_001)}, {"n": 15.0}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UsageError, match="out of range|not a whole"):
        factor(**{"n": 15, "session": LocalSession(), **arguments})
