"""The legend of a section: what its colours and markers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Shape = Literal["circle", "square", "triangle", "diamond", "triangle-down", "cross", "dashes", "patch"]
"""A marker on a line, a dashed line, or a patch of colour."""


@dataclass(frozen=True)
class LegendItem:
    """One colour or marker and its meaning."""

    label: str
    colour: str
    shape: Shape = "patch"


@dataclass(frozen=True)
class Legend:
    """The items of a legend in their order; `hint` says how to read them."""

    title: str
    items: Sequence[LegendItem]
    hint: str = ""
