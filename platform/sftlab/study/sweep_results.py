"""What comes after the trials of a sweep: its tables, its report, and the recommended model as a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sftlab.analysis.sweep import SweepChoiceRow, SweepResults, Variant
from sftlab.analysis.sweep_tables import summarise_sweep
from sftlab.facts.table import SPLITS
from sftlab.report.origin import Origin
from sftlab.report.ties import nothing_gained, sweep_tie
from sftlab.store.artifact import Step, write_text
from sftlab.store.mirror import pull
from sftlab.strategies import edit_for
from sftlab.study.build import Build
from sftlab.study.plan import Cell
from sftlab.study.stages.change import read_change
from sftlab.study.stages.evaluation import TRAIN_SET
from sftlab.study.stages.mastery import buckets_of
from sftlab.study.stages.results import gather, model_name, read_answers
from sftlab.study.sweep import Sweep, finished_trials
from sftlab.study.sweep_times import BEST, REPORT, TABLES, keeping, time_rows
from sftlab.study.sweep_trial import steps_of
from sftlab.study.trials import Trial
from sftlab.weights.cut import percent_label
from sftlab.weights.restore import write_restored

REVISION = 3
PAGE = "report.html"


@dataclass(frozen=True)
class SweepSteps:
    """The finished trials of a sweep, and the steps that rest on them."""

    sweep: Sweep
    trials: Sequence[Trial]

    @cached_property
    def found(self) -> list[tuple[Trial, Build, Cell]]:
        """Every trial with its build and its one cell."""
        builds = [(trial, self.sweep.build(trial)) for trial in self.trials]
        return [(trial, build, build.plan.cells[0]) for trial, build in builds]

    @cached_property
    def results(self) -> Step:
        inputs = {"mastery": self.sweep.base.plan.mastery.id}
        for trial, _, cell in self.found:
            ladder = ",".join(f"{p:g}" for p in cell.evaluations)
            inputs[f"{trial.name}/{ladder}/change"] = cell.change.id
            inputs |= {f"{trial.name}/{p:g}": step.id for p, step in cell.evaluations.items()}
        spec = {"sweep": self.sweep.id, "metric": self.sweep.spec.search.metric}
        return Step("sweep-results", self.sweep.spec.name, spec, inputs, REVISION)

    @cached_property
    def best(self) -> Step:
        return Step("sweep-best", self.sweep.spec.name, {}, {"results": self.results.id}, REVISION)

    @cached_property
    def report(self) -> Step:
        return Step("sweep-report", self.sweep.spec.name, {}, {"results": self.results.id}, REVISION)

    def path(self, step: Step) -> Path:
        return self.sweep.store.path(step)

    def read(self, step: Step, name: str = "") -> Path:
        """Path of a committed step, or of a file in it, whose bytes are here and those recorded."""
        return self.sweep.base.read(step, name)

    @contextmanager
    def alone(self, step: Step) -> Iterator[bool]:
        """Hold a step's lock, as the same sweep may run twice at once; tells whether the step is missing."""
        with self.sweep.store.lock(step.lock):
            yield bool(self.sweep.base.lacking(step))


def steps_of_sweep(sweep: Sweep) -> Iterator[Step]:
    """All steps that a sweep has built or reads."""
    plan = sweep.base.plan
    yield from (
        step for step in (plan.facts, plan.model, plan.mastery, plan.base_evaluation) if step is not None
    )
    trials = finished_trials(sweep, list(sweep.listed()))
    for trial in trials:
        yield from steps_of(sweep.cell(trial))
    done = SweepSteps(sweep, trials)
    yield from (done.results, done.report, done.best)


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


def variants_of(
    steps: SweepSteps, progress: Callable[[float, float, str], None] | None = None
) -> list[Variant]:
    """The trials' tables, gathered by variant; `progress` hears how many variants are done, of how many, and which."""
    grouped, variants = _by_variant(steps), []
    for done, (name, members) in enumerate(grouped.items()):
        if progress is not None:
            progress(done, len(grouped), name)
        tables = gather([(build, cell) for _, build, cell in members], name, steps.sweep.spec.search.metric)
        first = members[0][0]
        variants.append(Variant(name, first.strategy, _json(first.settings), tables))
    return variants


def build_sweep_report(steps: SweepSteps, results: SweepResults) -> Path:
    """The report page, made if it is missing; the times in it are those of the trials that were run."""
    from sftlab.report.sweep_page import render_sweep

    file = steps.path(steps.report) / PAGE
    with steps.alone(steps.report) as missing:
        if missing:
            with steps.sweep.progress.bar("report"), keeping(steps.sweep.folder, REPORT):
                timed = replace(results, times=time_rows(steps.sweep))
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
                from sftlab.study.sweep_track import sweep_card  # it reads this module's steps

                write_text(folder / "README.md", sweep_card(steps, results))
                told = asdict(chosen) | {"cell": cell.name, "seed": trial.seed}
                write_text(steps.path(step) / "choice.json", json.dumps(told, indent=1) + "\n")
                steps.sweep.sources.require_unchanged(step.stage)
                steps.sweep.store.commit(step)
    return steps.read(step, f"restored-{label}")


def recommended(results: SweepResults) -> SweepChoiceRow:
    return next(row for row in results.choice if row.scope == "recommended")


def champion(steps: SweepSteps, chosen: SweepChoiceRow) -> tuple[Trial, Build, Cell]:
    """The trial behind the recommended group, of its seeds the lowest."""
    members = [
        (trial, build, cell)
        for trial, build, cell in steps.found
        if (trial.variant, str(trial.data), trial.size) == (chosen.variant, chosen.train_bucket, chosen.size)
        and chosen.percent in cell.evaluations
    ]
    return min(members, key=lambda member: member[0].seed)


class Answers:
    """Verdicts of one model on one split, read from the store: the `answers` of `summarise_sweep`."""

    def __init__(self, steps: SweepSteps) -> None:
        self._cells: dict[tuple[str, str], list[tuple[Build, Cell]]] = {}
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
        *(f"  {told}" for told in (nothing_gained(row, ladder), sweep_tie(results, row)) if told),
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


def _by_variant(steps: SweepSteps) -> dict[str, list[tuple[Trial, Build, Cell]]]:
    """The trials of each variant, in their order; a search may hold one twice, with other percentages."""
    found: dict[str, list[tuple[Trial, Build, Cell]]] = {}
    for trial, build, cell in steps.found:
        found.setdefault(trial.variant, []).append((trial, build, cell))
    return found


def _json(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
