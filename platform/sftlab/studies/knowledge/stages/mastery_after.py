"""Mastery of the test facts by tuned and restored models: forgetting, or a lost form of answers."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.analysis.accuracy import accuracy_by_bucket, mean_of_buckets
from sftlab.facts.table import read_facts
from sftlab.facts.templates import read_topics
from sftlab.measurements.mastery import check_rows, mastery_schema
from sftlab.measurements.mastery_again import MASTERY, MasteryAgain
from sftlab.store.artifact import DAMAGED
from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.strategies import edit_for
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.prices import AFTER_SPLITS
from sftlab.studies.knowledge.results.answer_rows import MasteryAfterRow
from sftlab.studies.knowledge.results.choice import DEV, DEV_SPLITS, best_percent, dev_scores
from sftlab.studies.knowledge.spec import CHOSEN
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.evaluation import read_answers
from sftlab.studies.knowledge.stages.mastery import buckets_of, read_mastery
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.inference.evaluator import EvaluationItem

Before = Mapping[str, Mapping[str, tuple[float, int]]]


def build_mastery_after(build: KnowledgeBuild) -> None:
    """Score the missing models with as few engine starts as possible; each is committed as it is finished.

    A chosen percentage that is also listed is scored once.
    """
    from sftlab.inference.evaluator import EvaluationRequest, evaluate_with_engines

    steps, items, same = _missing(build)
    request = EvaluationRequest(
        items,
        str(build.model_folder),
        build.plan.spec.engine,
        build.store.root / "sessions",  # without a comparison it stays empty
        build.store.root / DAMAGED,
    )

    def commit(item: EvaluationItem) -> None:
        build.commit(steps[item.id])

    if items:
        with build.progress.bar("scoring mastery after tuning") as bar:
            evaluate_with_engines(
                request,
                build.runtime.engine,
                progress=lambda p: bar.update(p.items_done, p.items, f"{p.rows_per_second:,.1f} facts/s"),
                finished=commit,
            )
    for step, listed in same:
        folder = build.path(step)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build.read(listed, MASTERY), folder / MASTERY)
        build.commit(step)


def _missing(build: KnowledgeBuild) -> tuple[dict[str, Step], list[EvaluationItem], list[tuple[Step, Step]]]:
    """The missing steps by item id, the models to score, and chosen steps that are as a listed one."""
    import pyarrow as pa

    from sftlab.inference.evaluator import EvaluationItem

    plan, base = build.plan, str(build.model_folder)
    folder = build.read(plan.facts)
    facts = pa.concat_tables([read_facts(folder, split) for split in AFTER_SPLITS])
    again = MasteryAgain(facts, read_topics(folder), plan.spec.mastery)
    steps: dict[str, Step] = {}
    items: list[EvaluationItem] = []
    same: list[tuple[Step, Step]] = []
    for cell in plan.cells:
        for at, step in cell.mastery_after.items():
            if not build.missing(step):
                continue
            percent = percent_of(build, cell, at)
            if at == CHOSEN and percent in cell.mastery_after:
                same.append((step, cell.mastery_after[percent]))
                continue
            edit = edit_for(plan.spec.restore, percent, read_change(build, cell).cuts)
            source = ModelSource(base, str(build.tuned_model(cell)), edit)
            steps[step.id[:16]] = step
            items.append(EvaluationItem(step.id[:16], source, {MASTERY: again}, build.path(step)))
    return steps, items, same


def percent_of(build: KnowledgeBuild, cell: Cell, at: float | str) -> float:
    """What a key of `Cell.mastery_after` means: CHOSEN is the percentage with the best dev score of the run."""
    if not isinstance(at, str):
        return at
    buckets = {split: buckets_of(build, split) for split in DEV_SPLITS}
    scores: dict[str, dict[float, float]] = defaultdict(dict)
    for percent, step in cell.evaluations.items():
        answers = read_answers(build, step)
        for split in DEV_SPLITS:
            if split in answers:
                found = accuracy_by_bucket(answers[split], buckets[split])
                scores[split][percent] = mean_of_buckets(found).accuracy
    return best_percent(dev_scores(cell.name, scores, build.plan.spec.metric or DEV))


def read_mastery_after(build: KnowledgeBuild, step: Step) -> pa.Table:
    """The mastery of one model (`mastery_schema`). Raises as `read_table` does."""
    return read_table(build.read(step, MASTERY), mastery_schema(), check_rows)


def mastery_before(build: KnowledgeBuild) -> Before:
    """R and bucket of the base model by split and fact id; facts that could not be scored have none."""
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for split in AFTER_SPLITS:
        table = read_mastery(build, split, ["fact_id", "r", "bucket"]).to_pydict()
        rows = zip(table["fact_id"], table["r"], table["bucket"], strict=True)
        found[split] = {fact: (r, bucket) for fact, r, bucket in rows if bucket is not None}
    return found


def mastery_after_rows(
    cell: str, percent: float, after: pa.Table, answers: Mapping[str, pa.Table], before: Before
) -> list[MasteryAfterRow]:
    """The rows of one model by split and bucket of the base model; facts that either could not be scored are left out.

    after: its mastery. answers: its answers by split; a question that could not be asked is wrong.
    """
    columns = after.to_pydict()
    now = {
        fact: (r, bucket)
        for fact, r, bucket in zip(columns["fact_id"], columns["r"], columns["bucket"], strict=True)
        if bucket is not None
    }
    rows = []
    for split in AFTER_SPLITS:
        if split not in answers:
            continue
        of_bucket: dict[int, list[tuple[float, float, int, bool]]] = defaultdict(list)
        pairs = zip(answers[split]["fact_id"].to_pylist(), answers[split]["correct"].to_pylist(), strict=True)
        for fact, correct in pairs:
            if fact in before[split] and fact in now:
                (r, bucket), (r_now, bucket_now) = before[split][fact], now[fact]
                of_bucket[bucket].append((r, r_now, bucket_now, correct is True))
        rows += [_row((cell, percent, split, bucket), found) for bucket, found in sorted(of_bucket.items())]
    return rows


def _row(
    key: tuple[str, float, str, int], facts: Sequence[tuple[float, float, int, bool]]
) -> MasteryAfterRow:
    bucket, number = key[3], len(facts)
    counts: dict[tuple[bool, bool], int] = defaultdict(int)
    for _, r, _, right in facts:
        counts[right, r > 0] += 1
    numbers: dict[str, Any] = {
        "lower": sum(now < bucket for _, _, now, _ in facts),
        "higher": sum(now > bucket for _, _, now, _ in facts),
        "right_known": counts[True, True],
        "right_unknown": counts[True, False],
        "wrong_known": counts[False, True],
        "wrong_unknown": counts[False, False],
    }
    means = sum(r for r, _, _, _ in facts) / number, sum(r for _, r, _, _ in facts) / number
    return MasteryAfterRow(*key, number, *means, **numbers)
