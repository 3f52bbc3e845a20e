"""Kinds of the answers of every model, counted by topic and bucket; computed from the answers that the store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.analysis.answer_kinds import Kind, kind_of, kinds_by
from sftlab.facts.table import SPLITS, read_facts
from sftlab.measurements.verdicts import normalized
from sftlab.studies.knowledge.results.answer_rows import AnswerKindRow
from sftlab.studies.knowledge.stages.fates import FATE_SPLITS, Keys

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_TEXTS = 2**16  # normalised answers; models answer alike

_normalized = lru_cache(maxsize=KEPT_TEXTS)(normalized)


@dataclass(frozen=True)
class TopicNames:
    """Normalised names of the answers: those accepted for a fact, by its id, and those of all facts of its topic."""

    accepted: Mapping[str, frozenset[str]]
    entities: Mapping[str, frozenset[str]]
    topics: Mapping[str, str]

    def kind(self, fact: str, answer: str | None, correct: bool | None) -> Kind:
        """The kind of an answer to a fact of the study."""
        if correct:
            return "right"
        text = _normalized(answer) if answer and any(sign.isalnum() for sign in answer) else None
        return kind_of(text, correct, self.accepted[fact], self.entities[self.topics[fact]])


def names_of(facts: Sequence[pa.Table]) -> TopicNames:
    """The names of all splits' facts."""
    accepted: dict[str, frozenset[str]] = {}
    topics: dict[str, str] = {}
    entities: dict[str, set[str]] = {}
    for table in facts:
        columns = (table[name].to_pylist() for name in ("fact_id", "topic", "accepted"))
        for fact, topic, names in zip(*columns, strict=True):
            if fact not in accepted:
                accepted[fact] = frozenset(_normalized(name) for name in names) - {""}
                topics[fact] = topic
                entities.setdefault(topic, set()).update(accepted[fact])
    return TopicNames(accepted, {topic: frozenset(names) for topic, names in entities.items()}, topics)


@lru_cache(maxsize=4)
def read_names(folder: Path) -> TopicNames:
    """The names of a facts folder. Read once for all variants of a sweep; a committed folder never changes."""
    return names_of([read_facts(folder, split) for split in SPLITS])


def answer_kind_rows(
    cell: str, percent: float | None, answers: Mapping[str, pa.Table], keys: Keys, names: TopicNames
) -> list[AnswerKindRow]:
    """The rows of one model, by split, topic and bucket; facts without a bucket are left out."""
    rows = []
    for split in FATE_SPLITS:
        if split not in answers:
            continue
        columns = (answers[split][name].to_pylist() for name in ("fact_id", "answer", "correct"))
        facts, texts, verdicts = columns
        kinds = (names.kind(*answered) for answered in zip(facts, texts, verdicts, strict=True))
        found = kinds_by(kinds, [keys[split].get(fact) for fact in facts])
        rows += [
            AnswerKindRow(cell, percent, split, topic, bucket, *counts)
            for (topic, bucket), counts in sorted(found.items())
        ]
    return rows
