"""The results of a study or a sweep: tables by variant, and of what they show over training sets and questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sftlab.errors import UserError, within
from sftlab.store.rows import read_rows, read_summary, schema_of
from sftlab.studies.knowledge.results.answer_rows import (
    AnswerKindRow,
    FewShotRow,
    MasteryAfterRow,
    TopicBaselineRow,
    TopicRow,
)
from sftlab.studies.knowledge.results.choice import metric_of
from sftlab.studies.knowledge.results.gradient_rows import ForgettingRow, GradientRow, RestoredGradientRow
from sftlab.studies.knowledge.results.rows import (
    BEST,
    CHOSEN,
    AccuracyRow,
    CellRow,
    CertaintyRow,
    ChoiceRow,
    ComparisonRow,
    ConcentrationRow,
    DistributionRow,
    DivergenceRow,
    DrawnRow,
    FateRow,
    GroupRow,
    MasteryRow,
    PairedRow,
    TrainingRow,
    UndoneRow,
    UpdateRow,
)
from sftlab.sweeps.times import TimeRow

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS_FILE = "results.json"
FORMAT = 1
STUDY, SWEEP = "study", "sweep"
KEYS = frozenset({"kind", "name", "model", "spec", "metric", "reference", "variants"})  # of RESULTS_FILE

# Table name -> row type; the name is the field of Variant or Results and the stem of the parquet file.
VARIANT_TABLES: dict[str, type[Any]] = {
    "cells": CellRow,
    "accuracy": AccuracyRow,
    "paired": PairedRow,
    "fates": FateRow,
    "answer_kinds": AnswerKindRow,
    "mastery_after": MasteryAfterRow,
    "topics": TopicRow,
    "topic_baselines": TopicBaselineRow,
    "divergence": DivergenceRow,
    "concentration": ConcentrationRow,
    "distribution": DistributionRow,
    "undone": UndoneRow,
    "updates": UpdateRow,
    "mastery": MasteryRow,
    "certainty": CertaintyRow,
    "drawn": DrawnRow,
    "training": TrainingRow,
    "gradients": GradientRow,
    "restored_gradients": RestoredGradientRow,
    "forgetting": ForgettingRow,
    "few_shot": FewShotRow,
}
# Those that a study has only where it asks for them; without rows they have no file.
OPTIONAL_TABLES = frozenset({"gradients", "restored_gradients", "forgetting", "few_shot"})
RESULT_TABLES: dict[str, type[Any]] = {
    "groups": GroupRow,
    "comparisons": ComparisonRow,
    "choice": ChoiceRow,
    "times": TimeRow,
}


@dataclass(frozen=True)
class Variant:
    """One setting of everything but data: a strategy with its parameters, rate, epochs. Every table may be empty.

    `settings`, `spec` and `provenance` must be JSON. settings: what distinguishes this variant from others, including
    the strategy's parameters. spec: the study with this variant's settings.
    """

    name: str
    strategy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    cells: Sequence[CellRow] = ()
    accuracy: Sequence[AccuracyRow] = ()
    paired: Sequence[PairedRow] = ()
    fates: Sequence[FateRow] = ()
    answer_kinds: Sequence[AnswerKindRow] = ()
    mastery_after: Sequence[MasteryAfterRow] = ()
    topics: Sequence[TopicRow] = ()
    topic_baselines: Sequence[TopicBaselineRow] = ()
    divergence: Sequence[DivergenceRow] = ()
    concentration: Sequence[ConcentrationRow] = ()
    distribution: Sequence[DistributionRow] = ()
    undone: Sequence[UndoneRow] = ()
    updates: Sequence[UpdateRow] = ()
    mastery: Sequence[MasteryRow] = ()
    certainty: Sequence[CertaintyRow] = ()
    drawn: Sequence[DrawnRow] = ()
    training: Sequence[TrainingRow] = ()
    gradients: Sequence[GradientRow] = ()
    restored_gradients: Sequence[RestoredGradientRow] = ()
    forgetting: Sequence[ForgettingRow] = ()
    few_shot: Sequence[FewShotRow] = ()

    @property
    def left_out(self) -> str | None:
        """The topic of which no training set has a fact."""
        found: str | None = (self.spec.get("training_sets") or {}).get("leave_out")
        return found

    def cells_of(self, choice: ChoiceRow) -> list[CellRow]:
        """The runs of a chosen group, the lowest seed first."""
        found = [c for c in self.cells if (c.train_bucket, c.size) == (choice.train_bucket, choice.size)]
        return sorted(found, key=lambda cell: cell.set_seed)


class Recommended(NamedTuple):
    """The recommended group, and the model that represents it: that of its lowest seed."""

    choice: ChoiceRow
    variant: Variant
    cell: CellRow

    @property
    def percent(self) -> float:
        return self.choice.percent

    @property
    def model(self) -> tuple[str, str, float]:
        """Variant, cell and percentage."""
        return self.variant.name, self.cell.cell, self.choice.percent


@dataclass(frozen=True)
class Results:
    """All results of a study (one variant) or a sweep. `spec` must be JSON; every table may be empty.

    `metric`, one of choice.METRICS, ranked the trials and made the choices.
    `reference` names the variant whose 0 % models are the paper's plain tuned ones; None where no variant has these.
    """

    name: str
    model: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "dev"
    variants: Sequence[Variant] = ()
    groups: Sequence[GroupRow] = ()
    comparisons: Sequence[ComparisonRow] = ()
    choice: Sequence[ChoiceRow] = ()
    times: Sequence[TimeRow] = ()
    reference: str | None = None
    kind: str = SWEEP

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)

    def recommended(self) -> Recommended | None:
        """What dev recommends; None without accuracies on the dev splits."""
        choice = next((row for row in self.choice if row.scope == "recommended"), None)
        if choice is None:
            return None
        variant = self.variant(choice.variant)
        return Recommended(choice, variant, variant.cells_of(choice)[0])

    def comparison(self, family: str, choice: ChoiceRow, split: str) -> ComparisonRow | None:
        """The first comparison of a choice within a family (there is one, but for the family BEST)."""
        mine = (family, choice.group, choice.percent, split)
        return next(
            (r for r in self.comparisons if (r.family, r.group, r.percent, r.split) == mine),
            None,
        )

    def against_tuned(self, choice: ChoiceRow, split: str) -> ComparisonRow | None:
        """A choice against its tuned models with nothing restored, with one verdict wherever it is shown.

        Where the recommended models are compared with the same tuned models in the family BEST, this is that row:
        the recommendation is tested in its own, smaller family.
        """
        own = self.comparison(CHOSEN, choice, split)
        if own is None or choice.scope != "recommended":
            return own
        best = [row for row in self.comparisons if row.family == BEST]
        return next((row for row in best if _outcome(row) == _outcome(own)), own)

    def table(self, name: str) -> pa.Table:
        """One of RESULT_TABLES as an Arrow table with the schema of its row type."""
        return _table(getattr(self, name), RESULT_TABLES[name])

    def tables(self) -> dict[str, pa.Table]:
        """All tables by name; those of the variants are one table each, with the column `variant` before its others."""
        import pyarrow as pa

        found = {name: self.table(name) for name in RESULT_TABLES}
        for name, kind in VARIANT_TABLES.items():
            parts = [(variant.name, _table(getattr(variant, name), kind)) for variant in self.variants]
            named = [
                part.add_column(0, "variant", pa.array([variant] * part.num_rows, pa.string()))
                for variant, part in parts
            ]
            found[name] = pa.concat_tables(named) if named else schema_of(kind).empty_table()
        return found

    def write(self, directory: Path) -> None:
        """Write results.json, a parquet file a table, and the tables of each variant to variants/<number>/.

        The same results give the same bytes.
        """
        _write(self, RESULT_TABLES, directory)
        variants = []
        for number, variant in enumerate(self.variants):
            _write(variant, VARIANT_TABLES, _folder(directory, number))
            found = {"name": variant.name, "strategy": variant.strategy, "settings": variant.settings}
            variants.append(found | {"spec": variant.spec, "provenance": variant.provenance})
        head = {"format": FORMAT, "kind": self.kind, "name": self.name, "model": self.model}
        head |= {"spec": self.spec, "metric": self.metric, "reference": self.reference, "variants": variants}
        text = json.dumps(head, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (directory / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Results:
        """Read what `write` wrote. Raises UserError naming the file that is missing or not as expected."""
        file = directory / RESULTS_FILE
        head = read_summary(file, "study", FORMAT, KEYS)
        try:
            metric_of(head["metric"])
        except UserError as error:
            raise within(f"{file}: metric", error) from error
        variants = tuple(
            Variant(**found, **_read(VARIANT_TABLES, _folder(directory, number)))
            for number, found in enumerate(head["variants"])
        )
        fields = {key: head[key] for key in KEYS - {"variants"}}
        return cls(**fields, variants=variants, **_read(RESULT_TABLES, directory))


def _folder(directory: Path, number: int) -> Path:
    return directory / "variants" / str(number)


def _outcome(row: ComparisonRow) -> tuple[object, ...]:
    """What two comparisons of the same answers share, in whatever family: tuned models may have several names."""
    data = (row.against_bucket, row.against_size, row.against_percent)
    return row.group, row.percent, row.split, data, row.difference, row.gained, row.lost


def _table(rows: Sequence[Any], kind: type[Any]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([vars(row) for row in rows], schema=schema_of(kind))


def _write(holder: object, tables: Mapping[str, type[Any]], directory: Path) -> None:
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    for name, kind in tables.items():
        if name not in OPTIONAL_TABLES or getattr(holder, name):
            pq.write_table(_table(getattr(holder, name), kind), directory / f"{name}.parquet")


def _read(tables: Mapping[str, type[Any]], directory: Path) -> dict[str, Any]:
    files = {name: directory / f"{name}.parquet" for name in tables}
    return {
        name: read_rows(files[name], kind)
        for name, kind in tables.items()
        if name not in OPTIONAL_TABLES or files[name].is_file()
    }
