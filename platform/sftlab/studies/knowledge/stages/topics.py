"""Accuracy of every model by topic, with the majority answer and the frequency of answers as baselines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.analysis.topic_baselines import baseline, frequencies, frequency_correlation
from sftlab.facts.table import read_facts
from sftlab.studies.knowledge.results.answer_rows import TopicBaselineRow, TopicRow
from sftlab.studies.knowledge.stages.fates import Keys

if TYPE_CHECKING:
    import pyarrow as pa

KNOWN_FROM = {
    "test": "train",
    "test_ood": "dev_ood",
}  # whose answers are known: topics out of domain have no train facts


@dataclass(frozen=True)
class TopicAnswers:
    """The answers of a split's facts, and those of the split KNOWN_FROM. By topic.

    objects: the answers that are known. accepted: accepted names by fact id. frequency: of a fact's answer, by fact id.
    """

    objects: Mapping[str, Sequence[str]]
    accepted: Mapping[str, Mapping[str, Sequence[str]]]
    frequency: Mapping[str, int]


@lru_cache(maxsize=4)
def read_topic_answers(folder: Path) -> Mapping[str, TopicAnswers]:
    """By split. Read once for all variants of a sweep; a committed folder never changes."""
    return {
        split: topic_answers(read_facts(folder, split), read_facts(folder, source))
        for split, source in KNOWN_FROM.items()
    }


def topic_answers(asked: pa.Table, known: pa.Table) -> TopicAnswers:
    """asked, known: tables of facts."""
    objects: dict[str, list[str]] = defaultdict(list)
    for topic, name in zip(known["topic"].to_pylist(), known["object"].to_pylist(), strict=True):
        objects[topic].append(name)
    accepted: dict[str, dict[str, Sequence[str]]] = defaultdict(dict)
    columns = (asked[name].to_pylist() for name in ("fact_id", "topic", "accepted"))
    for fact, topic, names in zip(*columns, strict=True):
        accepted[topic][fact] = names
    found: dict[str, int] = {}
    for topic, facts in accepted.items():
        numbers = frequencies(Counter(objects.get(topic, ())), list(facts.values()))
        found |= dict(zip(facts, numbers, strict=True))
    return TopicAnswers(objects, accepted, found)


def baseline_rows(answers: Mapping[str, TopicAnswers], keys: Keys) -> list[TopicBaselineRow]:
    """The baselines of every topic with known answers, over its facts that have a bucket."""
    rows = []
    for split, source in KNOWN_FROM.items():
        of = answers[split]
        for topic, facts in sorted(of.accepted.items()):
            objects = of.objects.get(topic, ())
            asked = [names for fact, names in facts.items() if fact in keys[split]]
            found = baseline(objects, asked)
            if found is not None:
                share = found.majority_right / len(asked)
                rows.append(
                    TopicBaselineRow(
                        split,
                        topic,
                        len(asked),
                        source,
                        len(objects),
                        found.majority,
                        share,
                        found.frequency_accuracy,
                    )
                )
    return rows


def topic_rows(
    cell: str,
    percent: float | None,
    given: Mapping[str, pa.Table],
    keys: Keys,
    answers: Mapping[str, TopicAnswers],
) -> list[TopicRow]:
    """The rows of one model, by split and topic; facts without a bucket are left out.

    given: the model's answers by split. A question that could not be asked is wrong.
    """
    rows = []
    for split, of in answers.items():
        if split not in given:
            continue
        verdicts: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        columns = (given[split][name].to_pylist() for name in ("fact_id", "correct"))
        for fact, correct in zip(*columns, strict=True):
            if fact in keys[split]:
                verdicts[keys[split][fact][0]].append((of.frequency[fact], correct is True))
        for topic, pairs in sorted(verdicts.items()):
            numbers, right = zip(*pairs, strict=True)
            rho = frequency_correlation(numbers, right)
            rows.append(TopicRow(cell, percent, split, topic, len(pairs), sum(right), rho))
    return rows
