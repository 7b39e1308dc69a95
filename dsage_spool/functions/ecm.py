"""Elliptic curves against one number: what a factoring job runs on a worker.

Plain Python integers, so every worker can run it; gmpy2's are used where it is installed, with
the same results. A curve is a pure function of (n, b1, b2, sigma). "No factor" cannot be
checked by whoever asked; a factor can, and must be. Raises UsageError for senseless bounds.

Sources: H. W. Lenstra, Factoring integers with elliptic curves (1987). P. L. Montgomery, Speeding
the Pollard and elliptic curve methods of factorization (1987): curves, x-only arithmetic, the
pairing of primes. P. L. Montgomery, Evaluating recurrences of form X(m+n) = f(X(m), X(n), X(m-n))
via Lucas chains (1983): PRAC. H. Suyama, Informal preliminary report (1985): the curves of a seed.
R. P. Brent, Some integer factorization algorithms using elliptic curves (1986): the second stage.
P. Zimmermann, B. Dodson, 20 years of ECM (2006): bounds, baby and giant steps.
"""

from __future__ import annotations

import time
from functools import lru_cache
from itertools import compress
from math import gcd, isqrt

from dsage_spool.errors import UsageError

try:
    from gmpy2 import mpz as _integer
except ImportError:
    _integer = int

MIN_B1 = 105  # half the smaller step of the second stage: giants begin at one step
MAX_B2 = 200_000_000  # one byte of sieve each: 200 MB for a moment
SMALLEST_SEED = 6  # 0, 1, 3 and 5 give degenerate curves
_BLOCK = 64  # primes between two gcds of the first stage
_GOLDEN = (5**0.5 - 1) / 2

Point = tuple[int, int]  # X : Z, the y coordinate is never needed


class _FactorMet(Exception):
    """An inverse modulo n does not exist; the argument is the gcd that says why."""


def one_curve(n: int, b1: int, b2: int, sigma: int) -> int | None:
    """A divisor of `n`, neither 1 nor `n`, perhaps composite; None where this curve has no luck.

    `sigma` >= 6 is Suyama's seed, `b1` and `b2` bound the primes of the two stages.
    """
    _refuse_nonsense(n, b1, b2, sigma)
    try:
        divisor = _both_stages(_integer(n), b1, b2, sigma)
    except _FactorMet as met:
        divisor = met.args[0]
    return int(divisor) if 1 < divisor < n else None


def run_curves(n: int, b1: int, b2: int, first_seed: int, count: int) -> dict[str, object]:
    """Run the curves of seeds first_seed, first_seed + 1, ...; stop at the first divisor found.

    Returns factor and seed (None without luck), curves run, and CPU seconds spent.
    """
    start = time.process_time()
    factor = seed = None
    curves = 0
    while curves < count and factor is None:
        seed = first_seed + curves
        factor = one_curve(n, b1, b2, seed)
        curves += 1
    return {
        "factor": factor,
        "seed": seed if factor else None,
        "curves": curves,
        "seconds": time.process_time() - start,
    }


def _refuse_nonsense(n: int, b1: int, b2: int, sigma: int) -> None:
    if n < 4 or sigma < SMALLEST_SEED:
        raise UsageError(
            f"curve of seed {sigma} for {n}: number or seed too small",
            hint=f"numbers start at 4 and seeds at {SMALLEST_SEED}",
        )
    if not MIN_B1 <= b1 <= b2 <= MAX_B2:
        raise UsageError(
            f"bounds {b1} and {b2}: out of range",
            hint=f"{MIN_B1} <= b1 <= b2 <= {MAX_B2} must hold",
        )


def _both_stages(n: int, b1: int, b2: int, sigma: int) -> int:
    """A gcd with `n`: 1 or `n` itself are no luck."""
    start, a24 = suyama(sigma, n)
    point, divisor = _first_stage(start, a24, b1, n)
    if divisor > 1 or b2 <= b1:
        return divisor
    return _second_stage(point, a24, b1, b2, n)


# --- curves and points ---------------------------------------------------------------------------


def suyama(sigma: int, n: int) -> tuple[Point, int]:
    """A point and (A + 2) / 4 of the Montgomery curve of this seed: 12 divides its order."""
    u, v = (sigma * sigma - 5) % n, 4 * sigma % n
    a24 = pow(v - u, 3, n) * (3 * u + v) * _inverse(16 * pow(u, 3, n) * v, n) % n
    return (pow(u, 3, n), pow(v, 3, n)), a24


def _inverse(value: int, n: int) -> int:
    common = gcd(int(value), int(n))
    if common != 1:
        raise _FactorMet(common)
    return pow(value, -1, n)


def double(p: Point, a24: int, n: int) -> Point:
    x, z = p
    s, d = x + z, x - z
    s, d = s * s % n, d * d % n
    t = s - d
    return s * d % n, t * (d + a24 * t % n) % n


def add(p: Point, q: Point, difference: Point, n: int) -> Point:
    """p + q, given p - q."""
    x, z = p
    x1, z1 = q
    u = (x - z) * (x1 + z1)
    v = (x + z) * (x1 - z1)
    s, d = (u + v) % n, (u - v) % n
    x, z = difference
    return z * (s * s % n) % n, x * (d * d % n) % n


def multiply(p: Point, k: int, a24: int, n: int) -> Point:
    """k times `p` for any k >= 1, by a Lucas chain (PRAC, with the rules that pay most).

    a, b and c stand for multiples of p with a - b = c; d and e are what is still owed:
    d * a + e * b is the answer at every turn.
    """
    while k % 2 == 0:
        p, k = double(p, a24, n), k // 2
    if k == 1:
        return p
    owed = int(k * _GOLDEN + 0.5)
    a, b, c = double(p, a24, n), p, p
    d, e = k - owed, 2 * owed - k
    while d != e:
        if d < e:
            d, e, a, b = e, d, b, a
        if d <= 4 * e:
            d, b, c = d - e, add(a, b, c, n), b
        elif (d - e) % 2 == 0:
            d, b, a = (d - e) // 2, add(a, b, c, n), double(a, a24, n)
        elif d % 2 == 0:
            d, c, a = d // 2, add(c, a, b, n), double(a, a24, n)
        else:
            e, c, b = e // 2, add(c, b, a, n), double(b, a24, n)
    return multiply(add(a, b, c, n), d, a24, n)


# --- first stage: multiply by every prime power up to b1 -----------------------------------------


def _first_stage(p: Point, a24: int, b1: int, n: int) -> tuple[Point, int]:
    """The point at the end, and the gcd that ended it (1: none)."""
    factors = _prime_powers(b1)
    for start in range(0, len(factors), _BLOCK):
        block = factors[start : start + _BLOCK]
        before = p
        for q in block:
            p = multiply(p, q, a24, n)
        divisor = gcd(int(p[1]), int(n))
        if divisor == n:
            return before, _one_by_one(before, block, a24, n)
        if divisor > 1:
            return p, divisor
    return p, 1


def _one_by_one(p: Point, block: tuple[int, ...], a24: int, n: int) -> int:
    """A block met every prime of `n`: find where it met the first."""
    for q in block:
        p = multiply(p, q, a24, n)
        divisor = gcd(int(p[1]), int(n))
        if divisor > 1:
            return divisor
    return 1


@lru_cache(maxsize=2)
def _prime_powers(b1: int) -> tuple[int, ...]:
    """Each prime as often as its powers stay within `b1`, the small ones first."""
    found = []
    for q in primes_below(b1 + 1):
        power = q
        while power <= b1:
            found.append(q)
            power *= q
    return tuple(found)


# --- second stage: one more prime, up to b2 ------------------------------------------------------


def _second_stage(p: Point, a24: int, b1: int, b2: int, n: int) -> int:
    """Every prime q in (b1, b2] is giant * step +- baby; one product covers both signs.

    With Q the point, x(giant * step * Q) = x(baby * Q) modulo a prime divisor of `n` if q or its
    mirror image kills Q there. The differences are multiplied; one gcd at the end sees them all.
    """
    step, first, last, columns = _pairing(b1, b2)
    babies = _affine(_babies(p, step, [b for b, _ in columns], a24, n), n)
    giants = _affine(_giants(p, step, first, last, a24, n), n)
    product, after = 1, []
    for x, (_, wanted) in zip(babies, columns, strict=True):
        for giant in compress(giants, wanted):
            product = product * (giant - x) % n
        after.append(product)
    divisor = gcd(int(product), int(n))
    if divisor < n:
        return divisor
    return next(g for g in (gcd(int(value), int(n)) for value in after) if g > 1)


@lru_cache(maxsize=2)
def _pairing(b1: int, b2: int) -> tuple[int, int, int, list[tuple[int, bytes]]]:
    """Step, first and last giant, and for each baby which giants it must meet (a byte each)."""
    step = 2310 if b1 >= 1155 and b2 >= 100_000 else 210
    first, last = max(1, b1 // step), b2 // step + 1
    prime = _sieve((last + 1) * step)
    prime[: b1 + 1] = bytes(b1 + 1)
    prime[b2 + 1 :] = bytes(len(prime) - b2 - 1)
    columns = []
    for baby in range(1, step // 2, 2):
        if gcd(baby, step) == 1:
            above = prime[first * step + baby : last * step + baby + 1 : step]
            below = prime[first * step - baby : last * step - baby + 1 : step]
            columns.append((baby, _either(above, below)))
    return step, first, last, columns


def _either(one: bytes, other: bytes) -> bytes:
    both = int.from_bytes(one, "big") | int.from_bytes(other, "big")
    return both.to_bytes(len(one), "big")


def _babies(p: Point, step: int, wanted: list[int], a24: int, n: int) -> list[Point]:
    """The odd multiples of `p` that are wanted, which must be in rising order."""
    twice = double(p, a24, n)
    multiples = {1: p, 3: add(twice, p, p, n)}
    for odd in range(5, step // 2 + 1, 2):
        multiples[odd] = add(multiples[odd - 2], twice, multiples[odd - 4], n)
    return [multiples[odd] for odd in wanted]


def _giants(p: Point, step: int, first: int, last: int, a24: int, n: int) -> list[Point]:
    stride = multiply(p, step, a24, n)
    before, here = multiply(stride, first, a24, n), multiply(stride, first + 1, a24, n)
    giants = [before, here]
    while len(giants) <= last - first:
        before, here = here, add(here, stride, before, n)
        giants.append(here)
    return giants


def _affine(points: list[Point], n: int) -> list[int]:
    """X / Z of every point with one inversion (Montgomery's trick)."""
    partial = [1]
    for _, z in points:
        partial.append(partial[-1] * z % n)
    inverse = _inverse(partial.pop(), n)
    found = []
    for x, z in reversed(points):
        found.append(x * (inverse * partial.pop() % n) % n)
        inverse = inverse * z % n
    found.reverse()
    return found


# --- primes --------------------------------------------------------------------------------------


def primes_below(limit: int) -> list[int]:
    """All primes below `limit`, ascending; memory is one byte a number (sieve of Eratosthenes)."""
    return list(compress(range(limit), _sieve(limit)))


def _sieve(limit: int) -> bytearray:
    """One byte a number below `limit` (at least 2): 1 where it is prime."""
    flags = bytearray([0, 1]) * (limit // 2 + 1)
    flags[:3] = b"\0\0\1"
    for q in range(3, isqrt(limit) + 1, 2):
        if flags[q]:
            flags[q * q :: 2 * q] = bytes(len(range(q * q, len(flags), 2 * q)))
    del flags[limit:]
    return flags
