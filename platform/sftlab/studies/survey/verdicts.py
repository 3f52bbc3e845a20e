"""Tests the claims about a survey and puts each into a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sftlab.analysis.decisions import decide, word, word_of_published_test
from sftlab.analysis.effects import Effect
from sftlab.analysis.gains import TREATMENTS
from sftlab.analysis.statistics import holm
from sftlab.studies.survey.claim_tests import Measured, NotDefined, measure
from sftlab.studies.survey.claims import Claim
from sftlab.studies.survey.survey import Survey


@dataclass(frozen=True)
class Outcome:
    """What became of a claim.

    Attributes:
        effects, corrected, words: by treatment. Without effects the claim is not defined here, for `reason`.
        published_p: by treatment, p of the test that the claim was published with.
    """

    claim: Claim
    unit: str
    effects: Mapping[str, Effect] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    published_p: Mapping[str, float] = field(default_factory=dict)
    word: str = ""
    reason: str = ""


def judge(
    survey: Survey, claims: Sequence[Claim], progress: Callable[[int, int, str], None] | None = None
) -> list[Outcome]:
    """Test every claim in every treatment, correct p by Holm, and decide."""
    measured: list[tuple[Claim, Measured | str]] = []
    for number, claim in enumerate(claims):
        try:
            measured.append((claim, measure(survey, claim)))
        except NotDefined as error:
            measured.append((claim, str(error)))
        if progress:
            progress(number + 1, len(claims), claim.id)
    corrected = _corrected(measured)
    return [
        Outcome(claim, "", reason=found) if isinstance(found, str) else _outcome(claim, found, p_values)
        for (claim, found), p_values in zip(measured, corrected, strict=True)
    ]


def _corrected(measured: Sequence[tuple[Claim, Measured | str]]) -> list[dict[str, float]]:
    """Holm-corrected p values by claim and treatment, over the claims of the same question in the same treatment."""
    result: list[dict[str, float]] = [{} for _ in measured]
    questions = dict.fromkeys(claim.question for claim, _ in measured)
    for question in questions:
        for name in TREATMENTS:
            here = {
                number: found.effects[name].p
                for number, (claim, found) in enumerate(measured)
                if claim.question == question and isinstance(found, Measured) and name in found.effects
            }
            for number, p in zip(here, holm(list(here.values())), strict=True):
                result[number][name] = p
    return result


def _outcome(claim: Claim, found: Measured, corrected: Mapping[str, float]) -> Outcome:
    words = {
        name: word(effect, corrected[name], claim.predicts, claim.margin)
        for name, effect in found.effects.items()
    }
    published = {
        name: word_of_published_test(found.effects[name], p, claim.predicts)
        for name, p in found.published_p.items()
    }
    return Outcome(
        claim,
        found.unit,
        found.effects,
        corrected,
        words,
        found.published_p,
        decide(words, found.effects, published),
    )
