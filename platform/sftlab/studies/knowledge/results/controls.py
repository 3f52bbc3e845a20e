"""Which restorations are controls of which: the same study but for the order of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.studies.knowledge.results.tables import Variant

ORDERING = ("order", "measure", "seed")  # what a control changes


def controlled(variants: Sequence[Variant]) -> dict[str, list[str]]:
    """Variant -> its controls, by name.

    A variant that restores the largest relative changes first has as controls those that differ in the order of the
    weights alone: they restore the same share of the weights, or undo the same share of the change.
    """
    found: dict[str, list[str]] = {}
    for variant in variants:
        restore = _restore(variant)
        if restore is None or "measure" in restore or restore.get("order", "top") != "top":
            continue
        others = [other.name for other in variants if other is not variant and _alike(variant, other)]
        if others:
            found[variant.name] = others
    return found


def _restore(variant: Variant) -> Mapping[str, Any] | None:
    """The settings of a restoration; None for another edit."""
    restore = variant.spec.get("restore")
    return restore if isinstance(restore, Mapping) and "method" not in restore else None


def _alike(variant: Variant, other: Variant) -> bool:
    mine, theirs = (dict(variant.spec), dict(other.spec))
    one, two = _restore(variant), _restore(other)
    if one is None or two is None:
        return False
    mine["restore"], theirs["restore"] = (
        {key: value for key, value in restore.items() if key not in ORDERING} for restore in (one, two)
    )
    return mine == theirs
