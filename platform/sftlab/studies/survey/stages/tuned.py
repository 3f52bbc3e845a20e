"""Stage 4: fine-tuning, all missing runs in a few worker groups; before them the probes that masks come from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftlab.cluster.session import await_gpus
from sftlab.store.mirror import drop
from sftlab.store.record import Step
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL, Model
from sftlab.studies.survey.runs import Run, Training
from sftlab.studies.survey.stages.changes import build_change, read_cuts
from sftlab.studies.survey.stages.drawn import FILE

if TYPE_CHECKING:
    from sftlab.execution.runtime import Runtime
    from sftlab.training.records import ProbeMask, SFTRun

AGAIN = "trained-again"  # models of runs whose last epoch is committed and an earlier one is not


def build_tuned(build: SurveyBuild) -> None:
    """Train every run of which a kept model is missing; each model is committed as it is finished.

    Probes are trained first, in other worker groups, and their changes profiled.
    """
    plan = build.plan
    _train(build, plan.probes.values(), "fine-tuning probes")
    for probe in plan.probes.values():
        if probe.change is not None and build.missing(probe.change):
            build_change(build, probe)
    _train(build, plan.scored, "fine-tuning")


def _train(build: SurveyBuild, models: Iterable[Model], title: str) -> None:
    """Train the missing ones of these models in worker groups side by side."""
    from sftlab.training.records import TrainingEvent
    from sftlab.training.side_by_side import train_side_by_side

    wanted = {found.id: found for found in _wanted(build, models)}
    if not wanted:
        return
    if os.environ.get("RAY_ADDRESS"):
        await_gpus(build.runtime.group_bundles, build.runtime.gpu_wait_minutes, build.progress.say)
    finished: set[str] = set()
    with build.progress.bar(title) as bar:

        def report(event: TrainingEvent) -> None:
            run = wanted[event.run_id]
            if event.kind == "kept" and event.epoch is not None:
                _commit(build, run.models[event.epoch])
            if event.finished:
                finished.add(event.run_id)
                run.commit(build)
            done = sum(wanted[name].examples for name in finished)
            note = f"{run.run.name}: step {event.step}/{event.steps}, loss {event.loss:.3f}"
            bar.update(done, sum(one.examples for one in wanted.values()), note)

        scratch = str(build.store.root / "ray-train")
        runs = [run.sft_run(build) for run in wanted.values()]
        train_side_by_side(runs, build.runtime.group_training, _groups(build.runtime), report, scratch)
    for run in wanted.values():
        run.commit(build)
    drop(build.store.root / "ray-train")
    drop(build.store.root / AGAIN)


def _groups(runtime: Runtime) -> int:
    """How many worker groups train at once on the cluster that this process has joined."""
    import ray

    from sftlab.training.side_by_side import fitting_groups

    resources = ray.cluster_resources()
    on_cluster = os.environ.get("RAY_ADDRESS")
    cores = int(resources.get("CPU", 1)) if on_cluster else len(os.sched_getaffinity(0))
    return runtime.fine_tuning.groups or fitting_groups(runtime.group_training, resources, cores)


@dataclass(frozen=True)
class _Wanted:
    """A run and its missing models by epoch."""

    run: Run
    models: Mapping[int, Model]

    @property
    def id(self) -> str:
        return f"{self.run.name}-{_step(next(iter(self.models.values()))).id[:12]}"

    @property
    def examples(self) -> int:
        return self.run.size * len(self.run.members) * self.run.sft.epochs

    def sft_run(self, build: SurveyBuild) -> SFTRun:
        """The training that makes the missing models; a last epoch that is committed already is not written again."""
        from sftlab.training.records import KeptEpoch, SFTRun

        last = self.run.sft.epochs
        folders = {epoch: str(build.path(_step(model)) / MODEL) for epoch, model in self.models.items()}
        drawn = build.plan.drawn[self.run.members, self.run.size]
        return SFTRun(
            run_id=self.id,
            base_model=str(build.base_folder(self.run.base)),
            train_file=str(build.path(drawn) / FILE),
            output_dir=folders.get(last) or str(build.store.root / AGAIN / self.id),
            spec=self.run.sft,
            template=build.plan.spec.template,
            kept=tuple(KeptEpoch(epoch, folders[epoch]) for epoch in sorted(folders) if epoch != last),
            mask=probe_mask(build, self.run),
            form="delta" if build.runtime.keep == "delta" else "folder",
        )

    def commit(self, build: SurveyBuild) -> None:
        """Commit the models that are not committed yet; the run is finished."""
        for model in self.models.values():
            if build.missing(_step(model)):
                _commit(build, model)


def probe_mask(build: SurveyBuild, run: Run) -> ProbeMask | None:
    """The weights that a run must not update, according to its probe; None for a run without one."""
    from sftlab.training.records import ProbeMask

    probe = build.plan.probe(run)
    if probe is None:
        return None
    assert probe.rung is not None
    return ProbeMask(str(build.path(_step(probe)) / MODEL), read_cuts(build, probe)[probe.rung.label])


def _wanted(build: SurveyBuild, models: Iterable[Model]) -> Iterator[_Wanted]:
    """The runs with missing models. Runs of one base and method follow one another, so that its engine is kept.

    Models that differ in their edits alone are of one run.
    """
    runs: dict[Training, Run] = {}
    missing: dict[Training, dict[int, Model]] = {}
    for model in models:
        if model.run is not None and build.missing(_step(model)):
            key = model.run.training
            runs.setdefault(key, model.run)
            missing.setdefault(key, {}).setdefault(model.epoch, model)
    names = build.plan.spec.bases.names
    for key in sorted(missing, key=lambda key: (names.index(runs[key].base), runs[key].method)):
        yield _Wanted(runs[key], missing[key])


def _step(model: Model) -> Step:
    assert model.tuned is not None
    return model.tuned


def _commit(build: SurveyBuild, model: Model) -> None:
    from sftlab.training.records import COMMIT_FILE
    from sftlab.weights.pack_in_place import pack_in_place

    if build.runtime.keep == "delta":
        pack_in_place(build.base_folder(model.base), build.path(_step(model)) / MODEL, [COMMIT_FILE])
    build.commit(_step(model), varying=[f"{MODEL}/{COMMIT_FILE}"])
