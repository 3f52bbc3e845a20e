"""Which texts are scored for the perplexity of a set, and for the choices of a benchmark, in the survey's template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sftlab.datasets.conversations import Conversation, Turn, question
from sftlab.datasets.rendered import Template
from sftlab.measurements.likelihood import Continuation

RESPONSE, FULL = "response", "full"


def perplexity_rows(template: Template, examples: Iterable[Conversation]) -> Iterator[Continuation]:
    """Every trained response after what comes before it, with its closing token, and every whole text.

    Keys are `response/EXAMPLE/SPAN` and `full/EXAMPLE`. Whole texts are scored where the template begins with the
    beginning-of-sequence token: without one, the first token of a text has no probability.
    """
    for number, example in enumerate(examples):
        rendered = template.render(example)
        for place, span in enumerate(rendered.spans):
            before, response = rendered.text[: span.start], rendered.text[span.start : span.end]
            closing = span.end - span.close
            yield Continuation(f"{RESPONSE}/{number}/{place}", before, response, rendered.bos, closing)
        if rendered.bos:
            yield Continuation(f"{FULL}/{number}", "", rendered.text, True)


def choice_rows(
    template: Template, questions: Sequence[Mapping[str, Any]], shots: Sequence[tuple[str, str]] = ()
) -> Iterator[Continuation]:
    """Every choice of every question that has choices, as the response to it without a closing token.

    shots: question and answer of examples that come before each question. Keys are `QUESTION_ID/PLACE`.
    """
    for row in questions:
        for place, choice in enumerate(row["choices"] or ()):
            asked = question(row["question"], shots).turns
            rendered = template.render(Conversation((*asked, Turn("assistant", choice, loss=True))))
            (span,) = rendered.spans
            before, response = rendered.text[: span.start], rendered.text[span.start : span.close]
            yield Continuation(f"{row['question_id']}/{place}", before, response, rendered.bos)


def chosen(likelihoods: Iterable[Mapping[str, Any]]) -> dict[str, int | None]:
    """By question the place of the choice with the largest log-likelihood, the first of equal ones.

    None where a choice could not be scored. Takes rows of `likelihood_schema` with keys of `choice_rows`.
    """
    found: dict[str, list[float | None]] = {}
    for row in likelihoods:
        question, _, place = str(row["key"]).rpartition("/")
        values = found.setdefault(question, [])
        assert int(place) == len(values), "choices are in the order of their places"
        values.append(row["log_likelihood"])
    return {
        question: None
        if None in values
        else max(range(len(values)), key=lambda place: (values[place], -place))
        for question, values in found.items()
    }
