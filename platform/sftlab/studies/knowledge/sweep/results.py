"""What comes after the trials of a sweep: its tables, its report, and the recommended model as a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sftlab.facts.table import SPLITS
from sftlab.files import write_text
from sftlab.store.mirror import pull
from sftlab.strategies import edit_for
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.ties import nothing_gained, sweep_tie
from sftlab.studies.knowledge.results.sweep_statistics import summarise_sweep
from sftlab.studies.knowledge.results.sweep_tables import SweepResults
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.evaluation import TRAIN_SET
from sftlab.studies.knowledge.stages.mastery import buckets_of
from sftlab.studies.knowledge.stages.results import model_name, read_answers
from sftlab.studies.knowledge.sweep.steps import SweepSteps, champion, recommended, variants_of
from sftlab.sweeps.times import BEST, REPORT, TABLES, keeping, time_rows
from sftlab.weights.cut import percent_label
from sftlab.weights.restore import write_restored

PAGE = "report.html"


def build_sweep_results(steps: SweepSteps) -> SweepResults:
    """The tables of a sweep, made if they are missing."""
    sweep, folder = steps.sweep, steps.path(steps.results)
    with steps.alone(steps.results) as missing:
        if not missing:
            return SweepResults.read(steps.read(steps.results))
        with sweep.progress.bar("statistics") as bar, keeping(sweep.folder, TABLES):
            variants = variants_of(steps, bar.update)
            study = sweep.study.model_dump(mode="json", exclude={"plugins"})
            results = summarise_sweep(
                sweep.spec.name,
                model_name(sweep.base),
                {"sweep": sweep.spec.model_dump(mode="json"), "study": study},
                sweep.spec.search.metric,
                variants,
                Answers(steps),
            )
            results.write(folder)
            sweep.store.commit(steps.results)
    return SweepResults.read(folder)


def build_sweep_report(steps: SweepSteps, results: SweepResults) -> Path:
    """The report page, made if it is missing; the times in it are those of the trials that were run."""
    from sftlab.studies.knowledge.report.sweep.page import render_sweep

    file = steps.path(steps.report) / PAGE
    with steps.alone(steps.report) as missing:
        if missing:
            with steps.sweep.progress.bar("report"), keeping(steps.sweep.folder, REPORT):
                timed = replace(results, times=time_rows(steps.sweep.records))
                write_text(file, render_sweep(timed, origin_of(steps)))
                steps.sweep.store.commit(steps.report)
    return pull(file)


def origin_of(steps: SweepSteps) -> Origin:
    """Ids of all models of the sweep, and what computed its tables."""
    record = steps.sweep.store.find(steps.results)
    ids = {
        (trial.variant, cell.name, percent): step.id
        for trial, _, cell in steps.found
        for percent, step in cell.evaluations.items()
    }
    return Origin(ids, record.provenance if record is not None else {})


def build_sweep_best(steps: SweepSteps, results: SweepResults) -> Path:
    """Folder of the recommended model: of the recommended group the one of the lowest seed."""
    chosen = recommended(results)
    trial, build, cell = champion(steps, chosen)
    step, label = steps.best, percent_label(chosen.percent)
    with steps.alone(step) as missing:
        if missing:
            with keeping(steps.sweep.folder, BEST):
                edit = edit_for(trial.spec.restore, chosen.percent, read_change(build, cell).cuts)
                folder = steps.path(step) / f"restored-{label}"
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
                write_restored(
                    build.model_folder, build.read(cell.tuned, "model"), {label: edit}, steps.path(step)
                )
                from sftlab.studies.knowledge.sweep.tracked import sweep_card  # it reads this module's steps

                write_text(folder / "README.md", sweep_card(steps, results))
                choice = asdict(chosen) | {"cell": cell.name, "seed": trial.seed}
                write_text(steps.path(step) / "choice.json", json.dumps(choice, indent=1) + "\n")
                steps.sweep.sources.require_unchanged(step.stage)
                steps.sweep.store.commit(step)
    return steps.read(step, f"restored-{label}")


class Answers:
    """Verdicts of one model on one split, read from the store: the `answers` of `summarise_sweep`."""

    def __init__(self, steps: SweepSteps) -> None:
        self._cells: dict[tuple[str, str], list[tuple[KnowledgeBuild, Cell]]] = {}
        for trial, build, cell in steps.found:
            self._cells.setdefault((trial.variant, cell.name), []).append((build, cell))
        base = steps.sweep.base
        self._buckets = {split: buckets_of(base, split) for split in SPLITS}
        self._buckets[TRAIN_SET] = self._buckets["train"]
        self._read = lru_cache(maxsize=8)(self._read_model)

    def __call__(self, variant: str, cell: str, percent: float, split: str) -> tuple[Any, Any]:
        """correct: bool [questions]; buckets: int64 [questions], -1 for a fact without one."""
        table = self._read(variant, cell, percent)[split]
        buckets = self._buckets[split]
        found = [buckets.get(fact, -1) for fact in table["fact_id"].to_pylist()]
        return np.array(table["correct"].to_pylist(), np.bool_), np.array(found, np.int64)

    def _read_model(self, variant: str, cell: str, percent: float) -> Mapping[str, Any]:
        for build, found in self._cells[variant, cell]:
            if percent in found.evaluations:
                return read_answers(build, found.evaluations[percent])
        raise KeyError((variant, cell, percent))


def summary(steps: SweepSteps, results: SweepResults) -> str:
    """What a person wants to know first, for the terminal."""
    row = recommended(results)
    _, _, cell = champion(steps, row)
    ladder = {
        r.percent
        for r in results.groups
        if (r.variant, r.train_bucket, r.size) == (row.variant, row.train_bucket, row.size)
    }
    lines = [
        f"recommended: {row.variant}, bucket {row.train_bucket}, {row.size:,} facts, {row.percent:g} % "
        f"(chosen on {results.metric}: {row.dev:.1%}, tuned {row.dev_tuned:.1%}; {row.seeds} training sets)",
        *(f"  {note}" for note in (nothing_gained(row, ladder), sweep_tie(results, row)) if note),
        f"  id: {cell.evaluations[row.percent].id[:12]} ({cell.name})",
    ]
    for name, split, after, before in (
        ("in domain", "test", row.test, row.test_tuned),
        ("out of domain", "test_ood", row.test_ood, row.test_ood_tuned),
    ):
        if after is None or before is None:
            continue
        verdicts = [
            f", {c.verdict} than tuned" if c.verdict in ("better", "worse") else f", {c.verdict} to tuned"
            for c in results.comparisons
            if (c.variant, c.train_bucket, c.size, c.percent, c.split)
            == (row.variant, row.train_bucket, row.size, row.percent, split)
            and (c.against_variant, c.against_percent) == (row.variant, 0.0)
        ]
        against = f", tuned {before:.1%}{''.join(verdicts[:1])}" if row.percent else ""
        lines.append(f"  test, {name}: {after:.1%}{against}")
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")
