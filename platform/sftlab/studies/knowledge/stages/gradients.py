"""Where a study asks for it, between stages 8 and 9: gradients of facts at the base model, and what they predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.facts.mastery import BUCKETS
from sftlab.facts.prompts import answer_target, question_prompt
from sftlab.facts.table import read_facts
from sftlab.facts.training_sets import DrawRule, draw_training_set
from sftlab.store.record import Step
from sftlab.store.rows import read_rows, schema_of
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.results.gradient_rows import (
    ForgettingRow,
    GradientRow,
    PredictedRow,
    RestoredGradientRow,
    forgetting_rows,
    gradient_rows,
    predicted_rows,
    restored_rows,
)
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.mastery import buckets_of
from sftlab.studies.knowledge.stages.training_sets import training_file
from sftlab.weights.cut import percent_label

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.measurements.fact_gradients import GradientJob, Products

GRADIENTS, RESTORED, PREDICTED = "gradients.parquet", "restored.parquet", "predicted.parquet"
SPLITS = ("test", "test_ood")
WELL_MASTERED = BUCKETS[-1]
CPUS = 2  # of a local Ray, which counts each core twice


@dataclass(frozen=True)
class Asked:
    """The test facts whose gradients are measured.

    sample: split and fact id of the facts that are compared, and their bucket. predicted: of those whose loss after
    fine-tuning is predicted. texts: prompt and target.
    """

    sample: Mapping[tuple[str, str], int]
    predicted: Sequence[tuple[str, str]]
    texts: Mapping[tuple[str, str], tuple[str, str]]

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys([*self.sample, *self.predicted]))

    @property
    def buckets(self) -> list[int]:
        return list(self.sample.values())

    @property
    def known(self) -> list[int]:
        """The rows of the sample that are well mastered."""
        return [row for row, bucket in enumerate(self.buckets) if bucket == WELL_MASTERED]


def build_gradients(build: KnowledgeBuild) -> None:
    """Measure the base model and every tuned model that is missing, each in a Ray task."""
    import ray

    from sftlab.inference.actors import result
    from sftlab.measurements.fact_gradients import measure

    plan, training = build.plan, build.runtime.training
    wanted = {step.id for step in build.missing(*plan.gradients)}
    asked = read_asked(build)
    task = ray.remote(measure).options(num_cpus=CPUS, num_gpus=training.gpus_per_worker)
    running: dict[Any, Cell | None] = {}
    if plan.base_gradients is not None and plan.base_gradients.id in wanted:
        running[task.remote(job_of(build, asked, None))] = None
    for cell in plan.cells:
        if cell.gradients is not None and cell.gradients.id in wanted:
            running[task.remote(job_of(build, asked, cell))] = cell
    with build.progress.bar("gradients of facts") as bar:
        for done in range(len(running)):
            (ready,), _ = ray.wait(list(running), num_returns=1)
            model = running.pop(ready)
            _commit(build, asked, model, result(ready))
            bar.update(done + 1, done + 1 + len(running), "base" if model is None else model.name)


def read_asked(build: KnowledgeBuild) -> Asked:
    """Draw the facts that a study asks for, with their texts."""
    spec = build.plan.spec.gradients
    assert spec is not None
    folder = build.read(build.plan.facts)
    texts: dict[tuple[str, str], tuple[str, str]] = {}
    predicted: list[tuple[str, str]] = []
    sample: dict[tuple[str, str], int] = {}
    for split in SPLITS:
        table, buckets = read_facts(folder, split), buckets_of(build, split)
        if split == "test":
            for bucket in BUCKETS:
                drawn = _draw(table, buckets, bucket, spec.facts, spec.seed)
                sample |= {(split, fact): bucket for fact in drawn}
        predicted += [
            (split, fact) for fact in _draw(table, buckets, WELL_MASTERED, spec.questions, spec.seed)
        ]
        columns = (table[name].to_pylist() for name in ("fact_id", "question", "object"))
        texts |= {
            (split, fact): (question_prompt(question), answer_target(answer))
            for fact, question, answer in zip(*columns, strict=True)
        }
    return Asked(sample, predicted, texts)


def _draw(table: pa.Table, buckets: Mapping[str, int], bucket: int, count: int, seed: int) -> list[str]:
    """At most `count` facts of a bucket."""
    topic_of = dict(zip(table["fact_id"].to_pylist(), table["topic"].to_pylist(), strict=True))
    there = sum(buckets.get(fact) == bucket for fact in topic_of)
    if not there:
        return []
    return draw_training_set(topic_of, buckets, bucket, min(count, there), seed, DrawRule("none"))


def job_of(build: KnowledgeBuild, asked: Asked, cell: Cell | None) -> GradientJob:
    """What is measured of the base model (None), or for a cell whose change is committed."""
    from sftlab.measurements.fact_gradients import GradientJob, Trained

    training = build.runtime.training
    facts = list(asked.sample) if cell is None else asked.facts
    trained = None
    if cell is not None:
        assert build.plan.spec.gradients is not None
        cut = read_change(build, cell).cuts[percent_label(build.plan.spec.gradients.percent)]
        trained = Trained(str(build.tuned_model(cell)), training_file(build, cell), cell.sft, cut)
    return GradientJob(
        str(build.model_folder),
        [asked.texts[fact] for fact in facts],
        asked.known if cell is None else (),
        trained,
        training.threads,
        bool(training.gpus_per_worker),
    )


def _commit(build: KnowledgeBuild, asked: Asked, cell: Cell | None, found: Products) -> None:
    if cell is None:
        step = build.plan.base_gradients
        assert step is not None
        _write(build, step, GRADIENTS, gradient_rows(found, asked.buckets, asked.known), GradientRow)
    else:
        step, spec = cell.gradients, build.plan.spec.gradients
        assert step is not None and spec is not None
        sample = dict(enumerate(asked.buckets))
        restored = restored_rows(cell.name, spec.percent, found, sample)
        _write(build, step, RESTORED, restored, RestoredGradientRow)
        numbers = {fact: row for row, fact in enumerate(asked.facts)}
        predicted = predicted_rows(found, {numbers[fact]: fact for fact in asked.predicted})
        _write(build, step, PREDICTED, predicted, PredictedRow)
    build.commit(step)


def _write(build: KnowledgeBuild, step: Step, name: str, rows: Sequence[Any], kind: type[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file: Path = build.path(step) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema=schema_of(kind)), file)


def base_gradient_rows(build: KnowledgeBuild) -> list[GradientRow]:
    """The committed gradients at the base model; none where the study does not measure them."""
    step = build.plan.base_gradients
    return [] if step is None else list(read_rows(build.read(step, GRADIENTS), GradientRow))


def cell_gradient_rows(
    build: KnowledgeBuild, cell: Cell, tuned: Mapping[str, pa.Table]
) -> tuple[list[RestoredGradientRow], list[ForgettingRow]]:
    """The committed gradients of a cell, and how well they predict what its tuned model forgot.

    tuned: the answers of the tuned model, by split. A question that could not be asked is wrong.
    """
    step = cell.gradients
    if step is None:
        return [], []
    right = {
        split: {
            fact: correct is True
            for fact, correct in zip(
                tuned[split]["fact_id"].to_pylist(), tuned[split]["correct"].to_pylist(), strict=True
            )
        }
        for split in SPLITS
        if split in tuned
    }
    predicted = [row for row in read_rows(build.read(step, PREDICTED), PredictedRow) if row.split in right]
    restored = list(read_rows(build.read(step, RESTORED), RestoredGradientRow))
    return restored, forgetting_rows(cell.name, predicted, right)
