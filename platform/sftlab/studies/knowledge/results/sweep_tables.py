"""The result tables of a sweep: what it measured over variants, training sets and questions, and how sure it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.store.rows import read_rows, read_summary, schema_of
from sftlab.studies.knowledge.results.choice import metric_of
from sftlab.studies.knowledge.results.tables import StudyResults
from sftlab.sweeps.times import TimeRow

if TYPE_CHECKING:
    import pyarrow as pa


SWEEP_FILE = "sweep.json"
FORMAT = 1
KEYS = frozenset({"name", "model", "spec", "metric", "reference", "variants"})  # of SWEEP_FILE

# Families of comparisons: p values are corrected within one.
CHOSEN = "chosen against tuned"
PLAIN = "chosen against plain tuned"
BEST = "recommended against other strategies"

PLAIN_STRATEGIES = ("restore", "divided")  # their 0 % models are fine-tuned as in the paper


@dataclass(frozen=True)
class Variant:
    """A study with one setting of everything but data: a strategy with its parameters, rate, epochs.

    `settings` must be JSON: what distinguishes this variant from others, including the strategy's parameters.
    """

    name: str
    strategy: str
    settings: Mapping[str, Any]
    results: StudyResults


@dataclass(frozen=True)
class GroupRow:
    """Accuracy over the training sets of one variant, data, size and percentage. Shares in [0, 1].

    `questions` were asked of each of the `seeds` models. `low` and `high` are the ends of the bootstrap 95 % interval.
    `change` is the difference to 0 % of the same group, paired, with its own interval; None at 0 % and on the dev
    splits, which choose and say nothing about changes.
    """

    variant: str
    train_bucket: str  # "0".."4", "mixed", or a mixture such as "0:0.5+4:0.5"
    size: int
    percent: float
    split: str
    bucket: int | None  # None: mean of the non-empty buckets
    seeds: int
    questions: int
    mean: float
    sd: float | None  # over seeds; None for one
    low: float
    high: float
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None


@dataclass(frozen=True)
class ComparisonRow:
    """Score of one group of models less that of another (`against_*`), on the same questions and seeds.

    `p_corrected` is Holm's over all rows of `family`; `test` names the test behind `p`. `p_mcnemar` (exact,
    all pairs pooled) is not corrected.
    """

    family: str  # CHOSEN, PLAIN or BEST
    variant: str
    train_bucket: str
    size: int
    percent: float
    against_variant: str
    against_bucket: str
    against_size: int
    against_percent: float
    split: str
    questions: int
    seeds: int
    difference: float
    low: float
    high: float
    gained: int
    lost: int
    test: str
    p: float
    p_mcnemar: float
    p_corrected: float
    verdict: str  # "better", "worse" or "no significant difference"


@dataclass(frozen=True)
class SweepChoiceRow:
    """A percentage chosen on dev for a group of training sets, and what it does on test; means over seeds.

    scope "group": of one variant, data and size; "variant": the best group of a variant; "strategy": the best of
    a strategy's variants; "recommended": the best of all; each the best of the `fullest`. `dev` is the score that
    chose, that of the sweep's metric; `*_tuned` is the same at 0 %.
    """

    scope: str
    variant: str
    strategy: str
    train_bucket: str
    size: int
    percent: float
    seeds: int
    dev: float
    dev_tuned: float
    test: float | None
    test_tuned: float | None
    test_ood: float | None
    test_ood_tuned: float | None
    questions: int  # on test and test_ood together, of each model
    collapse_percent: float | None = None


def fullest(choices: Sequence[SweepChoiceRow]) -> list[SweepChoiceRow]:
    """Those with as many seeds as the one with the most; others do not compete: few seeds make a lucky mean."""
    most = max((row.seeds for row in choices), default=0)
    return [row for row in choices if row.seeds == most]


# Table name -> row type; the name is the field of SweepResults and the stem of the parquet file.
SWEEP_TABLES: dict[str, type[Any]] = {
    "groups": GroupRow,
    "comparisons": ComparisonRow,
    "choice": SweepChoiceRow,
    "times": TimeRow,
}


@dataclass(frozen=True)
class SweepResults:
    """All results of a sweep. `spec` must be JSON; every table may be empty.

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
    choice: Sequence[SweepChoiceRow] = ()
    times: Sequence[TimeRow] = ()
    reference: str | None = None

    def table(self, name: str) -> pa.Table:
        """One of SWEEP_TABLES as an Arrow table with the schema of its row type."""
        import pyarrow as pa

        rows = [vars(row) for row in getattr(self, name)]
        return pa.Table.from_pylist(rows, schema=schema_of(SWEEP_TABLES[name]))

    def write(self, directory: Path) -> None:
        """Write sweep.json, a parquet file a table, and variants/<number>/ as StudyResults writes them.

        The same results give the same bytes.
        """
        import pyarrow.parquet as pq

        directory.mkdir(parents=True, exist_ok=True)
        for name in SWEEP_TABLES:
            pq.write_table(self.table(name), directory / f"{name}.parquet")
        for number, variant in enumerate(self.variants):
            variant.results.write(_folder(directory, number))
        variants = [{"name": v.name, "strategy": v.strategy, "settings": v.settings} for v in self.variants]
        sweep = {"format": FORMAT, "name": self.name, "model": self.model, "spec": self.spec}
        sweep |= {"metric": self.metric, "reference": self.reference, "variants": variants}
        text = json.dumps(sweep, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (directory / SWEEP_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> SweepResults:
        """Read what `write` wrote. Raises UserError naming the file that is missing or not as expected."""
        sweep = read_summary(directory / SWEEP_FILE, "sweep", FORMAT, KEYS)
        try:
            metric_of(sweep["metric"])
        except UserError as error:
            raise UserError(f"{directory / SWEEP_FILE}: metric: {error}") from error
        variants = tuple(
            Variant(v["name"], v["strategy"], v["settings"], StudyResults.read(_folder(directory, number)))
            for number, v in enumerate(sweep["variants"])
        )
        tables = {name: read_rows(directory / f"{name}.parquet", kind) for name, kind in SWEEP_TABLES.items()}
        return cls(
            name=sweep["name"],
            model=sweep["model"],
            spec=sweep["spec"],
            metric=sweep["metric"],
            variants=variants,
            reference=sweep["reference"],
            **tables,
        )


def _folder(directory: Path, number: int) -> Path:
    return directory / "variants" / str(number)
