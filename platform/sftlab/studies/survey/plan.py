"""The steps of a survey: what is made of what, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sftlab.execution.cost import Cost
from sftlab.execution.gpu_time import BFLOAT16_BYTES
from sftlab.execution.outside import OutsideFiles
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import Stage
from sftlab.store.fingerprint import HashedOften
from sftlab.store.outside import outside_id
from sftlab.store.record import Step
from sftlab.strategies import RestoreSpec
from sftlab.studies.survey.asked import how_asked, max_tokens, question_steps, questions_of
from sftlab.studies.survey.embedding_plan import Text, embedding_steps, slug_of
from sftlab.studies.survey.ladders import Rung, rungs
from sftlab.studies.survey.measure_plan import MeasurePlan
from sftlab.studies.survey.models import Model as Model  # other modules import it from here
from sftlab.studies.survey.models import step_of
from sftlab.studies.survey.pipeline import STAGES
from sftlab.studies.survey.runs import Run, Training, is_selected, runs_of
from sftlab.studies.survey.sources import SurveySources
from sftlab.studies.survey.spec import SurveySpec

TOKENS_OF_TEXT = 580_000  # of the pre-training text of a pocket base of scale 1
POCKET_TOKENS = 32  # of an example of a pocket set, for estimates
# Of an example of a file: the ten sets of Harada et al. have 185 words on average (Table 2), at 1.5 tokens a word.
FILE_TOKENS = 280
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class SurveyPlan:
    """All steps of a survey. A step's id follows from its spec and the ids of its inputs alone."""

    spec: SurveySpec
    sources: SurveySources

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def stages(self) -> Sequence[Stage]:
        return STAGES

    @property
    def outside(self) -> OutsideFiles:
        return self.sources.outside

    def check(self, stages: Collection[Stage], runtime: Runtime, say: Callable[[str], None]) -> None:
        """Raises UserError for missing files, rows that cannot be used, and bases that cannot be served or trained."""
        from sftlab.execution.checks import engines_on_cpu
        from sftlab.studies.survey.check import check_bases, check_files
        from sftlab.studies.survey.check_texts import check_texts
        from sftlab.studies.survey.judged import read_judged

        self.outside.require()
        read_judged(self.spec.benchmarks.judged, self.named)
        check_files(self.spec, {name for stage in stages for name in stage.reads})
        if any("model" in stage.reads for stage in stages):
            check_bases(self.spec, engines_on_cpu(stages, runtime), say)
            check_texts(self.spec)

    @cached_property
    def bases(self) -> dict[str, Step]:
        """Pre-training of each pocket base, each after the one that it continues."""
        steps: dict[str, Step] = {}
        for name, base in self.spec.bases.pocket.items():
            inputs = {} if base.continues is None else {"continues": steps[base.continues].id}
            spec = {"text": base.model_dump(exclude={"continues", "language"}), "world": self._world}
            steps[name] = step_of("base", name, spec, inputs)
        return steps

    def base_id(self, name: str) -> str:
        """The content of a base: its step, or the hash of its folder."""
        if name in self.bases:
            return self.bases[name].id
        return outside_id(self.sources.bases[name]) or ""

    @cached_property
    def runs(self) -> list[Run]:
        return runs_of(self.spec)

    @cached_property
    def drawn(self) -> dict[tuple[tuple[str, ...], int], Step]:
        """The training sets, by their members and the size of each."""
        runs = [run for found in self.runs for run in (found.probe, found) if run is not None]
        return {(run.members, run.size): self._drawn(run) for run in runs}

    @cached_property
    def perplexities(self) -> dict[str, dict[tuple[str, int], Step]]:
        """By base, the log-likelihoods of each set that its runs are trained on alone, by name and size."""
        found: dict[str, dict[tuple[str, int], Step]] = {name: {} for name in self.spec.bases.names}
        spec = HashedOften(
            engine=self.spec.engine.model_dump(),
            likelihood=self.spec.likelihood.model_dump(),
            perplexity=True,
            template=self._template,
        )
        for run in self.runs:
            if len(run.members) == 1 and (run.data, run.size) not in found[run.base]:
                inputs = {
                    "model": self.base_id(run.base),
                    "training_set": self.drawn[run.members, run.size].id,
                }
                slug = f"{run.base}-perplexity-{run.data}-n{run.size}"
                found[run.base][run.data, run.size] = step_of("scores", slug, spec, inputs)
        return found

    @cached_property
    def questions(self) -> dict[str, Step]:
        """The questions of each benchmark, and of each few-shot form."""
        return question_steps(self.spec, self.sources)

    @cached_property
    def models(self) -> list[Model]:
        """By base: the base itself, then its runs after their kept epochs, as they were trained."""
        models = []
        for base in self.spec.bases.names:
            models.append(Model(base, None, 0, None, None, self._scores(base, base, None)))
            for run in (run for run in self.runs if run.base == base and run.rung is None):
                for epoch in run.epochs:
                    tuned = self._tuned(run, epoch)
                    pair = {"model": self.base_id(base), "tuned": tuned.id}
                    movement = step_of("movement", f"{run.name}-e{epoch}", {}, pair)
                    scores = self._scores(f"{run.name}-e{epoch}", base, tuned)
                    models.append(Model(base, run, epoch, tuned, movement, scores))
        return models

    @cached_property
    def edited(self) -> list[Model]:
        """The models of methods that edit a tuned model, after every kept epoch of their runs."""
        return [
            self._edit(run, epoch, run.rung, f"{run.name}-e{epoch}")
            for run in self.runs
            if run.rung is not None
            for epoch in run.epochs
        ]

    @cached_property
    def ladders(self) -> dict[str, list[Model]]:
        """By the name of a tuned model that `restore` selects, its restorations above 0 %."""
        ladder = self.spec.restore
        if ladder is None:
            return {}
        return {
            model.name: [
                self._edit(run, model.epoch, rung, f"{model.name}-r{rung.label}") for rung in rungs(ladder)
            ]
            for model in self.models
            if (run := model.run) is not None and model.epoch == run.epochs[-1] and is_selected(ladder, run)
        }

    @cached_property
    def measured(self) -> MeasurePlan:
        """The steps of measurements on request."""
        asked = {name: self.questions[name] for name in self.spec.benchmarks.plain}
        return MeasurePlan(self.spec, self.models, asked, self.drawn, self.base_id)

    @cached_property
    def embeddings(self) -> dict[str, dict[Text, Step]]:
        """By base, its mean embeddings of the sets that its runs are trained on alone, and of the benchmarks."""
        return {
            base: embedding_steps(
                base,
                self.base_id(base),
                {(name, size): self.drawn[(name,), size] for name, size in sets},
                self.questions,
            )
            for base, sets in self.perplexities.items()
        }

    @property
    def named(self) -> list[Model]:
        """The models in the table of scores."""
        return [*self.models, *self.edited]

    @cached_property
    def scored(self) -> list[Model]:
        """All models that answer the benchmarks."""
        return [*self.named, *(rung for found in self.ladders.values() for rung in found)]

    @cached_property
    def probes(self) -> dict[str, Model]:
        """The runs that masks are found from, by the id of the profile of their change."""
        found = (self.probe(run) for run in self.runs)
        return {model.change.id: model for model in found if model is not None and model.change is not None}

    @cached_property
    def results(self) -> Step:
        labels: dict[str, Any] = {
            "bases": {name: [self.family(name), self.language(name)] for name in self.spec.bases.names},
            "models": [self._label(model) for model in self.named],
        }
        if about := self.spec.about and self.spec.about.model_dump(exclude_defaults=True):
            labels["about"] = about
        inputs = {f"{m.name}/{name}": step.id for m in self.scored for name, step in m.scores.items()}
        inputs |= {f"{m.name}/movement": m.movement.id for m in self.models if m.movement is not None}
        for base, sets in self.perplexities.items():
            inputs |= {f"{base}/perplexity/{name}-n{size}": step.id for (name, size), step in sets.items()}
        inputs |= {f"questions/{name}": step.id for name, step in self.questions.items()}
        inputs |= {
            f"{base}/embedding/{slug_of(text)}": step.id
            for base, steps in self.embeddings.items()
            for text, step in steps.items()
        }
        if judged := self.spec.benchmarks.judged:
            labels["judged"] = {name: file.model_dump(exclude={"source"}) for name, file in judged.items()}
            inputs |= {f"judged/{name}": outside_id(self.sources.benchmarks[name]) or "" for name in judged}
        return step_of("survey-results", self.name, labels, inputs | self.measured.inputs)

    @cached_property
    def report(self) -> Step:
        return step_of("survey-report", self.name, {"title": self.name}, {"results": self.results.id})

    def family(self, base: str) -> str:
        pocket = self.spec.bases.pocket.get(base)
        return pocket.family if pocket is not None else self.spec.bases.folders[base].family

    def language(self, base: str) -> str:
        pocket = self.spec.bases.pocket.get(base)
        return pocket.language if pocket is not None else self.spec.bases.folders[base].language

    def steps(self) -> Iterator[tuple[Step, Cost]]:
        """Every step, in the order in which it is built, with its cost without engine starts."""
        for name, step in self.bases.items():
            base = self.spec.bases.pocket[name]
            tokens = round(TOKENS_OF_TEXT * base.scale)
            yield step, Cost(trained_tokens=tokens, bytes_written=self.model_bytes(name))
        for step in {step.id: step for step in self.drawn.values()}.values():
            yield step, Cost()
        for step in {step.id: step for step in self.questions.values()}.values():
            yield step, Cost()
        yield from {step.id: (step, cost) for step, cost in self._weights()}.values()
        for model in self.scored:
            for name, step in model.scores.items():
                yield step, self.asking(name)
            if model.run is None:
                yield from ((step, Cost()) for step in self.perplexities[model.base].values())
        yield from self.measured.steps(self.asking)
        embeddings = {s.id: s for steps in self.embeddings.values() for s in steps.values()}
        yield from ((step, Cost()) for step in embeddings.values())
        yield self.results, Cost()
        yield self.report, Cost()

    def _weights(self) -> Iterator[tuple[Step, Cost]]:
        """The steps of weights: probes and their changes, tuned models, movements, changes; shared ones repeatedly."""
        for model in (*self.probes.values(), *self.scored):
            if model.tuned is not None:
                yield model.tuned, self._tuning(model)
            if model.run is not None and not model.scores and model.change is not None:
                yield model.change, Cost()
        for model in self.models:
            if model.movement is not None:
                yield model.movement, Cost()
        for model in self.scored:
            if model.change is not None:
                yield model.change, Cost()

    @cached_property
    def _world(self) -> dict[str, Any]:
        return self.spec.world.model_dump()

    def _drawn(self, run: Run) -> Step:
        """A training set: the specs of its members in their order, and the files and tokenizers that they read."""
        members: dict[str, Any] = {}
        inputs: dict[str, str] = {}
        for name in run.members:
            file = self.spec.data.files.get(name)
            if file is None:
                members[name] = {"world": self._world}
                continue
            members[name] = file.model_dump(exclude={"source", "group"})
            inputs[f"source/{name}"] = outside_id(self.sources.data[name]) or ""
        spec: dict[str, Any] = {"members": members, "size": run.size}
        if inputs:
            draw = self.spec.data.draw
            spec |= {"draw": draw.model_dump(exclude={"fit"}), "template": self._template}
            inputs |= {f"fit/{base}": self.base_id(base) for base in draw.fit}
        return step_of("drawn", f"{run.data}-n{run.size}", spec, inputs)

    def _tuned(self, run: Run, epoch: int) -> Step:
        spec: dict[str, Any] = {"sft": run.sft.model_dump(), "template": self._template}
        if epoch != run.sft.epochs:
            spec["epoch"] = epoch
        inputs = {"model": self.base_id(run.base), "training_set": self.drawn[run.members, run.size].id}
        if (probe := self.probe(run)) is not None:
            assert probe.tuned is not None and probe.change is not None
            inputs |= {"probe": probe.tuned.id, "probe_change": probe.change.id}
        return step_of("survey-tuned", f"{self._trained[run.training]}-e{epoch}", spec, inputs)

    @cached_property
    def _trained(self) -> dict[Training, str]:
        """By what is trained its name, which runs that differ in their edits share, and probes with equal runs."""
        names = {run.training: run.name for run in reversed(self.runs) if run.rung is None}
        for run in self.runs:
            names.setdefault(run.training, run.name)
        for probe in (run.probe for run in self.runs):
            if probe is not None:
                names.setdefault(probe.training, probe.name)
        return names

    def _edit(self, run: Run, epoch: int, rung: Rung, slug: str) -> Model:
        """A tuned model, edited; it shares the training with the model as it is."""
        tuned = self._tuned(run, epoch)
        pair = {"model": self.base_id(run.base), "tuned": tuned.id}
        change = step_of("change", tuned.slug, rung.ranked(), pair) if rung.needs_cut else None
        scores = self._scores(slug, run.base, tuned, rung)
        return Model(run.base, run, epoch, tuned, None, scores, rung, change)

    def probe(self, run: Run) -> Model | None:
        """The model whose change says what the mask of a run leaves alone; None without a mask. It is not scored."""
        probe, mask = run.probe, run.sft.mask
        if probe is None or mask is None:
            return None
        tuned = self._tuned(probe, probe.sft.epochs)
        rung = Rung(RestoreSpec(percents=(mask.percent,), region=mask.region, order=mask.order), mask.percent)
        pair = {"model": self.base_id(run.base), "tuned": tuned.id}
        change = step_of("change", tuned.slug, rung.ranked(), pair)
        return Model(run.base, probe, probe.sft.epochs, tuned, None, {}, rung, change)

    def _scores(self, slug: str, base: str, tuned: Step | None, rung: Rung | None = None) -> dict[str, Step]:
        inputs = {"model": self.base_id(base)} | ({} if tuned is None else {"tuned": tuned.id})
        inputs |= {} if rung is None else rung.inputs()
        return {
            name: step_of(
                "scores",
                f"{slug}-{name}",
                self._asked(name, rung),
                {**inputs, "questions": self.questions[name].id},
            )
            for name in self.spec.benchmarks.names
        }

    def _asked(self, benchmark: str, rung: Rung | None) -> HashedOften:
        """How a benchmark is asked: one object for all models and one for each edit, which is hashed once."""
        key = benchmark, "" if rung is None else repr(rung)
        if key not in self._all_asked:
            self._all_asked[key] = how_asked(self.spec, benchmark, rung)
        return self._all_asked[key]

    @cached_property
    def _all_asked(self) -> dict[tuple[str, str], HashedOften]:
        return {}

    def max_tokens(self, benchmark: str) -> int:
        """As `asked.max_tokens`."""
        return max_tokens(self.spec.benchmarks, benchmark)

    @property
    def _template(self) -> Any:
        template = self.spec.template
        return template if isinstance(template, str) else template.model_dump()

    def _label(self, model: Model) -> list[Any]:
        """What the table of scores says about a model."""
        run = model.run
        if run is None:
            return [model.base]
        return [model.base, run.data, run.method, run.size, model.epoch, run.sft.schedule, run.sft.seed]

    def set_tokens(self, run: Run) -> int:
        """Tokens of the training set of a run, about."""
        files = self.spec.data.files
        return run.size * sum(FILE_TOKENS if name in files else POCKET_TOKENS for name in run.members)

    def model_bytes(self, base: str) -> int:
        """Bytes of a base's weights, about; of a folder that is not there, from its number of parameters."""
        pocket = self.spec.bases.pocket.get(base)
        if pocket is None:
            return BFLOAT16_BYTES * (self.spec.bases.folders[base].parameters or 0)
        shape = pocket.shape
        layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate
        return FLOAT32_BYTES * (shape.layers * layer + 2 * shape.vocabulary * shape.hidden)

    def _tuning(self, model: Model) -> Cost:
        """What a kept epoch costs: all epochs of a run are trained once, for its last one."""
        run = model.run
        assert run is not None
        epochs = run.sft.epochs if model.epoch == run.sft.epochs else 0
        return Cost(trained_tokens=epochs * self.set_tokens(run), bytes_written=self.model_bytes(run.base))

    def questions_of(self, benchmark: str) -> int | None:
        """As `asked.questions_of`."""
        return questions_of(self.spec.benchmarks, benchmark)

    def asking(self, benchmark: str, most: int | None = None) -> Cost:
        """The answers to a benchmark, to so many questions at most."""
        known = [number for number in (self.questions_of(benchmark), most) if number is not None]
        questions = min(known, default=0)
        return Cost(completions=questions, generated_tokens=questions * self.max_tokens(benchmark))
