"""The books of a factorization: a number as a product of proved primes and open composites.

Pieces are pairwise coprime at every turn, so a prime is never looked for twice. Nothing here waits
or runs long: composites of up to LOCAL_DIGITS digits are finished on the spot, larger ones stay
open until somebody brings a divisor. A divisor that is none raises SpoolError and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import gcd

from dsage_spool.errors import SpoolError
from dsage_spool.functions import algebra

LOCAL_DIGITS = 25

Pair = tuple[int, int]  # a number and its multiplicity


@dataclass(frozen=True)
class Found:
    """A piece was found; `kind` is "prime" or "composite"."""

    number: int
    kind: str
    origin: str


class Pieces:
    """`n` = product of `primes` and `open`, each with its multiplicity, always."""

    def __init__(self, n: int, hints: Iterable[int], observe: Callable[[Found], None]) -> None:
        self.primes: dict[int, int] = {}
        self.open: dict[int, int] = {}
        self.origins: dict[int, str] = {}
        self._observe = observe
        if n <= 0:
            self._record(-1 if n else 0, 1, "sign" if n else "zero")
        if abs(n) > 1:
            self._begin(abs(n), hints)

    def _begin(self, n: int, hints: Iterable[int]) -> None:
        root, k = algebra.as_power(n)
        small, rest = algebra.trial_division(root)
        for p, m in sorted(small.items()):
            self._record(p, m * k, "trial division")
        parts = coprime([(rest, k)])
        for hint in [*hints, *algebra.shape_parts(root)]:
            parts = coprime(_cut(parts.items(), abs(hint)))
        origin = "algebra" if len(parts) > 1 else "left by trial division"
        for part, m in sorted(parts.items()):
            self._place(part, m, origin)

    def split(self, number: int, divisor: int, origin: str) -> None:
        """Replace the open composite `number` by what `divisor` makes of it."""
        if number not in self.open or not is_divisor(divisor, number):
            raise SpoolError(f"{divisor}: splits no open composite")
        m = self.open.pop(number)
        for part, k in sorted(coprime([(divisor, m), (number // divisor, m)]).items()):
            here = origin if divisor % part == 0 else f"cofactor, {origin}"
            self._place(part, k, here)

    def _place(self, piece: int, multiplicity: int, origin: str) -> None:
        root, k = algebra.as_power(piece)
        if is_prime(root):
            self._record(root, k * multiplicity, origin)
        elif len(str(root)) <= LOCAL_DIGITS:
            for p, m in sorted(_small_composite(root).items()):
                self._record(p, k * multiplicity * m, f"{origin}, then on the spot")
        else:
            self.open[root] = k * multiplicity
            self._observe(Found(root, "composite", origin))

    def _record(self, prime: int, multiplicity: int, origin: str) -> None:
        self.primes[prime] = self.primes.get(prime, 0) + multiplicity
        self.origins.setdefault(prime, origin)
        if abs(prime) > 1:
            self._observe(Found(prime, "prime", origin))


def is_divisor(divisor: object, number: int) -> bool:
    """Whether what somebody sent is a divisor of `number` other than 1 and itself."""
    return type(divisor) is int and 1 < divisor < number and number % divisor == 0


def coprime(pairs: Iterable[Pair]) -> dict[int, int]:
    """The same product with pairwise coprime bases, none of them 1 (refinement by gcds)."""
    base: dict[int, int] = {}
    todo = list(pairs)
    while todo:
        a, m = todo.pop()
        b = next((b for b in base if gcd(a, b) > 1), None)
        if b is not None:
            common, k = gcd(a, b), base.pop(b)
            todo += [(a // common, m), (common, m + k), (b // common, k)]
        elif a > 1:
            base[a] = m
    return base


def _cut(pairs: Iterable[Pair], hint: int) -> Iterable[Pair]:
    for number, m in pairs:
        common = gcd(number, hint)
        yield common, m
        yield number // common, m


def is_prime(n: int) -> bool:
    """sympy's test: a proof below 2^64; above, BPSW, to which no counterexample is known."""
    from sympy import isprime

    return bool(isprime(n))


def _small_composite(n: int) -> dict[int, int]:
    from sympy import factorint

    return {int(p): int(m) for p, m in factorint(n).items()}
