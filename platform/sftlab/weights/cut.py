"""Where a restoration ends in the total order of the weights: `Cut`, and the percentages that users write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Literal, TypedDict

from sftlab.errors import UserError

Order = Literal["top", "bottom", "random", "smallest-base", "shuffled"]
Measure = Literal["relative", "absolute"]
Region = Literal["layers", "attention", "mlp", "embeddings", "all"]
ShareOf = Literal["weights", "l1", "l2"]


class SelectionKeys(TypedDict, total=False):
    """Which weights a ladder restores first, as keyword arguments; those left out have the defaults of the paper.

    Keys:
        region: the weights that are ranked; "layers", all weights of the layers but norms, if left out.
        order: "top" (largest change first) if left out; `Ranking` explains each.
        seed: of the orders "random" and "shuffled"; 0 if left out.
        measure: the change by which "top", "bottom" and "shuffled" rank; "relative" if left out.
        layers: narrows the region to these layers, such as "0-3"; all if left out.
        share_of: what a percentage is a share of: "weights", the total change "l1" or its squares "l2".
    """

    region: Region
    order: Order
    seed: int
    measure: Measure
    layers: str | None
    share_of: ShareOf


_DEFAULTS = {"measure": "relative", "layers": None, "share_of": "weights", "controls": None}

# Table 3 of the paper: the shares of weights for which the concentration of change is reported.
CONCENTRATION_PERCENTS = ("1", "3", "5", "10", "20", "40", "60")


def percent_label(percent: str | int | float | Decimal) -> str:
    """A percentage in its shortest decimal writing: 10 -> "10", "2.50" -> "2.5", "1e-1" -> "0.1".

    Raises UserError for what is not a number from 0 to 100.
    """
    try:
        value = Decimal(str(percent).strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not (value.is_finite() and 0 <= value <= 100):
        raise UserError(
            place="--percent", value=percent, expected="a number from 0 to 100, such as 10 or 2.5"
        )
    return format(abs(value.normalize()), "f")


def percent_labels(percents: str | Iterable[str | int | float | Decimal]) -> tuple[str, ...]:
    """Labels of several percentages, given as a list or as "1,3,2.5", in their order, each once allowed."""
    parts = percents.split(",") if isinstance(percents, str) else list(percents)
    labels = tuple(percent_label(part) for part in parts)
    if not labels:
        raise UserError(
            "no percentage is given", place="--percent", expected="at least one, such as 1,3,5,10,20,40,60"
        )
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(
            f"{', '.join(twice)} is given more than once",
            place="--percent",
            advice="give each percentage once.",
        )
    return labels


def restored_count(total: int, label: str) -> int:
    """floor(total * percent / 100), exact for decimal fractions."""
    return int(Fraction(total) * Fraction(label) / 100)


@dataclass(frozen=True)
class Ranking:
    """What the weights of a region are ordered by.

    top, bottom: their change by `measure`, largest or smallest first. random: a draw by `seed`. smallest-base: the
    absolute value of the base weight, smallest first. shuffled: largest first, the change by `measure` that the
    weights would have if the updates of each parameter were shuffled by `seed` (`sftlab.weights.shuffle`).

    Use `Ranking.of`, which sets what has no effect (such as the seed of top and bottom, the measure of random) to
    its default, so that equal orders are equal objects.
    """

    order: Order = "top"
    seed: int = 0
    measure: Measure = "relative"

    @staticmethod
    def of(order: Order, seed: int, measure: Measure) -> Ranking:
        seeded, measured = order in ("random", "shuffled"), order in ("top", "bottom", "shuffled")
        return Ranking(order, seed if seeded else 0, measure if measured else "relative")

    @property
    def is_relative_change(self) -> bool:
        """Whether the keys of this order are the bit patterns of the relative change."""
        return self.order == "top" and self.measure == "relative"


@dataclass(frozen=True)
class Cut:
    """Which weights a restoration takes back to the base model.

    The weights of `region`, of these `layers` alone where given, are ordered by an integer key, largest
    first, ties by parameter name and then by position in the flattened parameter
    (`sftlab.weights.selection.ranking_keys`). Restored are the first `count` of `total`: those whose key is
    above `threshold`, or equal to it and standing before (`tie_name`, `tie_position`). A smaller cut of the
    same order is therefore contained in a larger one.
    """

    percent: str
    order: Order
    region: Region
    seed: int
    threshold: int
    tie_name: str
    tie_position: int
    count: int
    total: int
    measure: Measure = "relative"
    layers: str | None = None

    @property
    def ranking(self) -> Ranking:
        return Ranking(self.order, self.seed, self.measure)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; a relative measure and all layers are left out, as before there were others."""
        return without_defaults(asdict(self))


def without_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data without the entries that came later (`_DEFAULTS`) where these have their defaults."""
    return {key: value for key, value in data.items() if key not in _DEFAULTS or value != _DEFAULTS[key]}
