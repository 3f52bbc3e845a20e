"""Finished studies and sweeps of several base models on one page; they must ask the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftlab.config.leaves import flat
from sftlab.errors import Place, UserError
from sftlab.files import write_text
from sftlab.store.record import Step
from sftlab.studies.knowledge.results.tables import Results


@dataclass(frozen=True)
class OfModel:
    """The results of one base model: the file of the study or sweep, and the step of its facts."""

    file: Path
    facts: Step
    results: Results


def write_models_page(found: Sequence[OfModel], page: Path) -> None:
    """Render the page of two or more base models. Raises UserError where their questions differ."""
    from sftlab.studies.knowledge.report.models_page import render_models

    for other in found[1:]:
        require_same_questions(found[0], other)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, render_models([one.results for one in found]))


def require_same_questions(first: OfModel, other: OfModel) -> None:
    """Raises UserError with the first difference where two results are about other facts."""
    if first.facts.id == other.facts.id:
        return
    mine, theirs = (
        dict(flat({"facts": step.spec, "file": step.inputs, "revision": step.revision}))
        for step in (first.facts, other.facts)
    )
    name = next(key for key in sorted(mine | theirs) if mine.get(key) != theirs.get(key))
    raise UserError(
        f"{theirs.get(name, 'unset')} makes other questions than those of {first.file}",
        place=Place(str(other.file), field=name, unit="key"),
        value=theirs.get(name),
        expected=str(mine.get(name, "unset")),
        advice="compare results about the same facts and splits.",
    )
