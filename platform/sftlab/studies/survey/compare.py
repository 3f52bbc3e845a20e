"""Compares a table of scores with what is claimed about such tables: read, find faults, compute, judge, write."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftlab.files import write_together
from sftlab.reporting.page import no_formula
from sftlab.studies.survey import (
    factor_tables,
    faults,
    geometry_tables,
    layer_tables,
    map_tables,
    measure_tables,
    module_tables,
    restore_tables,
    tables,
)
from sftlab.studies.survey.about import About, about_massive_sft, read_about
from sftlab.studies.survey.measures import Measures
from sftlab.studies.survey.published import Published, massive_sft
from sftlab.studies.survey.score_table import ScoreTable, read_scores
from sftlab.studies.survey.survey import Survey, open_survey
from sftlab.studies.survey.verdicts import Outcome, judge

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
Progress = Callable[[int, int, str], None]
PAGE = "compare.html"
TABLES = "tables"


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    `about` is a YAML file on models, sets and benchmarks, `baseline` another word for base models.
    """

    about: Path | None = None
    baseline: str | None = None
    models: tuple[str, ...] | None = None
    benchmarks: tuple[str, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """A survey, what is wrong with its table, its tables by name, and the claims.

    Attributes:
        tables: rows with the same keys; an empty table says that the survey has nothing for it.
        rare: benchmarks that few runs have; they take part in no grid.
    """

    survey: Survey
    published: Published
    outcomes: Sequence[Outcome]
    tables: Mapping[str, Sequence[Row]]
    rare: Sequence[str]

    @property
    def defined(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.word]

    def counts(self) -> dict[str, int]:
        """How many claims have each word."""
        found: dict[str, int] = {}
        for outcome in self.defined:
            found[outcome.word] = found.get(outcome.word, 0) + 1
        return found


def compare_file(path: Path, options: Options, progress: Progress | None = None) -> Comparison:
    """Read a table of scores and compare it. Raises UserError for what is wrong with the file or the options."""
    table = read_scores(path, options.baseline)
    about = read_about(options.about, table) if options.about else _about(table)
    return compare(table.only(options.models, options.benchmarks), about, options.seed, progress)


def _about(table: ScoreTable) -> About:
    """What the paper says for its form of table, nothing for any other."""
    return about_massive_sft() if table.form == "wide" else About()


def compare(
    table: ScoreTable,
    about: About,
    seed: int = 0,
    progress: Progress | None = None,
    measures: Measures | None = None,
) -> Comparison:
    """Faults, tables and claims of a table of scores. The same arguments give the same numbers.

    measures: what was measured besides scores.

    Raises UserError where the table holds no complete grid of two models and two training sets.
    """
    survey, published = open_survey(table, about, seed), massive_sft()
    makers = _makers(survey) | _measured(survey, measures or Measures())
    of = len(makers) + len(published.claims)
    found: dict[str, Sequence[Row]] = {}
    for name, make in makers.items():
        found[name] = make()
        if progress:
            progress(len(found), of, name)

    def judged(done: int, _of: int, claim: str) -> None:
        if progress:
            progress(len(makers) + done, of, f"claim {claim}")

    outcomes = judge(survey, published.claims, judged)
    found["claims"] = claim_rows(outcomes)
    return Comparison(survey, published, outcomes, found, faults.rare_benchmarks(table))


def _makers(survey: Survey) -> dict[str, Callable[[], Sequence[Row]]]:
    table, about = survey.table, survey.about
    return {
        "copied_baselines": lambda: faults.copied_baselines(table),
        "below_chance": lambda: faults.below_chance(table, about),
        "missing_scores": lambda: faults.missing_scores(table),
        "missing_runs": lambda: faults.missing_runs(table, about),
        "totals": lambda: faults.wrong_totals(table, about),
        "gains": lambda: tables.gains(survey),
        "mean_gains": lambda: tables.mean_gains(survey),
        "sets": lambda: tables.sets(survey),
        "agreement": lambda: tables.model_agreement(survey),
        "components": lambda: tables.component_shares(survey),
        "benchmark_pairs": lambda: tables.inner_structure(survey, "benchmarks"),
        "set_pairs": lambda: tables.inner_structure(survey, "sets"),
        "structure": lambda: tables.structure(survey),
        "structure_tests": lambda: tables.structure_tests(survey),
        "variance": lambda: tables.variance(survey),
        "lengths": lambda: tables.lengths(survey),
        "length_points": lambda: tables.length_points(survey),
        "transfer": lambda: tables.language_transfer(survey),
        "shots": lambda: factor_tables.shot_gains(survey),
        "methods": lambda: factor_tables.methods(survey),
        "method_gains": lambda: factor_tables.method_gains(survey),
        "sizes": lambda: factor_tables.sizes(survey),
        "epochs": lambda: factor_tables.epochs(survey),
        "best_epochs": lambda: factor_tables.best_epochs(survey),
        "mixtures": lambda: factor_tables.mixtures(survey),
        "leave_one_out": lambda: factor_tables.leave_one_out(survey),
    }


def _measured(survey: Survey, measures: Measures) -> dict[str, Callable[[], Sequence[Row]]]:
    """The tables of what was measured besides scores."""
    return {
        "perplexities": lambda: measure_tables.perplexities(survey, measures),
        "predictions": lambda: measure_tables.predictions(survey, measures),
        "predictions_by_benchmark": lambda: measure_tables.predictions_by_benchmark(survey, measures),
        "form_parts": lambda: measure_tables.form_parts(survey, measures),
        "forms": lambda: measure_tables.forms(survey, measures),
        "layers": lambda: measure_tables.layers(survey, measures),
        "layers_by_model": lambda: measure_tables.layers_by_model(survey, measures),
        "layer_points": lambda: module_tables.changes_and_gains(survey, measures),
        "modules": lambda: module_tables.modules(survey, measures),
        "restorations": lambda: restore_tables.restorations(survey, measures),
        "chosen_restorations": lambda: restore_tables.chosen_restorations(measures),
        "repaired": lambda: restore_tables.repaired(survey, measures),
        "layer_maps": lambda: layer_tables.layer_maps(survey, measures),
        "layer_proposals": lambda: layer_tables.layer_proposals(survey, measures),
        "geometry": lambda: geometry_tables.geometry(survey, measures),
        "geometry_layers": lambda: geometry_tables.geometry_layers(measures),
        "geometry_consistency": lambda: geometry_tables.consistency(measures),
        "geometry_scales": lambda: geometry_tables.scales(measures),
        "state_map": lambda: geometry_tables.state_map(measures),
        "map": lambda: map_tables.model_map(survey, measures),
        "map_groups": lambda: map_tables.map_groups(survey, measures),
    }


def claim_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row for each claim and treatment; a claim that is not defined here has one row with the reason."""
    rows = []
    for outcome in outcomes:
        claim = outcome.claim
        head = {
            "id": claim.id,
            "question": claim.question,
            "says": claim.says,
            "word": outcome.word or "not tested",
        }
        for name, effect in outcome.effects.items() or [("", None)]:
            rows.append(
                {
                    **head,
                    "reason": outcome.reason,
                    "treatment": name,
                    "treatment_word": outcome.words.get(name, ""),
                    "unit": outcome.unit,
                    "effect": effect.value if effect else None,
                    "low": effect.low if effect else None,
                    "high": effect.high if effect else None,
                    "p": effect.p if effect else None,
                    "p_holm": outcome.corrected.get(name),
                    "p_published_test": outcome.published_p.get(name),
                    "detectable": effect.detectable if effect else None,
                    "clusters": effect.clusters if effect else None,
                    "interval": effect.interval_over if effect else "",
                    "test": effect.p_by if effect else "",
                }
            )
    return rows


def summary(comparison: Comparison) -> dict[str, Any]:
    """What a program wants to know, as JSON values: the grid, the faults, the claims."""
    survey, grid = comparison.survey, comparison.survey.grid
    return {
        "source": survey.table.source,
        "runs": len(survey.table.runs),
        "condition": str(grid.condition),
        "models": list(grid.models),
        "sets": list(grid.sets),
        "benchmarks": list(grid.benchmarks),
        "left_out": list(grid.left_out),
        "faults": {
            name: [_plain(row) for row in comparison.tables[name]]
            for name in ("copied_baselines", "below_chance", "missing_scores", "missing_runs", "totals")
        },
        "set_effects": [_plain(row) for row in comparison.tables["sets"]],
        "words": comparison.counts(),
        "claims": [
            {
                "id": outcome.claim.id,
                "says": outcome.claim.says,
                "word": outcome.word or "not tested",
                "reason": outcome.reason,
                "effects": {
                    row["treatment"]: _plain(
                        {
                            key: row[key]
                            for key in (
                                "treatment_word",
                                "effect",
                                "low",
                                "high",
                                "p",
                                "p_holm",
                                "detectable",
                            )
                        }
                    )
                    for row in comparison.tables["claims"]
                    if row["id"] == outcome.claim.id and row["treatment"]
                },
            }
            for outcome in comparison.outcomes
        ],
    }


def write(comparison: Comparison, page: str, folder: Path) -> None:
    """Write the page, and every table with rows as CSV and as parquet, below `folder`."""
    made: dict[str, Callable[[Path], object]] = {PAGE: lambda path: path.write_text(page, encoding="utf-8")}
    write_together(folder, made)
    files: dict[str, Callable[[Path], object]] = {}
    for name, rows in comparison.tables.items():
        if rows:
            files[f"{name}.csv"] = partial(_write_csv, rows)
            files[f"{name}.parquet"] = partial(_write_parquet, rows)
    write_together(folder / TABLES, files)


def csv_text(rows: Sequence[Row]) -> str:
    """Rows as CSV, numbers in full precision; no text that a spreadsheet would run."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: no_formula(_value(value)) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    path.write_text(csv_text(rows), encoding="utf-8")


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(arrow_table(rows), path)


def arrow_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as an arrow table; a column without any value is text."""
    import pyarrow as pa

    columns = {name: [_value(row[name]) for row in rows] for name in rows[0]}
    return pa.table(
        {
            name: pa.array(values, type=pa.string() if all(v is None for v in values) else None)
            for name, values in columns.items()
        }
    )


def _plain(row: Row) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    """A Python value; what is not defined (NaN) is None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
