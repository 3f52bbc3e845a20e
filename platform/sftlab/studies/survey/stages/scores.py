"""Stage 6: what engines measure: answers and choices of every model, perplexity of the sets under the bases.

The models of one base share its engines, which start once. So do those of bases that differ in weights alone, such as a
base and its continuation: every model is swapped in, bases too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.store.artifact import DAMAGED
from sftlab.store.mirror import drop
from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL
from sftlab.studies.survey.plan import Model
from sftlab.studies.survey.stages.changes import edit_of
from sftlab.studies.survey.stages.drawn import FILE as EXAMPLES
from sftlab.studies.survey.stages.layer_maps import LayerAnswers
from sftlab.studies.survey.stages.programs import program_measurements, read_committed, write_verdicts
from sftlab.studies.survey.stages.questions import SHOTS, shots_schema
from sftlab.studies.survey.stages.requests import CHOICES, QUESTIONS, Tasks
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.datasets.rendered import Template
    from sftlab.inference.measurement import Measurement
    from sftlab.measurements.likelihood import Continuation

ANSWERS = "answers.parquet"
LIKELIHOODS = "likelihoods.parquet"
MAP = "the map of models"


@dataclass(frozen=True)
class _Wanted:
    """A missing step, how the files of its folder are measured, and the benchmark that is judged after that, if so."""

    step: Step
    measurements: Mapping[str, Measurement]
    judged: str = ""

    def session_file(self, name: str) -> str:
        """The name of a file until the step is committed."""
        return f"{self.step.id[:24]}-{name}"


@dataclass(frozen=True)
class _Asked:
    """A model that is asked, what for, and what commits it once its files are in a folder."""

    source: ModelSource
    wanted: Sequence[_Wanted]
    commit: Callable[[Path], None]


def build_scores(build: SurveyBuild) -> None:
    """Measure what is missing of every model; the engines of a base start once."""
    measures = _Measures(build)
    with build.progress.bar("asking models") as bar:
        for bases in _alike(build):
            models = {name: asked for base in bases for name, asked in _asked(build, measures, base).items()}
            if not models:
                continue
            note = ", ".join(bases)

            def report(done: int, rate: float, note: str = note, of: int = len(models)) -> None:
                bar.update(done, of, f"{note}, {rate:,.0f} rows/s")

            _measure(build, bases[0], models, report)


def _alike(build: SurveyBuild) -> list[list[str]]:
    """The bases, those together that differ in weights alone, in the order of the survey."""
    found: dict[Any, list[str]] = {}
    for name in build.plan.spec.bases.names:
        found.setdefault(all_but_weights(build.base_folder(name)), []).append(name)
    return list(found.values())


def all_but_weights(folder: Path) -> tuple[tuple[str, str], ...]:
    """Names and hashes of the files of a model folder that travel with its weights: configuration and tokenizer."""
    from sftlab.store.fingerprint import file_hash
    from sftlab.store.mirror import pull
    from sftlab.weights.companions import companions

    return tuple((one.name, file_hash(one.file)) for one in companions(pull(folder)))


def _asked(build: SurveyBuild, measures: _Measures, base: str) -> dict[str, _Asked]:
    """What is missing of the models of a base, by a name of each."""
    found: dict[str, _Asked] = {}
    for number, model in enumerate(build.plan.scored):
        if model.base != base:
            continue
        if steps := list(measures.missing(model)):
            name = f"{number}-{steps[0].step.id[:16]}"
            found[name] = _Asked(_source(build, model), steps, partial(measures.commit, steps))
        layers = build.plan.measured.layer_maps.get(model.name)
        if layers is not None and build.missing(layers):
            left = LayerAnswers(build, model, measures.questions)
            for swap, (source, measurements) in left.swaps.items():
                one = _Wanted(layers, measurements)
                found[f"{number}-{layers.id[:16]}-{swap.name}"] = _Asked(
                    source, [one], partial(left.finished, swap, one.session_file)
                )
    return found


def read_answers(build: SurveyBuild, step: Step) -> pa.Table:
    """The committed answers of one model to one benchmark."""
    from sftlab.measurements.benchmarks import benchmark_answer_schema

    return read_table(build.read(step, ANSWERS), benchmark_answer_schema())


def read_likelihoods(build: SurveyBuild, step: Step, name: str = LIKELIHOODS) -> list[dict[str, Any]]:
    """Committed log-likelihoods: of a set under a base, or with `name` CHOICES of the choices of a benchmark."""
    from sftlab.measurements.likelihood import likelihood_schema

    rows: list[dict[str, Any]] = read_table(build.read(step, name), likelihood_schema()).to_pylist()
    return rows


def read_questions(build: SurveyBuild, benchmark: str) -> pa.Table:
    """The committed questions of a benchmark."""
    from sftlab.measurements.benchmarks import question_schema

    return read_table(build.read(build.plan.questions[benchmark], QUESTIONS), question_schema())


def read_shots(build: SurveyBuild, benchmark: str) -> tuple[tuple[str, str], ...]:
    """The committed examples of a few-shot form, question and answer; none for a benchmark without examples."""
    if benchmark not in build.plan.spec.benchmarks.few_shot:
        return ()
    table = read_table(build.read(build.plan.questions[benchmark], SHOTS), shots_schema())
    return tuple((row["question"], row["answer"]) for row in table.to_pylist())


class _Measures:
    """What each model is still asked; what the models of a base have in common is made once."""

    def __init__(self, build: SurveyBuild) -> None:
        self.build, self.plan = build, build.plan
        self.questions = {name: read_questions(build, name) for name in build.plan.questions}
        self.shots = {name: read_shots(build, name) for name in build.plan.questions}
        self.tasks = Tasks(build)
        self.problems = {name: read_committed(build, name) for name in build.plan.spec.benchmarks.programs}
        self.templates: dict[str, Template] = {}
        self.tokenizers: dict[str, Any] = {}
        self.rendered: dict[tuple[str, str], list[Continuation]] = {}

    def missing(self, model: Model) -> Iterator[_Wanted]:
        """The missing steps of a model, with their measurements."""
        from sftlab.measurements.benchmarks import BenchmarkAnswers
        from sftlab.measurements.likelihood import LogLikelihoods

        for name, step in model.scores.items():
            if not self.build.missing(step):
                continue
            spec = self.plan.spec
            if name in spec.benchmarks.tasks:
                yield _Wanted(step, self.tasks.measurements(name, self.template(model.base)), name)
                continue
            if name in self.problems:
                yield _Wanted(step, program_measurements(self.build, name, self.problems[name]), name)
                continue
            found: dict[str, Measurement] = {
                ANSWERS: BenchmarkAnswers(
                    self.questions[name], spec.template, self.plan.max_tokens(name), self.shots[name]
                )
            }
            if rows := self.choices(model.base, name):
                found[CHOICES] = LogLikelihoods(rows, spec.likelihood)
            yield _Wanted(step, found)
        mapped = self.plan.measured.likelihood_maps.get(model.name)
        if mapped is not None and self.build.missing(mapped):
            rows = self.map_texts(model.base)
            yield _Wanted(mapped, {LIKELIHOODS: LogLikelihoods(rows, self.plan.spec.likelihood)})
        for step in self.plan.perplexities[model.base].values() if model.run is None else ():
            if self.build.missing(step):
                yield _Wanted(step, {LIKELIHOODS: self._perplexity(model.base, step)})

    def _perplexity(self, base: str, step: Step) -> Measurement:
        from sftlab.datasets.examples import conversations_of, examples_schema
        from sftlab.measurements.likelihood import LogLikelihoods
        from sftlab.measurements.rendered_likelihood import perplexity_rows

        drawn = next(one for one in self.plan.drawn.values() if one.id == step.inputs["training_set"])
        file = self.build.read(drawn, EXAMPLES)
        examples = conversations_of(read_table(file, examples_schema()), str(file))
        rows = tuple(perplexity_rows(self.template(base), examples))
        return LogLikelihoods(rows, self.plan.spec.likelihood)

    def choices(self, base: str, benchmark: str) -> list[Continuation]:
        """The choices of a benchmark in the template of a base; none where its questions have no choices."""
        from sftlab.measurements.rendered_likelihood import choice_rows

        key = base, benchmark
        if key not in self.rendered:
            self.rendered[key] = list(
                choice_rows(self.template(base), self.questions[benchmark].to_pylist(), self.shots[benchmark])
            )
        return self.rendered[key]

    def map_texts(self, base: str) -> list[Continuation]:
        """The texts of the map of models in the template of a base."""
        from sftlab.datasets.rendered import Specials
        from sftlab.measurements.map_texts import map_rows

        measured = self.plan.spec.measure.likelihood_map
        assert measured is not None
        key = base, MAP
        if key not in self.rendered:
            first = {
                name: self.questions[name].slice(0, measured.questions).to_pylist()
                for name in self.plan.measured.questions
            }
            template = self.template(base)
            specials = Specials.of(self.tokenizers[base], base)
            self.rendered[key] = list(map_rows(template, specials, first, measured.texts))
        return self.rendered[key]

    def commit(self, steps: Sequence[_Wanted], answers: Path) -> None:
        """Commit steps of which `answers` has the files."""
        for one in steps:
            folder = self.build.path(one.step)
            folder.mkdir(parents=True, exist_ok=True)
            for name in one.measurements:
                shutil.copyfile(answers / one.session_file(name), folder / name)
            if one.judged:
                self.judge(one.judged, folder)
            self.build.commit(one.step)

    def judge(self, benchmark: str, folder: Path) -> None:
        """Write the verdicts on what a model answered to a task or to programming problems, next to it."""
        if benchmark in self.problems:
            write_verdicts(self.build, self.problems[benchmark], folder, ANSWERS)
        else:
            self.tasks.write_scores(benchmark, folder, ANSWERS)

    def template(self, base: str) -> Template:
        """The survey's template for the tokenizer of a base."""
        from sftlab.datasets.templates import make_template
        from sftlab.inference.tokenizer_check import load_tokenizer

        if base not in self.templates:
            tokenizer = self.tokenizers[base] = load_tokenizer(self.build.base_folder(base))
            self.templates[base] = make_template(self.plan.spec.template, tokenizer, base)
        return self.templates[base]


def _measure(
    build: SurveyBuild, base: str, models: Mapping[str, _Asked], report: Callable[[int, float], None]
) -> None:
    """Measure models, by name, with engines of a base; each step is committed as its models are finished."""
    from sftlab.inference.evaluator import EvaluationItem, EvaluationRequest, evaluate_with_engines

    session = build.store.root / "sessions" / f"survey-{build.plan.base_id(base)[:16]}"
    items = [
        EvaluationItem(
            name,
            model.source,
            {one.session_file(file): how for one in model.wanted for file, how in one.measurements.items()},
            session / "answers" / name,  # until each table is committed to its step
        )
        for name, model in models.items()
    ]
    request = EvaluationRequest(
        items, str(build.base_folder(base)), build.plan.spec.engine, session, build.store.root / DAMAGED
    )
    evaluate_with_engines(
        request,
        build.runtime.evaluation_engine,
        lambda p: report(p.items_done, p.rows_per_second),
        lambda item: models[item.id].commit(item.output_dir),
    )
    drop(session)


def _source(build: SurveyBuild, model: Model) -> ModelSource:
    base = str(build.base_folder(model.base))
    tuned = None if model.tuned is None else str(build.path(model.tuned) / MODEL)
    return ModelSource(base, tuned, edit_of(build, model))
