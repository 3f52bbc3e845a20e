"""The steps of the measurements on request, and what they cost as far as the survey's file says it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sftlab.analysis.layer_maps import layer_swaps
from sftlab.execution.cost import Cost
from sftlab.store.fingerprint import HashedOften
from sftlab.store.record import Step
from sftlab.studies.survey.asked import max_tokens
from sftlab.studies.survey.models import Model, step_of
from sftlab.studies.survey.runs import Run, group_runs
from sftlab.studies.survey.spec import SurveySpec

LAYERS = 32  # of a base in a folder, for estimates
Asking = Callable[[str, int | None], Cost]
"""The cost of a benchmark, of so many of its questions at most."""


@dataclass(frozen=True)
class MeasurePlan:
    """The steps of the measurements on request; none of a measurement that the survey does not ask for.

    Attributes:
        models: the bases, and the tuned models as they were trained.
        questions: of the benchmarks that are asked in the survey's template, without examples.
        drawn: the training sets, by their members and the size of each.
        base_id: the content of a base, by its name.
    """

    spec: SurveySpec
    models: Sequence[Model]
    questions: Mapping[str, Step]
    drawn: Mapping[tuple[tuple[str, ...], int], Step]
    base_id: Callable[[str], str]

    @cached_property
    def likelihood_maps(self) -> dict[str, Step]:
        """By model, the log-likelihoods of the texts of the map."""
        measured = self.spec.measure.likelihood_map
        if measured is None:
            return {}
        spec = HashedOften(
            engine=self.spec.engine.model_dump(),
            likelihood=self.spec.likelihood.model_dump(),
            template=self._template,
            likelihood_map=measured.model_dump(),
        )
        return {model.name: self._asking_all(f"{model.name}-map", spec, model) for model in self.models}

    @cached_property
    def layer_maps(self) -> dict[str, Step]:
        """By model, the scores of its swaps; of the last epoch of the runs that the survey names."""
        measured = self.spec.measure.layer_maps
        if measured is None:
            return {}
        spec = HashedOften(
            engine=self.spec.engine.model_dump(),
            template=self._template,
            max_tokens={name: max_tokens(self.spec.benchmarks, name) for name in self.questions},
            layer_map={"questions": measured.questions, "cumulative": measured.cumulative},
        )
        return {
            model.name: self._asking_all(f"{model.name}-layers", spec, model)
            for model, run in self.models_of(measured.group)
            if run.data in measured.data and run.base in (measured.bases or self.spec.bases.names)
        }

    @cached_property
    def geometry_sets(self) -> dict[str, Step]:
        """The training sets, by name, whose prompts give hidden states."""
        measured = self.spec.measure.geometry
        found: dict[str, Step] = {}
        for _, run in [] if measured is None else self.models_of(measured.group):
            found.setdefault(run.data, self.drawn[run.members, run.size])
        return found

    @cached_property
    def geometries(self) -> dict[str, Step]:
        """By model, the geometry of hidden states: of the models of a group of runs, and of their bases."""
        measured = self.spec.measure.geometry
        if measured is None:
            return {}
        return self._states("", self.spec.bases.names)

    @cached_property
    def state_maps(self) -> dict[str, Step]:
        """By model, the states of its last layer in the plane: of the bases that are drawn, and of their models."""
        measured = self.spec.measure.geometry
        if measured is None or not measured.pictures:
            return {}
        return self._states("-picture", measured.pictures, picture=True)

    def _states(self, suffix: str, bases: Collection[str], **more: Any) -> dict[str, Step]:
        """Steps of hidden states of bases and of the models of a group of runs that are tuned from them."""
        measured = self.spec.measure.geometry
        assert measured is not None
        tuned = [model for model, _ in self.models_of(measured.group) if model.base in bases]
        names = {name for model in tuned for name in (model.name, model.base)}
        spec = HashedOften(
            engine=self.spec.engine.model_dump(), template=self._template, prompts=measured.prompts, **more
        )
        sets = {f"training_set/{name}": step.id for name, step in self.geometry_sets.items()}
        return {
            model.name: step_of("geometry", f"{model.name}{suffix}", spec, {**self._tensors(model), **sets})
            for model in self.models
            if model.name in names
        }

    @property
    def inputs(self) -> dict[str, str]:
        """What the results of the survey are made of besides scores, by name."""
        return {
            f"{name}/{kind}": step.id
            for kind, steps in (
                ("map", self.likelihood_maps),
                ("layers", self.layer_maps),
                ("geometry", self.geometries),
                ("states", self.state_maps),
            )
            for name, step in steps.items()
        }

    def steps(self, asking: Asking) -> Iterator[tuple[Step, Cost]]:
        """Every step with its cost without engine starts."""
        for step in self.likelihood_maps.values():
            yield step, self.map_cost
        bases = {model.name: model.base for model in self.models}
        for name, step in self.layer_maps.items():
            yield step, self.swaps_cost(bases[name], asking)
        for step in (*self.geometries.values(), *self.state_maps.values()):
            yield step, self.states_cost

    @property
    def map_cost(self) -> Cost:
        """The texts of the map that one model scores; a benchmark has at most so many questions."""
        measured = self.spec.measure.likelihood_map
        assert measured is not None
        return Cost(scored_texts=len(measured.texts) * measured.questions * len(self.questions))

    @property
    def states_cost(self) -> Cost:
        """The prompts whose hidden states are computed for one model."""
        measured = self.spec.measure.geometry
        assert measured is not None
        return Cost(scored_texts=len(self.geometry_sets) * measured.prompts)

    def swaps(self, base: str) -> int:
        """Swaps of one model of a base."""
        measured, pocket = self.spec.measure.layer_maps, self.spec.bases.pocket.get(base)
        assert measured is not None
        return len(layer_swaps(LAYERS if pocket is None else pocket.shape.layers, measured.cumulative))

    def swaps_cost(self, base: str, asking: Asking) -> Cost:
        """The answers of all swaps of one model."""
        measured, swaps = self.spec.measure.layer_maps, self.swaps(base)
        assert measured is not None
        one = sum((asking(name, measured.questions) for name in self.questions), Cost())
        return Cost(completions=swaps * one.completions, generated_tokens=swaps * one.generated_tokens)

    def models_of(self, group: int) -> list[tuple[Model, Run]]:
        """The models after the last epoch of the runs of one group."""
        wanted = group_runs(self.spec, group)
        return [
            (model, run)
            for model in self.models
            if (run := model.run) is not None
            and replace(run, epochs=()) in wanted
            and model.epoch == run.sft.epochs
        ]

    @property
    def _template(self) -> Any:
        template = self.spec.template
        return template if isinstance(template, str) else template.model_dump()

    def _asking_all(self, slug: str, spec: HashedOften, model: Model) -> Step:
        """A step of a model that asks questions of every benchmark."""
        asked = {f"questions/{name}": step.id for name, step in self.questions.items()}
        return step_of("scores", slug, spec, {**self._tensors(model), **asked})

    def _tensors(self, model: Model) -> dict[str, str]:
        """The inputs that are a model's weights."""
        inputs = {"model": self.base_id(model.base)}
        return inputs if model.tuned is None else {**inputs, "tuned": model.tuned.id}
