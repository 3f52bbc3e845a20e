"""Which facts are nearest to a fact, and which names to a name that was not found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest, nsmallest
from typing import Any

FEW_DIGITS = 2  # of an id that may be wrong


def likeness(one: str, other: str) -> float:
    """How alike two texts are, in [0, 1]: Dice's coefficient of their runs of three letters, whatever their case.

    Each end of a text counts as two blanks, so that short texts have runs too.

    >>> likeness("Oslo", "oslo"), likeness("Oslo", "Paris")
    (1.0, 0.0)
    """
    return _dice(_runs(one), _runs(other))


def most_alike(text: str, known: Iterable[str], number: int) -> list[str]:
    """The known texts that are most alike, the most alike first, among equals in their order; each once."""
    runs = _runs(text)
    found = [(_dice(runs, _runs(other)), -place, other) for place, other in enumerate(dict.fromkeys(known))]
    return [other for _, _, other in nlargest(number, found)]


def nearest_ids(text: str, known: Iterable[str], number: int) -> list[str]:
    """The known ids that were most likely meant by an id, or the beginning of one, that is none; each once.

    First those that differ in at most FEW_DIGITS digits, of which one may be missing or too many, the fewest first.
    Then those that share the longest beginning.
    """

    def rank(id: str) -> tuple[int, int]:
        near = min(differing(text, id[: len(text) + more]) for more in (-1, 0, 1))
        return min(near, FEW_DIGITS + 1), -_shared(text, id)

    return nsmallest(number, dict.fromkeys(known), key=rank)


def differing(one: str, other: str) -> int:
    """In how many characters two texts differ: place by place, or between their common beginning and common end."""
    longest, shortest = max(len(one), len(other)), min(len(one), len(other))
    start = _shared(one, other)
    end = min(_shared(one[::-1], other[::-1]), shortest - start)
    by_place = sum(a != b for a, b in zip(one, other, strict=False)) + longest - shortest
    return min(by_place, longest - start - end)


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    places = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in places if a != b), min(len(one), len(other)))


def nearest_facts(
    fact: Mapping[str, Any], others: Sequence[Mapping[str, Any]], number: int
) -> list[Mapping[str, Any]]:
    """The facts that are nearest to a fact, the nearest first; the fact itself, which has its id, is left out.

    A fact about the same subject is nearer than one with the same object, and that is nearer than one of the same
    topic. Among equals the more alike subject is nearer, and then the first.
    """
    runs = _runs(fact["subject"])
    found = [
        (
            other["subject"] == fact["subject"],
            other["object"] == fact["object"],
            other["topic"] == fact["topic"],
            _dice(runs, _runs(other["subject"])),
            -place,
        )
        for place, other in enumerate(others)
        if other["fact_id"] != fact["fact_id"]
    ]
    return [others[-key[-1]] for key in nlargest(number, found)]


def _runs(text: str) -> frozenset[str]:
    padded = f"  {text.casefold()}  "
    return frozenset(padded[start : start + 3] for start in range(len(padded) - 2))


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    return 2 * len(one & other) / (len(one) + len(other))
