"""Stage 9: the result tables, gathered from the committed steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.analysis.accuracy import accuracy_by_bucket, paired_by_bucket
from sftlab.analysis.divergence import first_token_kl
from sftlab.facts.mastery import BUCKETS
from sftlab.facts.table import SPLITS
from sftlab.measurements.tables import read_answer_table, read_logits
from sftlab.store.provenance import package_versions
from sftlab.store.record import Step
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import EVALUATION_SPLITS, Cell
from sftlab.studies.knowledge.report.buckets import RESTORE, state_words
from sftlab.studies.knowledge.report.ties import nothing_gained, study_tie
from sftlab.studies.knowledge.results.choice import choose
from sftlab.studies.knowledge.results.tables import (
    AccuracyRow,
    CellRow,
    ConcentrationRow,
    DistributionRow,
    DivergenceRow,
    MasteryRow,
    PairedRow,
    StudyResults,
    TrainingRow,
    accuracy_rows,
    paired_rows,
)
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.evaluation import TRAIN_SET
from sftlab.studies.knowledge.stages.mastery import buckets_of, read_mastery
from sftlab.training.records import COMMIT_FILE, read_commit

if TYPE_CHECKING:
    import pyarrow as pa

Buckets = Mapping[str, Mapping[str, int]]


def build_results(build: KnowledgeBuild) -> None:
    """Gather, choose on dev, and write the tables that tracking and the report read."""
    plan = build.plan
    gather([(build, cell) for cell in plan.cells], plan.spec.name).write(build.path(plan.results))
    build.commit(plan.results)


def gather(found: Sequence[tuple[KnowledgeBuild, Cell]], name: str, metric: str = "dev") -> StudyResults:
    """The tables of finished cells of one base model and one set of facts, each with the build it belongs to.

    A cell that is given twice, with other percentages, is one cell of the tables. `metric` chooses the percentages.
    """
    build = found[0][0]
    plan = build.plan
    buckets: dict[str, dict[str, int]] = {split: buckets_of(build, split) for split in SPLITS}
    buckets[TRAIN_SET] = buckets["train"]
    accuracy = accuracy_of(build, None, None, plan.base_evaluation, buckets)
    paired: list[PairedRow] = []
    cells, divergence, concentration, distribution, training = [], [], [], [], []
    for build, cell in found:
        row, curve = _training(build, cell)
        cells.append(row)
        training += curve
        tuned = read_answers(build, cell.evaluations[0.0])
        for percent, step in cell.evaluations.items():
            accuracy += accuracy_of(build, row, percent, step, buckets)
            if percent:
                paired += _paired(cell.name, percent, tuned, read_answers(build, step), buckets)
            divergence.append(divergence_of(build, cell.name, percent, step))
        concentration += _concentration(build, cell)
        distribution += _distribution(build, cell)
    accuracy = list(dict.fromkeys(accuracy))
    return StudyResults(
        name=name,
        model=model_name(build),
        spec=plan.spec.model_dump(mode="json", exclude_none=True),
        provenance={**package_versions(), "model_id": plan.model_id, "facts_id": plan.facts.id},
        cells=list(dict.fromkeys(cells)),
        accuracy=accuracy,
        paired=list(dict.fromkeys(paired)),
        divergence=list(dict.fromkeys(row for row in divergence if row is not None)),
        concentration=list(dict.fromkeys(concentration)),
        distribution=list(dict.fromkeys(distribution)),
        mastery=_mastery(build),
        training=list(dict.fromkeys(training)),
        choice=choose(accuracy, metric),
    )


def model_name(build: KnowledgeBuild) -> str:
    """What people call the base model."""
    return "pocket Llama" if build.plan.model is not None else build.model_folder.name


def read_results(build: KnowledgeBuild) -> StudyResults:
    return StudyResults.read(build.read(build.plan.results))


def read_answers(build: KnowledgeBuild, step: Step) -> dict[str, pa.Table]:
    """Answers of one evaluated model, by split."""
    import pyarrow.compute as pc

    table = read_answer_table(build.read(step, "answers.parquet"))
    return {
        split: table.filter(pc.equal(table["split"], split))
        for split in pc.unique(table["split"]).to_pylist()
    }


def accuracy_of(
    build: KnowledgeBuild,
    cell: CellRow | None,
    percent: float | None,
    step: Step,
    buckets: Buckets,
    splits: Sequence[str] = (*EVALUATION_SPLITS, TRAIN_SET),
) -> list[AccuracyRow]:
    """Accuracy of one evaluated model, by bucket and their mean, on those of the splits that it was asked."""
    answers = read_answers(build, step)
    return [
        row
        for split in splits
        if split in answers
        for row in accuracy_rows(cell, percent, split, accuracy_by_bucket(answers[split], buckets[split]))
    ]


def _paired(
    cell: str,
    percent: float,
    tuned: Mapping[str, pa.Table],
    restored: Mapping[str, pa.Table],
    buckets: Buckets,
) -> list[PairedRow]:
    return [
        row
        for split in EVALUATION_SPLITS
        if split in tuned
        for row in paired_rows(
            cell, percent, split, paired_by_bucket(tuned[split], restored[split], buckets[split])
        )
    ]


def _training(build: KnowledgeBuild, cell: Cell) -> tuple[CellRow, list[TrainingRow]]:
    path = build.read(cell.tuned, f"model/{COMMIT_FILE}")
    found = read_commit(path).result
    row = CellRow(cell.name, str(cell.bucket), cell.size, cell.seed, found.tokens_per_second, found.seconds)
    pairs = enumerate(zip(found.losses, found.learning_rates, strict=True), start=1)
    return row, [TrainingRow(cell.name, step, loss, rate) for step, (loss, rate) in pairs]


def divergence_of(build: KnowledgeBuild, cell: str, percent: float, step: Step) -> DivergenceRow | None:
    """Mean KL of a model; None where no bucket-4 test fact had a usable prompt."""
    import numpy as np

    names = ("tuned_logits", "base_logits")
    table = read_logits(build.read(step, "divergence.parquet"), names, build.plan.spec.divergence.top)
    if not table.num_rows:
        return None
    tuned, base = (np.array(table[name].to_pylist(), np.float64) for name in names)
    return DivergenceRow(cell, percent, table.num_rows, float(first_token_kl(tuned, base).mean()))


def _concentration(build: KnowledgeBuild, cell: Cell) -> list[ConcentrationRow]:
    found = read_change(build, cell)
    return [ConcentrationRow(cell.name, float(top), share) for top, share in found.concentration.items()]


def _distribution(build: KnowledgeBuild, cell: Cell) -> list[DistributionRow]:
    """Where each percentage's restored weights are; at 100 % all of them, for comparison."""
    found = read_change(build, cell)
    whole = [
        DistributionRow(cell.name, 100.0, kind, name, weights / found.weights)
        for kind, counts in (("layer", found.weights_by_layer), ("module", found.weights_by_module))
        for name, weights in counts.items()
        if "100" not in found.cuts
    ]
    return whole + [
        DistributionRow(cell.name, float(percent), kind, name, share / 100)
        for percent in found.cuts
        for kind, percents in (
            ("layer", found.layer_percents(percent)),
            ("module", found.module_percents(percent)),
        )
        for name, share in percents.items()
    ]


def _mastery(build: KnowledgeBuild) -> list[MasteryRow]:
    rows: list[MasteryRow] = []
    for split in SPLITS:
        table = read_mastery(build, split)
        found: list[Any] = table["bucket"].to_pylist()
        rows += [MasteryRow(split, bucket, found.count(bucket)) for bucket in BUCKETS]
        errors = sum(error is not None for error in table["error"].to_pylist())
        if errors:
            rows.append(MasteryRow(split, None, found.count(None), errors))
    return rows


def summary(build: KnowledgeBuild) -> str:
    """For the terminal: what is recommended, which model that is, and what it does on the test split."""
    results, plan = read_results(build), build.plan
    row = next(row for row in results.choice if row.scope == "recommended")
    state = state_words(plan.spec.restore.method or RESTORE, row.percent)
    cell = next(cell for cell in plan.cells if cell.name == row.cell)
    lines = [
        f"recommended: {row.cell}, {state} (chosen on dev: {row.dev:.1%}, tuned {row.dev_tuned:.1%})",
        *(f"  {note}" for note in (nothing_gained(row, cell.evaluations), study_tie(results, row)) if note),
        f"  id: {cell.evaluations[row.percent].id[:12]}",
    ]
    for name, chosen, tuned in (
        ("in domain", row.test, row.test_tuned),
        ("out of domain", row.test_ood, row.test_ood_tuned),
    ):
        if row.percent and chosen is not None and tuned is not None:
            lines.append(f"  test, {name}: {chosen:.1%}, tuned {tuned:.1%}")
        elif chosen is not None:
            lines.append(f"  test, {name}: {chosen:.1%}")
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")
