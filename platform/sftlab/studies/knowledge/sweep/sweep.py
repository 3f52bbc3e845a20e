"""A sweep with its study, store and runtime, and which of its trials are finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.execution.progress import Progress
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.store.fingerprint import fingerprint
from sftlab.store.mirror import pull
from sftlab.strategies import source_of
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.pipeline import LADDER_STAGES
from sftlab.studies.knowledge.plan import Cell, Plan
from sftlab.studies.knowledge.sources import Sources
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.knowledge.sweep.spec import SweepSpec
from sftlab.studies.knowledge.sweep.trial import KnowledgeTrials
from sftlab.studies.knowledge.sweep.trials import Trial
from sftlab.sweeps.pools import StartPools, start_pools
from sftlab.sweeps.records import done_marker
from sftlab.sweeps.searches import Search, search_of


@dataclass(frozen=True)
class Sweep:
    """A sweep over a study, with its store and resources."""

    spec: SweepSpec
    study: StudySpec
    sources: Sources
    store: Store
    runtime: Runtime
    progress: Progress
    start: StartPools = start_pools  # what starts its engines and worker groups

    @cached_property
    def maker(self) -> KnowledgeTrials:
        return KnowledgeTrials(self.spec, self.study, self.sources)

    @cached_property
    def search(self) -> Search[Trial]:
        return search_of(self.maker, self.spec.search, self.spec.halving, self.spec.name, self.records)

    @cached_property
    def id(self) -> str:
        """What the sweep is: its axes and search, its study, and the content of its files and custom strategies."""
        # A search with more trials is the same search, which goes on.
        left_out: Any = {"limits": True, "study": True, "set": True, "search": {"trials"}}
        spec = self.spec.model_dump(mode="json", exclude=left_out)
        named = {**self.sources.facts, "model": self.sources.model or ""}
        methods = {choice.name for choice in self.spec.axes.strategy} | {self.study.restore.method}
        custom = {name: source_of(name) for name in methods if name is not None}
        named |= {f"strategy {name}": source for name, source in custom.items() if source is not None}
        made_of = {"sweep": spec, "study": self.study.model_dump(mode="json", exclude={"name", "plugins"})}
        return fingerprint("sweep", 1, made_of, named)

    @property
    def folder(self) -> Path:
        """Folder of the records of trials, and of what a search has learnt."""
        return self.store.root / "sweeps" / f"{self.spec.name}-{self.id[:12]}"

    @property
    def records(self) -> Path:
        return self.folder / "trials"

    @cached_property
    def base(self) -> KnowledgeBuild:
        """The study itself: facts, model, mastery and the base model's answers are shared by all trials."""
        return KnowledgeBuild(Plan(self.study, self.sources, ()), self.store, self.runtime, self.progress)

    def build(self, trial: Trial) -> KnowledgeBuild:
        """The build of a trial's one cell."""
        return KnowledgeBuild(trial.plan(self.sources), self.store, self.runtime, self.progress)

    def plan_of(self, trial: Trial) -> Plan:
        """A plan without cells, of what the trials of a variant share; worked out once."""
        key = (trial.variant, trial.spec.restore.percents)
        if key not in self._plans:
            self._plans[key] = Plan(trial.spec, self.sources, ())
        return self._plans[key]

    def cell(self, trial: Trial) -> Cell:
        """The cell of a trial."""
        return self.plan_of(trial).cell(trial.data, trial.size, trial.seed)

    @cached_property
    def _plans(self) -> dict[Any, Plan]:
        return {}

    def listed(self) -> Iterator[Trial]:
        """The trials that are known before any has run, each once; none where a sampler chooses."""
        return self.search.listed()


def finished_sweep(sweep: Sweep) -> list[Trial]:
    """All trials of a finished sweep, as `run_sweep` returns them. Raises UserError where some are missing."""
    trials = list(sweep.listed())
    with sweep.store.listed(*LADDER_STAGES):
        left = sweep.search.left(trials, lambda trial: is_finished(sweep, trial))
    if left:
        raise UserError(
            f"the sweep {sweep.spec.name} lacks {left:,} trials",
            value=left,
            advice="`sftlab sweep` runs them.",
        )
    return finished_trials(sweep, trials)


def is_finished(sweep: Sweep, trial: Trial) -> bool:
    """Whether a trial's ladder is evaluated, or where the sweep halves, whether the trial is over."""
    if sweep.spec.halving is not None:
        return pull(done_marker(sweep.records, trial)).exists()
    cell = sweep.cell(trial)
    return not sweep.base.missing(cell.change, cell.controls, cell.updates, *cell.evaluations.values())


def finished_trials(sweep: Sweep, listed: Sequence[Trial]) -> list[Trial]:
    """The trials with their ladders evaluated: of a search those that have records, every rung for itself."""
    return sweep.search.finished(listed)
