"""Stage 5: every model answers every benchmark; the models of one base share its engines."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.store.artifact import DAMAGED
from sftlab.store.mirror import drop
from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.plan import Model
from sftlab.studies.survey.stages.questions import FILE as QUESTIONS
from sftlab.studies.survey.stages.tuned import MODEL
from sftlab.weights.restore import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.inference.evaluator import EvaluationItem

ANSWERS = "answers.parquet"


@dataclass(frozen=True)
class _Missing:
    """A model and its steps that are missing, by benchmark."""

    model: Model
    steps: Mapping[str, Step]

    @property
    def id(self) -> str:
        """Of the model and of what it is still asked."""
        return "-".join([next(iter(self.steps.values())).id[:16], str(len(self.steps))])


def build_scores(build: SurveyBuild) -> None:
    """Ask every model what it has not answered; the engines of a base start once."""
    questions = _questions(build)
    missing = [
        _Missing(model, steps)
        for model in build.plan.models
        if (steps := {name: step for name, step in model.scores.items() if build.missing(step)})
    ]
    before = 0
    with build.progress.bar("asking models") as bar:
        for base in build.plan.spec.bases.names:
            of_base = {one.id: one for one in missing if one.model.base == base}
            if not of_base:
                continue
            note = f"{base}: {before + len(of_base)} of {len(missing)} models"
            bar.update(before, len(missing), note)
            _ask(build, base, of_base, questions)
            before += len(of_base)
            bar.update(before, len(missing), note)


def read_answers(build: SurveyBuild, step: Step) -> pa.Table:
    """The committed answers of one model to one benchmark."""
    from sftlab.measurements.benchmarks import benchmark_answer_schema

    return read_table(build.read(step, ANSWERS), benchmark_answer_schema())


def _questions(build: SurveyBuild) -> dict[str, pa.Table]:
    from sftlab.measurements.benchmarks import question_schema

    steps = build.plan.questions
    return {name: read_table(build.read(step, QUESTIONS), question_schema()) for name, step in steps.items()}


def _ask(
    build: SurveyBuild, base: str, missing: Mapping[str, _Missing], questions: Mapping[str, pa.Table]
) -> None:
    """Ask the models of one base."""
    from sftlab.inference.evaluator import EvaluationRequest, evaluate_with_engines

    session = build.store.root / "sessions" / f"survey-{build.plan.base_id(base)[:16]}"
    items = [_item(build, name, one, questions, session) for name, one in missing.items()]
    request = EvaluationRequest(
        items,
        str(build.base_folder(base)),
        build.plan.spec.engine,
        session,
        build.store.root / DAMAGED,
    )

    def commit(item: EvaluationItem) -> None:
        for name, step in missing[item.id].steps.items():
            folder = build.path(step)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item.output_dir / _file(name), folder / ANSWERS)
            build.commit(step)

    evaluate_with_engines(request, build.runtime.engine, finished=commit)
    drop(session)


def _item(
    build: SurveyBuild, name: str, one: _Missing, questions: Mapping[str, pa.Table], session: Path
) -> EvaluationItem:
    """The answers of a model are kept in the session until each is committed to the step of its benchmark."""
    from sftlab.inference.evaluator import EvaluationItem
    from sftlab.measurements.benchmarks import BenchmarkAnswers

    plan, model = build.plan, one.model
    base = str(build.base_folder(model.base))
    tuned = None if model.tuned is None else str(build.path(model.tuned) / MODEL)
    measurements = {
        _file(asked): BenchmarkAnswers(questions[asked], plan.spec.template, plan.max_tokens(asked))
        for asked in one.steps
    }
    return EvaluationItem(name, ModelSource(base, tuned), measurements, session / "answers" / name)


def _file(benchmark: str) -> str:
    return f"{benchmark}.parquet"
