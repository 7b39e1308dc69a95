"""The curve kernel against numbers whose factors, and curves whose orders, are known."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from sympy import factorint, primerange

from dsage_spool.errors import UsageError
from dsage_spool.functions import ecm

P, Q = 1_000_000_007, 1_000_000_000_000_000_003
SEMIPRIME = P * Q
MODULUS = 2**89 - 1  # prime: every inverse exists


def same_point(p: ecm.Point, q: ecm.Point, n: int) -> bool:
    return (p[0] * q[1] - q[0] * p[1]) % n == 0


def by_ladder(p: ecm.Point, k: int, a24: int, n: int) -> ecm.Point:
    """The multiple the slow, plain way: Montgomery's ladder."""
    here, above = p, ecm.double(p, a24, n)
    for bit in bin(k)[3:]:
        between = ecm.add(here, above, p, n)
        if bit == "1":
            here, above = between, ecm.double(above, a24, n)
        else:
            here, above = ecm.double(here, a24, n), between
    return here


def order_of_start(prime: int, seed: int) -> int:
    """By adding the point to itself with the textbook's formulas, x and y, until it is nowhere."""
    start, a24 = ecm.suyama(seed, prime)
    a = (4 * a24 - 2) % prime
    x0, y0 = start[0] * pow(start[1], -1, prime) % prime, 1
    b = (x0**3 + a * x0 * x0 + x0) % prime  # so that y0 = 1
    x, y, order = x0, y0, 1
    while (x, y) != (x0, prime - y0):
        if (x, y) == (x0, y0):
            slope = (3 * x * x + 2 * a * x + 1) * pow(2 * b * y, -1, prime)
        else:
            slope = (y - y0) * pow(x - x0, -1, prime)
        x_next = (b * slope * slope - a - x - x0) % prime
        x, y, order = x_next, (slope * (x - x_next) - y) % prime, order + 1
    return order + 1


def test_a_lucas_chain_gives_the_multiple_of_the_ladder():
    start, a24 = ecm.suyama(77, MODULUS)
    for k in [*range(1, 400), 1009, 65_537, 99_991, 2**31 - 1, 3**20, 2310]:
        chain = ecm.multiply(start, k, a24, MODULUS)
        assert same_point(chain, by_ladder(start, k, a24, MODULUS), MODULUS), k


def test_the_order_of_every_suyama_curve_is_divisible_by_twelve():
    prime = 101
    for seed in range(6, 20):
        start, a24 = ecm.suyama(seed, prime)
        curve_a = (4 * a24 - 2) % prime
        x = start[0] * pow(start[1], -1, prime) % prime
        b = (x**3 + curve_a * x * x + x) % prime
        if b == 0 or (curve_a * curve_a - 4) % prime == 0:
            continue
        count = 1 + sum(
            (b * y * y - (u**3 + curve_a * u * u + u)) % prime == 0
            for u in range(prime) for y in range(prime)
        )
        assert count % 12 == 0, seed


def test_primes_are_those_of_sympy():
    for limit in [*range(2, 130), 1000, 10_007, 10_008]:
        assert ecm.primes_below(limit) == list(primerange(limit))


def test_a_known_seed_finds_a_known_factor():
    found = [ecm.one_curve(SEMIPRIME, 500, 20_000, seed) for seed in range(6, 40)]
    assert P in found
    assert set(found) <= {P, Q, None}


@pytest.mark.parametrize("prime", [3_001, 4_001, 5_003])
def test_each_stage_finds_exactly_the_orders_it_promises(prime):
    n, tried = prime * MODULUS, 0
    for seed in range(6, 26):
        powers = sorted((q, q**e) for q, e in factorint(order_of_start(prime, seed)).items())
        largest, below = powers[-1][0], powers[-1][0] - 1
        if below < ecm.MIN_B1 or max(power for _, power in powers) > largest:
            continue
        assert ecm.one_curve(n, largest, largest, seed) == prime, "first stage"
        assert ecm.one_curve(n, below, below, seed) is None, "first stage, one short"
        assert ecm.one_curve(n, below, largest, seed) == prime, "second stage"
        tried += 1
    assert tried > 2


def test_the_second_stage_covers_every_prime_between_the_bounds():
    for b1, b2 in [(105, 3_000), (1_000, 20_000), (1_155, 101_000), (2_000, 9_999)]:
        step, first, last, columns = ecm._pairing(b1, b2)
        covered = set()
        for baby, wanted in columns:
            for giant in (first + i for i, flag in enumerate(wanted) if flag):
                covered |= {giant * step + baby, giant * step - baby}
        assert covered >= set(primerange(b1 + 1, b2 + 1))
        assert len(columns[0][1]) == last - first + 1


def test_a_number_whose_primes_all_fall_at_once_is_still_split():
    n = 1009 * 1013 * 10_007 * 1_000_003
    found = [ecm.one_curve(n, 2_000, 150_000, seed) for seed in range(6, 26)]
    assert sum(f is not None for f in found) >= 15
    assert all(f is None or (1 < f < n and n % f == 0) for f in found)


def test_run_curves_stops_at_the_first_factor_and_names_its_seed():
    answer = ecm.run_curves(SEMIPRIME, 500, 20_000, 6, 100)
    assert answer["factor"] in (P, Q)
    assert answer["seed"] == 6 + answer["curves"] - 1
    assert ecm.one_curve(SEMIPRIME, 500, 20_000, answer["seed"]) == answer["factor"]
    assert answer["seconds"] > 0


def test_curves_without_luck_say_so():
    answer = ecm.run_curves((2**89 - 1) * (2**107 - 1), 150, 500, 6, 3)
    assert (answer["factor"], answer["seed"], answer["curves"]) == (None, None, 3)


@pytest.mark.parametrize(
    ("n", "b1", "b2", "seed"),
    [
        (3, 110, 200, 6), (91, 110, 200, 5), (91, 104, 200, 6), (91, 200, 110, 6),
        (91, 200, 10**12, 6),
    ],
)
def test_bounds_that_make_no_sense_are_refused(n, b1, b2, seed):
    with pytest.raises(UsageError, match="hint"):
        ecm.one_curve(n, b1, b2, seed)


def test_the_job_function_travels_by_name_and_brings_no_sympy():
    assert pickle.loads(pickle.dumps(ecm.run_curves)) is ecm.run_curves
    code = "import sys, dsage_spool.functions.ecm; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
