"""Sections of a report, and the findings that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sftlab.reporting.finding import Finding
from sftlab.reporting.table import Table

NOT_MEASURED = "Not measured."  # what a section without data says


@dataclass(frozen=True)
class Section:
    """One section; `see` says in a sentence or two what to look at, from the numbers."""

    id: str
    title: str
    see: str
    figures: Sequence[str] = ()
    tables: Sequence[Table] = ()
    data: Sequence[str] = ()  # names of result tables to offer as CSV
    findings: Sequence[Finding] = ()
    legend: bool = False  # whether it has one
    rings: bool = False  # the legend explains the rings of the choice
    small: bool = False  # many small figures


def findings_of(findings: Sequence[Finding], section: str) -> list[Finding]:
    return [found for found in findings if found.section == section]


def present(*parts: Any) -> list[Any]:
    return [part for part in parts if part is not None]
