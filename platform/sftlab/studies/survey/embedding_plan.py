"""The steps of mean embeddings of training sets and benchmarks: one for each base and collection of texts."""

from __future__ import annotations

from collections.abc import Mapping

from sftlab.store.record import Step
from sftlab.studies.survey.models import step_of

Text = tuple[str, int | None]
"""A training set with its size, or a benchmark with None."""


def embedding_steps(
    base: str, base_id: str, sets: Mapping[tuple[str, int], Step], questions: Mapping[str, Step]
) -> dict[Text, Step]:
    """The steps of one base; a benchmark and its few-shot form, which have the same questions, share one."""
    texts: dict[Text, Step] = {(name, size): step for (name, size), step in sets.items()}
    texts |= {(name, None): step for name, step in questions.items()}
    return {
        text: step_of("embedding", f"{base}-{slug_of(text)}", {}, {"model": base_id, "texts": step.id})
        for text, step in texts.items()
    }


def slug_of(text: Text) -> str:
    """A set and its size, or a benchmark, as a name."""
    name, size = text
    return name if size is None else f"{name}-n{size}"
