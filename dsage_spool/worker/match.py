"""Can this worker run that job? Pure; the same answer for the worker, `status` and `explain`."""

from __future__ import annotations

from typing import Iterable


def missing(needs: Iterable[str], offers: frozenset[str]) -> list[str]:
    """The needs that a worker does not meet, in words; empty if it can run the job.

    A need is a word that the worker must offer (`gpu`, `python=cpython-3495`, `sympy=1.14`), a
    package (`package=numpy`), or `memory=BYTES`, which is compared as a number.
    """
    return [need for need in needs if not _met(need, offers)]


def _met(need: str, offers: frozenset[str]) -> bool:
    name, equals, value = need.partition("=")
    if name == "memory" and equals:
        return any(_memory(offer) >= int(value) for offer in offers) if value.isdigit() else False
    return need in offers


def _memory(offer: str) -> int:
    name, _, value = offer.partition("=")
    return int(value) if name == "memory" and value.isdigit() else -1


def why_not(needs: Iterable[str], workers: dict[str, frozenset[str]]) -> list[str]:
    """One sentence for each worker that cannot run a job with these needs."""
    sentences = []
    for name, offers in sorted(workers.items()):
        lacks = missing(needs, offers)
        if lacks:
            sentences.append(f"{name} lacks {', '.join(_shown(need, offers) for need in lacks)}")
    return sentences


def _shown(need: str, offers: frozenset[str]) -> str:
    """A need and what the worker has instead, where it has another value of the same name."""
    name, equals, _ = need.partition("=")
    others = sorted(offer for offer in offers if offer.startswith(f"{name}=")) if equals else []
    if others and name != "package":
        return f"{need} (it has {others[0]})"
    return need
