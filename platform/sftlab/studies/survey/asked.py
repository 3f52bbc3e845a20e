"""What the benchmarks of a survey ask, as steps, and how models are asked."""

from __future__ import annotations

from typing import Any

from sftlab.measurements.harness import harness_version
from sftlab.measurements.spec import HarnessSpec
from sftlab.store.fingerprint import HashedOften
from sftlab.store.outside import outside_id
from sftlab.store.record import Step
from sftlab.studies.survey.ladders import Rung
from sftlab.studies.survey.models import step_of
from sftlab.studies.survey.sources import INCLUDE, SurveySources
from sftlab.studies.survey.spec import BenchmarksSpec, SurveySpec


def question_steps(survey: SurveySpec, sources: SurveySources) -> dict[str, Step]:
    """The questions of each benchmark; a few-shot form has those of its benchmark, which exclude the examples."""
    asked, steps = survey.benchmarks, {}
    for name in asked.pocket_names:
        spec = {"skill": name, "questions": asked.questions, "world": survey.world.model_dump()}
        steps[name] = step_of("questions", name, spec, {})
    for name, file in asked.files.items():
        spec = file.model_dump(exclude={"source", "group", "max_tokens"})
        steps[name] = step_of("questions", name, spec, _source(sources, name))
    steps |= {form: steps[name] for form, name in asked.few_shot.items()}
    for name, problems in asked.programs.items():
        spec = {"programs": problems.model_dump(include={"questions", "seed"})}
        steps[name] = step_of("questions", name, spec, _source(sources, name))
    return steps | {name: _requests(name, asked.harness, sources) for name in asked.tasks if asked.harness}


def _source(sources: SurveySources, name: str) -> dict[str, str]:
    return {"source": outside_id(sources.benchmarks[name]) or ""}


def _requests(task: str, harness: HarnessSpec, sources: SurveySources) -> Step:
    """What lm-eval asks for a task; the survey's template is not part of it."""
    found = sources.benchmarks.get(INCLUDE)
    inputs = {} if harness.include is None else {"include": outside_id(found) or ""}
    how = harness.model_dump(include={"questions", "shots", "seed"})
    return step_of("questions", task, {"lm_eval": harness_version(), "task": task, **how}, inputs)


def how_asked(survey: SurveySpec, benchmark: str, rung: Rung | None) -> HashedOften:
    """How a benchmark is asked of a model, edited or not; what the scores depend on besides model and questions."""
    asked, template = survey.benchmarks, survey.template
    more: dict[str, Any] = {} if rung is None else {"restore": rung.hashed()}
    if benchmark in asked.few_shot:
        more["few_shot"] = True
    if asked.harness is not None and benchmark in asked.tasks:
        more["metric"] = asked.harness.metrics.get(benchmark, "")
    if asked.code is not None and benchmark in asked.programs:
        more["code"] = asked.code.model_dump(include={"seconds", "memory_mib"})
    return HashedOften(
        engine=survey.engine.model_dump(),
        likelihood=survey.likelihood.model_dump(),
        template=template if isinstance(template, str) else template.model_dump(),
        max_tokens=max_tokens(asked, benchmark),
        **more,
    )


def max_tokens(asked: BenchmarksSpec, benchmark: str) -> int:
    """Longest answer to a benchmark, in tokens; 0 for a task of lm-eval, which says it itself."""
    if benchmark in asked.tasks:
        return 0
    file = asked.programs.get(benchmark) or asked.file(benchmark)
    return asked.max_tokens if file is None else file.max_tokens


def questions_of(asked: BenchmarksSpec, benchmark: str) -> int | None:
    """How many questions of a benchmark are asked, at most; None where a file's number is not known."""
    if asked.harness is not None and benchmark in asked.tasks:
        return asked.harness.questions
    file = asked.programs.get(benchmark) or asked.file(benchmark)
    return asked.questions if file is None else file.questions
