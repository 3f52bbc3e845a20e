"""Stage 4: fine-tuning, all missing runs in one worker group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftlab.cluster.session import await_gpus
from sftlab.store.mirror import drop
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.plan import Model
from sftlab.studies.survey.stages.drawn import FILE

if TYPE_CHECKING:
    from sftlab.training.records import SFTRun

MODEL = "model"


def build_tuned(build: SurveyBuild) -> None:
    """Train every run of which a kept model is missing; each is committed as it is finished."""
    from sftlab.training.records import TrainingEvent
    from sftlab.training.sft import train_runs

    missing = [model for model in build.plan.models if model.tuned and build.missing(model.tuned)]
    if not missing:
        return
    if os.environ.get("RAY_ADDRESS"):
        await_gpus(build.runtime.training_bundles, build.runtime.gpu_wait_minutes, build.progress.say)
    by_run = {_run_id(model): model for model in missing}
    examples = {name: _examples(model) for name, model in by_run.items()}
    finished: set[str] = set()
    scratch = str(build.store.root / "ray-train")
    with build.progress.bar("fine-tuning") as bar:

        def report(event: TrainingEvent) -> None:
            if event.finished and event.run_id not in finished:
                _commit(build, by_run[event.run_id])
                finished.add(event.run_id)
            done = sum(examples[name] for name in finished)
            note = f"{by_run[event.run_id].name}: step {event.step}/{event.steps}, loss {event.loss:.3f}"
            bar.update(done, sum(examples.values()), note)

        train_runs(_sft_runs(build, list(by_run.values())), build.runtime.training, report, scratch)
    for name, model in by_run.items():
        if name not in finished:
            _commit(build, model)
    drop(build.store.root / "ray-train")


def _run_id(model: Model) -> str:
    assert model.tuned is not None
    return f"{model.name}-{model.tuned.id[:12]}"


def _examples(model: Model) -> int:
    assert model.run is not None
    return model.run.size * len(model.run.members) * model.run.sft.epochs


def _sft_runs(build: SurveyBuild, models: Sequence[Model]) -> list[SFTRun]:
    from sftlab.training.records import SFTRun

    runs = []
    for model in models:
        assert model.run is not None and model.tuned is not None
        drawn = build.plan.drawn[model.run.members, model.run.size]
        runs.append(
            SFTRun(
                run_id=_run_id(model),
                base_model=str(build.base_folder(model.base)),
                train_file=str(build.path(drawn) / FILE),
                output_dir=str(build.path(model.tuned) / MODEL),
                spec=model.run.sft,
                template=build.plan.spec.template,
            )
        )
    return runs


def _commit(build: SurveyBuild, model: Model) -> None:
    from sftlab.training.records import COMMIT_FILE

    assert model.tuned is not None
    build.commit(model.tuned, varying=[f"{MODEL}/{COMMIT_FILE}"])
