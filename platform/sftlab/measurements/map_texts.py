"""Which texts are scored for the map of models: questions, and questions with their answers in the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from sftlab.datasets.conversations import exchange
from sftlab.datasets.rendered import Specials, Template
from sftlab.measurements.likelihood import Continuation

MapText = Literal["question", "answer"]
MAP_TEXTS: tuple[MapText, ...] = get_args(MapText)
"""question: the text of a question alone; answer: question and first accepted answer, in the survey's template."""


def map_rows(
    template: Template,
    specials: Specials,
    questions: Mapping[str, Sequence[Mapping[str, Any]]],
    texts: Sequence[MapText],
) -> Iterator[Continuation]:
    """Every text of every question of the benchmarks, whole. Keys are `TEXT/BENCHMARK/QUESTION_ID`.

    The first token of a text has a probability only after another token: the beginning-of-sequence token, or that of
    the end of a sequence where the tokenizer has no other.
    """
    for text in texts:
        for benchmark, rows in questions.items():
            for row in rows:
                key = f"{text}/{benchmark}/{row['question_id']}"
                if text == "question":
                    yield _whole(key, row["question"], specials.has_bos, specials)
                    continue
                rendered = template.render(exchange(row["question"], row["accepted"][0]))
                yield _whole(key, rendered.text[: rendered.spans[-1].close], rendered.bos, specials)


def _whole(key: str, text: str, bos: bool, specials: Specials) -> Continuation:
    """A text after its first token, where that is a special one, or after one that is put before it."""
    if bos:
        return Continuation(key, "", text)
    start = specials.at_start(text)
    return Continuation(key, start or specials.eos, text[len(start) :], bos=False)
