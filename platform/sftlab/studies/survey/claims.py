"""Claims about a survey, as data: what is said, what it predicts and which test decides it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sftlab.config.frozen import Frozen

Predicts = Literal["positive", "negative", "none", "not positive"]


class SetsClaim(Frozen):
    """Some sets change some benchmarks; compared with `versus` if given. `measure`: gain, or share of gains above 0."""

    kind: Literal["sets"]
    data: tuple[str, ...] = Field(min_length=1)
    versus: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    measure: Literal["gain", "share above 0"] = "gain"


class LabelsClaim(Frozen):
    """Models with the same label correlate more than others; `across`: only pairs with another label of that field."""

    kind: Literal["labels"]
    label: Literal["family", "language"]
    across: Literal["family", "language"] | None = None


class ComponentsClaim(Frozen):
    """The first components explain more than with shuffled sets."""

    kind: Literal["components"]
    components: int = Field(ge=1)


class StructureClaim(Frozen):
    """Correlations between benchmarks agree more between models than correlations between sets."""

    kind: Literal["structure"]


class SynergyClaim(Frozen):
    """What a set does to a benchmark in particular is common to the models."""

    kind: Literal["synergy"]


class LengthClaim(Frozen):
    """Longer examples, larger gains."""

    kind: Literal["length"]


class MethodClaim(Frozen):
    """One method less another, on some benchmarks."""

    kind: Literal["method"]
    first: str
    second: str
    benchmarks: tuple[str, ...] = ()


class SizeClaim(Frozen):
    """More examples less fewer."""

    kind: Literal["size"]


class EpochsClaim(Frozen):
    """`steps`: scores change less in late epochs. `distances`: training sets come closer to each other."""

    kind: Literal["epochs"]
    measure: Literal["steps", "distances"]


class TransferClaim(Frozen):
    """Gains on the same questions in several languages are correlated; `weakest` of all pairs and groups, or `mean`."""

    kind: Literal["transfer"]
    measure: Literal["weakest", "mean"]


# `kind` makes exactly one of them valid.
Test = (
    SetsClaim
    | LabelsClaim
    | ComponentsClaim
    | StructureClaim
    | SynergyClaim
    | LengthClaim
    | MethodClaim
    | SizeClaim
    | EpochsClaim
    | TransferClaim
)


class Claim(Frozen):
    """A claim, where it was made, what it predicts, and its test. `margin` is in the unit of the effect.

    Claims of the same `question` are the family over which p is corrected.
    """

    id: str
    question: str
    where: str
    says: str
    predicts: Predicts
    margin: float = Field(default=0.0, ge=0)
    test: Test
