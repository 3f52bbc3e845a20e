"""The result tables of a study or a sweep, gathered from the committed steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sftlab.analysis.accuracy import accuracy_by_bucket, paired_by_bucket
from sftlab.analysis.divergence import first_token_kl
from sftlab.facts.mastery import BUCKETS
from sftlab.facts.table import SPLITS
from sftlab.facts.training_sets import ALL
from sftlab.measurements.tables import read_logits
from sftlab.store.hub import name_of
from sftlab.store.provenance import package_versions
from sftlab.store.record import Step
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.prices import EVALUATION_SPLITS
from sftlab.studies.knowledge.report.buckets import state_words
from sftlab.studies.knowledge.report.ties import nothing_gained, tie_of
from sftlab.studies.knowledge.results.answer_rows import MasteryAfterRow
from sftlab.studies.knowledge.results.rows import (
    BASE,
    AccuracyRow,
    CellRow,
    ConcentrationRow,
    DistributionRow,
    DivergenceRow,
    MasteryRow,
    PairedRow,
    TrainingRow,
    UndoneRow,
    UpdateRow,
    accuracy_rows,
    paired_rows,
)
from sftlab.studies.knowledge.results.statistics import fill_tables
from sftlab.studies.knowledge.results.tables import SWEEP, VARIANT_TABLES, Results, Variant
from sftlab.studies.knowledge.stages.answer_kinds import answer_kind_rows, read_names
from sftlab.studies.knowledge.stages.certainty import certainty_rows
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.controls import read_controls
from sftlab.studies.knowledge.stages.evaluation import TRAIN_SET, read_answers
from sftlab.studies.knowledge.stages.fates import fate_keys, fate_rows
from sftlab.studies.knowledge.stages.few_shot import few_shot_rows
from sftlab.studies.knowledge.stages.finished import Finished, FinishedCell, finished_study
from sftlab.studies.knowledge.stages.gradients import base_gradient_rows, cell_gradient_rows
from sftlab.studies.knowledge.stages.mastery import buckets_of, read_mastery
from sftlab.studies.knowledge.stages.mastery_after import (
    Before,
    mastery_after_rows,
    mastery_before,
    percent_of,
    read_mastery_after,
)
from sftlab.studies.knowledge.stages.topics import baseline_rows, read_topic_answers, topic_rows
from sftlab.studies.knowledge.stages.training_sets import drawn_rows, drawn_size
from sftlab.studies.knowledge.stages.updates import read_updates
from sftlab.training.records import COMMIT_FILE, read_commit
from sftlab.weights.update_size import together

if TYPE_CHECKING:
    import pyarrow as pa

Buckets = Mapping[str, Mapping[str, int]]


def build_results(build: KnowledgeBuild) -> None:
    """Gather, choose on dev, and write the tables that tracking and the report read."""
    finished = finished_study(build)
    results_of(finished).write(build.path(finished.results))
    build.commit(finished.results)


def results_of(finished: Finished, progress: Callable[[float, float, str], None] | None = None) -> Results:
    """All tables; `progress` receives how many variants are read, of how many, and which is next."""
    return fill_tables(measured(finished, progress), Answers(finished))


def measured(finished: Finished, progress: Callable[[float, float, str], None] | None = None) -> Results:
    """The results with the tables of the variants alone."""
    grouped, variants = finished.by_variant(), []
    for done, (name, cells) in enumerate(grouped.items()):
        if progress is not None:
            progress(done, len(grouped), name)
        variants.append(variant_of(cells))
    return Results(
        name=finished.name,
        model=model_name(finished.base),
        spec=finished.spec,
        metric=finished.metric,
        variants=tuple(variants),
        kind=finished.kind,
    )


def variant_of(members: Sequence[FinishedCell]) -> Variant:
    """The tables of finished cells of one variant. A cell that is given twice, with other percentages, is one cell."""
    first = members[0]
    plan = first.build.plan
    buckets: dict[str, dict[str, int]] = {split: buckets_of(first.build, split) for split in SPLITS}
    buckets[TRAIN_SET] = buckets["train"]
    accuracy = accuracy_of(first.build, None, None, plan.base_evaluation, buckets)
    folder = first.build.read(plan.facts)
    keys, names, topics = fate_keys(first.build), read_names(folder), read_topic_answers(folder)
    tables: dict[str, list[Any]] = {name: [] for name in VARIANT_TABLES}
    before = mastery_before(first.build)
    base = read_answers(first.build, plan.base_evaluation)
    tables["answer_kinds"] += answer_kind_rows(BASE, None, base, keys, names)
    tables["topics"] += topic_rows(BASE, None, base, keys, topics)
    for member in members:
        build, cell = member.build, member.cell
        row, curve = _training(build, cell)
        tables["cells"].append(row)
        tables["training"] += curve
        tuned = read_answers(build, cell.evaluations[0.0])
        for percent, step in cell.evaluations.items():
            accuracy += accuracy_of(build, row, percent, step, buckets)
            asked = read_answers(build, step) if percent else tuned
            tables["answer_kinds"] += answer_kind_rows(cell.name, percent, asked, keys, names)
            tables["topics"] += topic_rows(cell.name, percent, asked, keys, topics)
            if percent:
                tables["paired"] += _paired(cell.name, percent, tuned, asked, buckets)
                tables["fates"] += fate_rows(cell.name, percent, tuned, asked, keys)
            tables["divergence"] += divergence_of(build, cell.name, percent, step)
        tables["concentration"] += _concentration(build, cell)
        tables["distribution"] += _distribution(build, cell)
        tables["mastery_after"] += _mastery_after(build, cell, before)
        tables["undone"] += _undone(build, cell)
        tables["drawn"] += drawn_rows(build, cell)
        tables["updates"] += _updates(build, cell)
        on_restored, lost = cell_gradient_rows(build, cell, tuned)
        tables["restored_gradients"] += on_restored
        tables["forgetting"] += lost
    tables |= {
        "accuracy": accuracy,
        "topic_baselines": baseline_rows(topics, keys),
        "mastery": _mastery(first.build),
        "certainty": certainty_rows(first.build),
        "gradients": base_gradient_rows(first.build),
        "few_shot": few_shot_rows(first.build),
    }
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in first.settings.items()}
    return Variant(
        first.variant,
        first.strategy,
        settings,
        spec=plan.spec.model_dump(mode="json", exclude_none=True),
        provenance={**package_versions(), "model_id": plan.model_id, "facts_id": plan.facts.id},
        **{name: list(dict.fromkeys(rows)) for name, rows in tables.items()},
    )


class Answers:
    """Verdicts of one model on one split, read from the store: the `answers` of `fill_tables`."""

    def __init__(self, finished: Finished) -> None:
        self._cells: dict[tuple[str, str], list[FinishedCell]] = {}
        for found in finished.cells:
            self._cells.setdefault((found.variant, found.cell.name), []).append(found)
        self._buckets = {split: buckets_of(finished.base, split) for split in SPLITS}
        self._buckets[TRAIN_SET] = self._buckets["train"]
        self._read = lru_cache(maxsize=8)(self._read_model)

    def __call__(self, variant: str, cell: str, percent: float, split: str) -> tuple[Any, Any]:
        """correct: bool [questions]; buckets: int64 [questions], -1 for a fact without one."""
        import numpy as np

        table = self._read(variant, cell, percent)[split]
        buckets = self._buckets[split]
        found = [buckets.get(fact, -1) for fact in table["fact_id"].to_pylist()]
        return np.array(table["correct"].to_pylist(), np.bool_), np.array(found, np.int64)

    def _read_model(self, variant: str, cell: str, percent: float) -> Mapping[str, pa.Table]:
        for found in self._cells[variant, cell]:
            if percent in found.cell.evaluations:
                return read_answers(found.build, found.cell.evaluations[percent])
        raise KeyError((variant, cell, percent))


def model_name(build: KnowledgeBuild) -> str:
    """What people call the base model."""
    return "pocket Llama" if build.plan.model is not None else name_of(build.model_folder)


def read_results(build: KnowledgeBuild) -> Results:
    return Results.read(build.read(build.plan.results))


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
    size, everything = drawn_size(build, cell), cell.size == ALL
    speed = found.tokens_per_second
    row = CellRow(cell.name, str(cell.bucket), size, cell.seed, speed, found.seconds, everything)
    norms = found.gradient_norms or [None] * len(found.losses)
    steps = enumerate(zip(found.losses, found.learning_rates, norms, strict=True), start=1)
    return row, [TrainingRow(cell.name, step, *measured) for step, measured in steps]


def divergence_of(build: KnowledgeBuild, cell: str, percent: float, step: Step) -> list[DivergenceRow]:
    """Mean KL of a model; nothing where no bucket-4 test fact had a usable prompt."""
    import numpy as np

    names = ("tuned_logits", "base_logits")
    table = read_logits(build.read(step, "divergence.parquet"), names, build.plan.spec.divergence.top)
    if not table.num_rows:
        return []
    tuned, base = (np.array(table[name].to_pylist(), np.float64) for name in names)
    found = first_token_kl(tuned, base)
    error = float(found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else None
    return [DivergenceRow(cell, percent, len(found), float(found.mean()), error)]


def _concentration(build: KnowledgeBuild, cell: Cell) -> list[ConcentrationRow]:
    found, null = read_change(build, cell), read_controls(build, cell).null
    return [
        ConcentrationRow(cell.name, float(top), share, null.concentration.get(top))
        for top, share in found.concentration.items()
    ]


def _distribution(build: KnowledgeBuild, cell: Cell) -> list[DistributionRow]:
    """Where each percentage's restored weights are; at 100 % all of them, for comparison."""
    found, null = read_change(build, cell), read_controls(build, cell).null
    whole = [
        DistributionRow(cell.name, 100.0, kind, name, weights / found.weights)
        for kind, counts in (("layer", found.weights_by_layer), ("module", found.weights_by_module))
        for name, weights in counts.items()
        if "100" not in found.cuts
    ]
    return whole + [
        DistributionRow(cell.name, float(percent), kind, name, share / 100, nulls[name] / 100)
        for percent in found.cuts
        for kind, percents, nulls in (
            ("layer", found.layer_percents(percent), null.layer_percents(percent)),
            ("module", found.module_percents(percent), null.module_percents(percent)),
        )
        for name, share in percents.items()
    ]


def _undone(build: KnowledgeBuild, cell: Cell) -> list[UndoneRow]:
    cuts, undone = read_change(build, cell).cuts, read_controls(build, cell).undone
    return [
        UndoneRow(cell.name, float(percent), cut.count / cut.total, of.relative, of.l1, of.l2)
        for percent, cut in cuts.items()
        if (of := undone.get(percent)) is not None
    ]


def _mastery_after(build: KnowledgeBuild, cell: Cell, before: Before) -> list[MasteryAfterRow]:
    rows = []
    for at, step in cell.mastery_after.items():
        percent = percent_of(build, cell, at)
        answers = read_answers(build, cell.evaluations[percent])
        rows += mastery_after_rows(cell.name, percent, read_mastery_after(build, step), answers, before)
    return rows


def _updates(build: KnowledgeBuild, cell: Cell) -> list[UpdateRow]:
    """The update as a whole, by layer and by module."""
    found = read_updates(build, cell)
    parts = {("all", "all"): found}
    for kind in ("layer", "module"):
        for size in found:
            parts.setdefault((kind, getattr(size, kind)), []).append(size)
    rows = []
    for (kind, name), sizes in parts.items():
        of = together(sizes)
        relative_norm = of.relative_norm if of.squared_base else None
        rows.append(
            UpdateRow(
                cell.name,
                kind,
                name,
                of.weights,
                of.changed_share,
                of.absolute,
                of.norm,
                of.mean_relative,
                relative_norm,
            )
        )
    return rows


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


def study_summary(build: KnowledgeBuild) -> str:
    """`summary` of a finished study."""
    return summary(finished_study(build), read_results(build))


def summary(finished: Finished, results: Results) -> str:
    """What a person wants to know first, for the terminal: what is recommended, and what it does on test."""
    best = results.recommended()
    assert best is not None, "every finished cell is asked dev questions"
    row, cell = best.choice, finished.model(best).cell
    ladder = {r.percent for r in results.groups if r.group == row.group}
    name = f"{row.variant}, " if results.kind == SWEEP else ""
    lines = [
        f"recommended: {name}bucket {row.train_bucket}, {row.size:,} facts, "
        f"{state_words(row.strategy, row.percent)} "
        f"(chosen on {results.metric}: {row.dev:.1%}, tuned {row.dev_tuned:.1%}; {row.seeds} training sets)",
        *(f"  {note}" for note in (nothing_gained(row, ladder), tie_of(results, row)) if note),
        f"  id: {cell.evaluations[row.percent].id[:12]} ({cell.name})",
    ]
    for where, split, after, before in (
        ("in domain", "test", row.test, row.test_tuned),
        ("out of domain", "test_ood", row.test_ood, row.test_ood_tuned),
    ):
        if after is None or before is None:
            continue
        found = results.against_tuned(row, split)
        word = "" if found is None else f", {found.verdict} {'than' if found.decided else 'to'} tuned"
        against = f", tuned {before:.1%}{word}" if row.percent else ""
        lines.append(f"  test, {where}: {after:.1%}{against}")
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")
