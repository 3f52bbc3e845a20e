"""Verdicts on free-text answers of benchmarks: how right an answer is, and whether it has the form that was asked for.

Answers and accepted texts are compared after normalisation as in SQuAD (Rajpurkar et al. 2016): NFC, lower case,
without punctuation, without the articles a, an, the, with single blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from sftlab.datasets.benchmark_file import Metric

_ARTICLES = {"a", "an", "the"}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def normalized(text: str) -> str:
    """A text as verdicts compare it."""
    folded = unicodedata.normalize("NFC", text).casefold()
    spaced = "".join(" " if unicodedata.category(sign).startswith("P") else sign for sign in folded)
    return " ".join(word for word in spaced.split() if word not in _ARTICLES)


def score(answer: str, accepted: Sequence[str], metric: Metric) -> float:
    """How right an answer is, in [0, 1]; with several accepted texts the best counts.

    exact: equal after normalisation. contains: an accepted text is a run of whole words of the answer. number: the
    last number of the answer equals the accepted number, whatever its commas and trailing zeros. f1: harmonic mean of
    precision and recall of words, counted with multiplicity. rouge-l: the same of their longest common subsequence
    (Lin 2004).
    """
    return max((_score(answer, text, metric) for text in accepted), default=0.0)


def in_form(answer: str, metric: Metric, form: str | None = None) -> bool:
    """Whether an answer has the form that was asked for, right or wrong.

    form: a regular expression that some part of the answer matches. Without one, a `number` has to hold a number, and
    every other answer a letter or digit.
    """
    if form is not None:
        return re.search(form, answer) is not None
    if metric == "number":
        return last_number(answer) is not None
    return any(sign.isalnum() for sign in answer)


def last_number(text: str) -> float | None:
    """The last number of a text; a comma between digits separates thousands."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _score(answer: str, accepted: str, metric: Metric) -> float:
    if metric == "number":
        number = last_number(answer)
        return float(number is not None and number == last_number(accepted))
    given, wanted = normalized(answer), normalized(accepted)
    if metric == "exact":
        return float(given == wanted)
    if metric == "contains":
        return float(bool(wanted) and f" {wanted} " in f" {given} ")
    words, others = given.split(), wanted.split()
    if not words or not others:
        return float(words == others)
    common = _subsequence(words, others) if metric == "rouge-l" else _shared(words, others)
    return 2 * common / (len(words) + len(others))


def _shared(given: Sequence[str], wanted: Sequence[str]) -> int:
    """Words that two texts share, counted with multiplicity."""
    return sum((Counter(given) & Counter(wanted)).values())


def _subsequence(given: Sequence[str], wanted: Sequence[str]) -> int:
    """Length of the longest common subsequence; `longest[i]`: that of the words so far and the first i wanted ones."""
    longest = [0] * (len(wanted) + 1)
    for word in given:
        before = 0  # longest[i] of the words before `word`
        for i, other in enumerate(wanted):
            before, longest[i + 1] = (
                longest[i + 1],
                before + 1 if word == other else max(longest[i], longest[i + 1]),
            )
    return longest[-1]
