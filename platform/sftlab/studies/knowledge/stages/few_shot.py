"""The ceiling of the base model: its answers to the test questions where solved questions of the topic come first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.analysis.accuracy import accuracy_by_bucket, mean_of_buckets
from sftlab.facts.few_shot import examples_by_topic
from sftlab.facts.prompts import solved
from sftlab.facts.table import read_facts
from sftlab.measurements.answers import ANSWERS, ClosedBookAnswers
from sftlab.store.artifact import DAMAGED
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.results.answer_rows import FewShotRow
from sftlab.studies.knowledge.stages.evaluation import read_answers
from sftlab.studies.knowledge.stages.mastery import buckets_of
from sftlab.studies.knowledge.stages.topics import KNOWN_FROM
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    from sftlab.inference.evaluator import EvaluationItem


def build_few_shot(build: KnowledgeBuild) -> None:
    """Ask the base model the test questions of all topics that have enough examples."""
    from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest, evaluate_with_engines

    step, base = build.plan.few_shot, str(build.model_folder)
    assert step is not None
    item = EvaluationItem(step.id[:16], ModelSource(base), {ANSWERS: asked_of(build)}, build.path(step))
    sessions = build.store.root / "sessions"  # without a comparison it stays empty
    request = EvaluationRequest([item], base, build.plan.spec.engine, sessions, build.store.root / DAMAGED)

    def commit(_: EvaluationItem) -> None:
        build.commit(step)

    with build.progress.bar("answering after examples") as bar:
        evaluate_with_engines(
            request,
            build.runtime.engine,
            progress=lambda p: bar.update(p.items_done, p.items, f"{p.rows_per_second:,.0f} answers/s"),
            finished=commit,
        )


def asked_of(build: KnowledgeBuild) -> ClosedBookAnswers:
    """The questions with their examples, which are facts of the splits KNOWN_FROM."""
    import pyarrow as pa
    import pyarrow.compute as pc

    spec, folder = build.plan.spec, build.read(build.plan.facts)
    assert spec.few_shot is not None
    facts: dict[str, pa.Table] = {}
    examples: dict[str, str] = {}
    for split, source in KNOWN_FROM.items():
        table = read_facts(folder, split)
        questions = set(table["question"].to_pylist())
        known = read_facts(folder, source).to_pylist()
        found = examples_by_topic(known, questions, spec.few_shot.shots, spec.few_shot.seed)
        facts[split] = table.filter(pc.is_in(table["topic"], pa.array(list(found), pa.string())))
        examples |= {topic: solved(pairs) for topic, pairs in found.items()}
    return ClosedBookAnswers(facts, spec.answers, examples)


def few_shot_rows(build: KnowledgeBuild) -> list[FewShotRow]:
    """The committed accuracies by split and bucket, and their mean; none where the study does not ask for them."""
    step, asked = build.plan.few_shot, build.plan.spec.few_shot
    if step is None or asked is None:
        return []
    rows = []
    for split, answers in read_answers(build, step).items():
        buckets = accuracy_by_bucket(answers, buckets_of(build, split))
        for found in buckets:
            if found.accuracy is not None:
                counts = found.questions, found.correct, found.accuracy
                rows.append(FewShotRow(asked.shots, split, found.bucket, *counts))
        mean = mean_of_buckets(buckets)
        rows.append(FewShotRow(asked.shots, split, None, mean.questions, mean.correct, mean.accuracy))
    return rows
