"""After the last stage: a finished survey is logged to MLflow. Logging again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.store.mirror import pull
from sftlab.store.record import Step
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.champions import Scored
from sftlab.studies.survey.measures import Measures, read_measures
from sftlab.studies.survey.models import MODEL
from sftlab.studies.survey.plan import Model, SurveyPlan
from sftlab.studies.survey.runs import Run
from sftlab.studies.survey.score_table import Run as Row
from sftlab.studies.survey.stages.champions import Halves, key_of, read_champions, read_scored
from sftlab.studies.survey.stages.drawn import FILE as EXAMPLES
from sftlab.studies.survey.stages.questions import FILE as QUESTIONS
from sftlab.studies.survey.stages.report import report_file
from sftlab.studies.survey.stages.scores import read_answers
from sftlab.studies.survey.tracking.log import log_survey
from sftlab.studies.survey.tracking.records import KeptModel, TrackedRun, TrackedSurvey, survey_key
from sftlab.tracking.records import TrackedTable, table_of


def track_survey(build: SurveyBuild) -> str:
    """Log a finished survey; returns where to look at it. Raises UserError where it is not finished."""
    plan = build.plan
    if build.missing(plan.report):
        raise UserError(
            f"the survey {plan.name} is not finished", value=plan.name, advice="`sftlab survey` builds it."
        )
    survey = tracked_survey(build)
    template = plan.spec.template
    words = template if isinstance(template, str) else json.dumps(template.model_dump())
    # Two that log at the same moment would log a run twice.
    with build.store.lock("tracking"), build.progress.bar("logging to MLflow") as bar:
        return log_survey(survey, build.runtime.tracking, build.store.root, words, bar.update).how_to_look


def tracked_survey(build: SurveyBuild) -> TrackedSurvey:
    """All that is logged of a finished survey; the folders of the best models are fetched."""
    plan = build.plan
    champions = read_champions(build)
    best = {str(row["model"]) for row in champions}
    folders = {
        model.tuned.id: whole_folder(build, model)
        for model in plan.models
        if model.tuned is not None and model.tuned.id in best
    }
    spec = plan.spec.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    return TrackedSurvey(
        name=plan.name,
        key=survey_key(plan.name, spec),
        runs=[_with_folders(run, folders) for run in _runs(build)],
        scored=read_scored(build),
        champions=champions,
        spec=spec,
        tables=[table_of(build.read(step, QUESTIONS), name) for name, step in plan.questions.items()],
        report=report_file(plan, build.store),
        edited=_edited_scores(build),
    )


def _edited_scores(build: SurveyBuild) -> list[Scored]:
    """The scores of edited models, which are no part of the committed table."""
    halves = Halves(build)
    for model in build.plan.scored:
        if model.rung is not None:
            for name, step in model.scores.items():
                halves.add(model, name, read_answers(build, step))
    return halves.rows


def whole_folder(build: SurveyBuild, model: Model) -> Path:
    """The folder of a tuned model as others load it, on this machine.

    A packed one is written below the store once, as is the merged model of an adapter.
    """
    from sftlab.weights.adapter import is_adapter
    from sftlab.weights.delta_folder import is_packed
    from sftlab.weights.packing import unpack
    from sftlab.weights.restoration import write_model

    assert model.tuned is not None
    folder: Path = pull(build.path(model.tuned) / MODEL)
    if not (is_packed(folder) or is_adapter(folder)):
        return folder
    whole, base = (
        build.store.root / "materialized" / build.path(model.tuned).name,
        build.base_folder(model.base),
    )
    if not whole.exists():  # it appears when it is complete
        if is_packed(folder):
            unpack(base, folder, whole)
        else:
            write_model(base, folder, None, whole)
    return whole


def _with_folders(run: TrackedRun, folders: Mapping[str, Path]) -> TrackedRun:
    """The run with the folders of the models that are uploaded."""
    return replace(
        run, models=[replace(model, path=folders.get(model.id, model.path)) for model in run.models]
    )


def _runs(build: SurveyBuild) -> Iterator[TrackedRun]:
    """The bases, each followed by its runs."""
    measures = read_measures(build.read(build.plan.results))
    tables: dict[str, TrackedTable] = {}
    kept: dict[Run, list[Model]] = {}
    for model in build.plan.models:
        if model.run is not None:
            kept.setdefault(model.run, []).append(model)
    for base in build.plan.spec.bases.names:
        step = build.plan.bases.get(base)
        yield TrackedRun(base, _base_labels(build, base), provenance=_provenance(build, step) if step else {})
        for run, models in kept.items():
            if run.base == base:
                yield _run(build, run, models, measures, tables)
        for name, edits in _edits(build.plan).items():
            if edits[0].base == base:
                yield _edited(build, name, edits)


def _edits(plan: SurveyPlan) -> dict[str, list[Model]]:
    """By the name of its run in MLflow, the models of a method that edits, or of a ladder of restorations."""
    found: dict[str, list[Model]] = {}
    for model in plan.edited:
        assert model.run is not None
        found.setdefault(model.run.name, []).append(model)
    return found | {f"{name}-restored": rungs for name, rungs in plan.ladders.items()}


def _edited(build: SurveyBuild, name: str, models: list[Model]) -> TrackedRun:
    first = models[0]
    assert first.run is not None and first.rung is not None
    edit = {key: value for key, value in first.rung.hashed().items() if key != "percent"}
    return TrackedRun(
        name=name,
        labels=_labels(build, first.run),
        models=[
            KeptModel(key_of(model), model.epoch, None, percent=model.rung.percent)
            for model in models
            if model.rung is not None
        ],
        sft=first.run.sft.model_dump(mode="json", exclude_none=True),
        provenance=_provenance(build, next(iter(first.scores.values()))),
        edit=edit,
    )


def _run(
    build: SurveyBuild,
    run: Run,
    models: list[Model],
    measures: Measures,
    tables: dict[str, TrackedTable],
) -> TrackedRun:
    from sftlab.training.records import COMMIT_FILE, read_commit

    drawn = build.plan.drawn[run.members, run.size]
    if drawn.id not in tables:
        tables[drawn.id] = table_of(build.read(drawn, EXAMPLES), f"{run.data}-n{run.size}", "training")
    last = models[-1].tuned
    assert last is not None, "a run keeps its last epoch"
    training = read_commit(build.read(last, f"{MODEL}/{COMMIT_FILE}")).result
    return TrackedRun(
        name=run.name,
        labels=_labels(build, run),
        models=[_kept(build, model, measures) for model in models],
        sft=run.sft.model_dump(mode="json", exclude_none=True),
        table=tables[drawn.id],
        perplexity=measures.perplexity.get((run.base, run.data, run.size), {}),
        losses=training.losses,
        rates=training.learning_rates,
        seconds=training.seconds,
        provenance=_provenance(build, last),
    )


def _kept(build: SurveyBuild, model: Model, measures: Measures) -> KeptModel:
    run = model.run
    assert run is not None and model.tuned is not None
    scored = Row(model.base, run.data, run.method, run.size, float(model.epoch), run.sft.schedule)
    folder: Path = build.path(model.tuned) / MODEL
    return KeptModel(model.tuned.id, model.epoch, folder, measures.movement.get(scored))


def _base_labels(build: SurveyBuild, base: str) -> dict[str, Any]:
    return {"base": base, "family": build.plan.family(base), "language": build.plan.language(base)}


def _labels(build: SurveyBuild, run: Run) -> dict[str, Any]:
    group = _group(build, run)
    return {
        **_base_labels(build, run.base),
        "data": run.data,
        "group": group,
        "method": run.method,
        "size": run.size,
    }


def _group(build: SurveyBuild, run: Run) -> str | None:
    """The group of a set; of several together, that of all of them if they share one."""
    files = build.plan.spec.data.files
    groups = {files[name].group if name in files else None for name in run.members}
    return groups.pop() if len(groups) == 1 else None


def _provenance(build: SurveyBuild, step: Step) -> Mapping[str, str]:
    record = build.store.find(step)
    assert record is not None, "what is finished is recorded"
    return record.provenance
