"""What a number's own shape gives away before any curve is run.

Expressions are read by a small grammar over Python's parser: whole numbers, + - * / // ** ^ and
parentheses; "^" means power, nothing is ever evaluated as code. A text that is no such
expression, or whose value passes MAX_DIGITS, raises UsageError before the value is computed.
Divisors given here are hints: callers take the gcd with their number, so a wrong one cannot hurt.

Sources: x^n - y^n is the product of the cyclotomic forms of the divisors of n (Brillhart, Lehmer,
Selfridge, Tuckerman, Wagstaff, Factorizations of b^n +- 1, chapter III).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from math import gcd, isqrt

from dsage_spool.errors import UsageError
from dsage_spool.functions.ecm import primes_below

MAX_DIGITS = 1_000
MAX_TEXT = 2_000  # characters of an expression
MAX_HINTS = 60  # then no more nodes are looked at: each may take 0.1 s
TRIAL_LIMIT = 1_000_000
MAX_BITS = 3_322  # of a value of MAX_DIGITS digits
_ALPHABET = re.compile(r"[0-9_+*/^() -]*")
_HINT = "write for example 11^150+1, 2^523-1, (10^71-1)/9 or a plain number"

Power = tuple[int, int]  # base, exponent


# --- expressions ---------------------------------------------------------------------------------


def parse(text: str) -> tuple[int, list[int]]:
    """The value of an expression, and hints: numbers that may share divisors with it."""
    hints: list[int] = []
    try:
        tree = _tree(text)
        value = _value(tree, hints)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UsageError(f"{text[:60]!r}: no expression of whole numbers", hint=_HINT) from None
    return _small_enough(value), hints


def _tree(text: str) -> ast.expr:
    if len(text) > MAX_TEXT:
        raise UsageError(f"{text[:60]!r}...: over {MAX_TEXT} characters", hint=_HINT)
    if not _ALPHABET.fullmatch(text):
        raise ValueError("a character no expression has")
    return ast.parse(text.strip().replace("^", "**"), mode="eval").body


def _value(node: ast.expr, hints: list[int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return _small_enough(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand, hints)
        return -value if isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.BinOp):
        raise ValueError("not arithmetic")
    left, right = _value(node.left, hints), _value(node.right, hints)
    value = _small_enough(_apply(node.op, left, right))
    if len(hints) < MAX_HINTS:
        hints.extend(_hints_of(node, left, right))
    return value


def _apply(op: ast.operator, left: int, right: int) -> int:
    if isinstance(op, ast.Pow):
        return _power(left, right)
    if isinstance(op, (ast.Div, ast.FloorDiv)):
        return _quotient(left, right, exact=isinstance(op, ast.Div))
    if isinstance(op, ast.Add):
        return left + right
    if isinstance(op, ast.Sub):
        return left - right
    if isinstance(op, ast.Mult):
        return left * right
    raise ValueError("not arithmetic")


def _power(base: int, exponent: int) -> int:
    if exponent < 0:
        raise UsageError(f"exponent {exponent}: negative", hint=_HINT)
    if abs(base) > 1 and (abs(base).bit_length() - 1) * exponent > MAX_BITS:
        raise UsageError(f"a power in the expression: over {MAX_DIGITS} digits", hint=_HINT)
    return base ** (exponent if abs(base) > 1 else min(exponent, 2 + exponent % 2))


def _quotient(left: int, right: int, exact: bool) -> int:
    if right == 0:
        raise UsageError("the expression: divides by zero", hint=_HINT)
    if exact and left % right:
        raise UsageError("the expression: a division leaves a remainder", hint="use // to drop it")
    return left // right


def _small_enough(value: int) -> int:
    if value.bit_length() > MAX_BITS:
        raise UsageError(f"a value in the expression: over {MAX_DIGITS} digits", hint=_HINT)
    return value


def _hints_of(node: ast.BinOp, left: int, right: int) -> Iterator[int]:
    """What this node's operands give away about its value."""
    one, other = abs(left), abs(right)
    if isinstance(node.op, (ast.Mult, ast.Pow)):
        yield from (one, other)
    elif isinstance(node.op, (ast.Div, ast.FloorDiv)) and left > 0 < right:
        yield left - left % right
        yield from binomial_parts(left, left % right, -1)
    elif isinstance(node.op, (ast.Add, ast.Sub)) and left and right:
        same = (left > 0) == (right > 0)
        sign = 1 if same == isinstance(node.op, ast.Add) else -1
        yield gcd(one, other)
        yield from binomial_parts(one, other, sign)


# --- algebraic parts -----------------------------------------------------------------------------


def shape_parts(n: int) -> list[int]:
    """Parts of `n` > 2 seen from its value alone: n = a^k - 1 or n = a^k + 1."""
    return [*binomial_parts(n + 1, 1, -1), *binomial_parts(n - 1, 1, 1)]


def binomial_parts(one: int, other: int, sign: int) -> list[int]:
    """The cyclotomic parts of one + sign * other; none where these are no common powers.

    For one = x^n and other = y^n (1 is any power of 1) the parts multiply to the whole.
    """
    if one < 2 or other < 1:
        return []
    (x, n), (y, m) = as_power(one), as_power(other)
    k = n if y == 1 else gcd(n, m)
    if k < 2:
        return []
    x, y = x ** (n // k), 1 if y == 1 else y ** (m // k)
    if sign < 0:
        return [form(d, x, y) for d in divisors(k)]
    return [form(d, x, y) for d in divisors(2 * k) if k % d]


@lru_cache(maxsize=4096)
def form(d: int, x: int, y: int) -> int:
    """The cyclotomic form of index `d` at x, y: what x^d - y^d has and no smaller index gives."""
    value = x**d - y**d
    for smaller in divisors(d)[:-1]:
        value //= form(smaller, x, y) or 1
    return abs(value)


def divisors(n: int) -> list[int]:
    """All divisors of `n` >= 1, ascending."""
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


# --- powers and small primes ---------------------------------------------------------------------


def as_power(n: int) -> Power:
    """(root, k) with root^k = n >= 2 and k as large as it can be."""
    exponent = 1
    for k in primes_below(n.bit_length() + 1):
        while (root := floor_root(n, k)) ** k == n and root > 1:
            n, exponent = root, exponent * k
    return n, exponent


def floor_root(n: int, k: int) -> int:
    """The largest r with r^k <= n, by Newton's method from above."""
    if k == 2:
        return isqrt(n)
    root = 1 << -(-n.bit_length() // k)
    while True:
        closer = ((k - 1) * root + n // root ** (k - 1)) // k
        if closer >= root:
            return root
        root = closer


def trial_division(n: int, limit: int = TRIAL_LIMIT) -> tuple[dict[int, int], int]:
    """Primes below `limit` with their multiplicity, and what is left of `n` >= 1."""
    found: dict[int, int] = {}
    for p in _small_primes(limit):
        if p * p > n:
            break
        while n % p == 0:
            n //= p
            found[p] = found.get(p, 0) + 1
    if 1 < n < limit * limit:
        found[n] = found.get(n, 0) + 1
        n = 1
    return found, n


@lru_cache(maxsize=2)
def _small_primes(limit: int) -> list[int]:
    return primes_below(limit)
