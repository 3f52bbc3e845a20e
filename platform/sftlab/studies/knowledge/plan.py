"""The steps of a study, readable from top to bottom: what is made of what, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

from sftlab.errors import UserError
from sftlab.execution.cost import Cost
from sftlab.execution.outside import OutsideFiles
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import Stage
from sftlab.facts.training_sets import MIXED
from sftlab.pocket.extent import training_tokens
from sftlab.store.fingerprint import HashedOften
from sftlab.store.record import Step
from sftlab.strategies import source_of
from sftlab.strategies.treatment import RestoreSpec
from sftlab.studies.knowledge.pipeline import STAGES
from sftlab.studies.knowledge.prices import AFTER_SPLITS, Prices
from sftlab.studies.knowledge.sources import Sources
from sftlab.studies.knowledge.spec import CHOSEN, StudySpec
from sftlab.training.spec import MaskSpec, SFTSpec

REVISIONS = {stage.name: stage.revision for stage in STAGES}


@dataclass(frozen=True)
class Cell:
    """One fine-tuning run of the grid with its restoration ladder; `evaluations` by percentage.

    `probe` is the short run that the mask of this one is found from, where `sft` has a mask. It is a cell of
    an ordinary study without the mask, but for its evaluations. `gradients` is there where the study measures them.
    """

    bucket: int | str
    size: int | str  # facts, or ALL
    seed: int
    sft: SFTSpec
    restore: RestoreSpec
    training_set: Step
    tuned: Step
    change: Step
    controls: Step
    updates: Step
    evaluations: Mapping[float, Step]
    probe: Cell | None = None
    mastery_after: Mapping[float | str, Step] = field(default_factory=dict)  # by percentage, and CHOSEN
    gradients: Step | None = None

    @property
    def name(self) -> str:
        return cell_name(self.bucket, self.size, self.seed)

    @property
    def run_id(self) -> str:
        """Name of the fine-tuning run, of which there is one for each tuned model."""
        return f"{self.name}-{self.tuned.id[:12]}"


def cell_name(bucket: int | str, size: int | str, seed: int) -> str:
    """Readable name of a cell, fit for a file: bucket0-n25-s0, mixed-nall-s0, mix1x0.25-4x0.75-n25-s0."""
    text = str(bucket)
    prefix = "bucket" if text.isdecimal() else "mix" if ":" in text else ""
    return f"{prefix}{text.replace(':', 'x').replace('+', '-')}-n{size}-s{seed}"


@dataclass(frozen=True)
class Plan:
    """All steps of a study. A step's id follows from its spec and its inputs' ids alone."""

    spec: StudySpec
    sources: Sources
    only: tuple[tuple[int | str, int | str, int], ...] | None = (
        None  # (bucket, size, seed) in place of the grid
    )

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
        """Raises UserError for missing files, a bad base model, and a tokenizer that reads a text otherwise."""
        from sftlab.execution.checks import check_base_model, check_pocket_model, engines_on_cpu
        from sftlab.studies.knowledge.check import check_base_tokenizer, check_metric

        self.outside.require()
        check_metric(self.spec, self.sources.fact_counts)
        trained, restored, on_cpu = [self.spec.sft], self.spec.restore, engines_on_cpu(stages, runtime)
        if self.spec.pocket is not None:
            check_pocket_model(self.spec.pocket.shape, trained, restored, on_cpu)
        if self.spec.model is None or not any("model" in stage.reads for stage in stages):
            return
        check_base_model(self.spec.model.path, self.spec.engine, trained, restored, on_cpu)
        if any(stage.needs_ray for stage in stages) and (lost := check_base_tokenizer(self.spec)):
            say(f"{self.spec.model.path}: the tokenizer or the context does not hold {', '.join(lost)}")

    @cached_property
    def facts(self) -> Step:
        if self.spec.pocket is not None:
            made_from: dict[str, Any] = {"pocket": self.pocket_spec}
        else:
            assert self.spec.facts is not None
            made_from = self.spec.facts.model_dump(exclude={"source", "templates"})
        return self._step("facts", "facts", made_from, self.sources.facts)

    @property
    def pocket_spec(self) -> dict[str, Any]:
        """The pocket model's spec less its path: the content is among the inputs."""
        assert self.spec.pocket is not None
        return self.spec.pocket.model_dump(exclude={"source"})

    @cached_property
    def model(self) -> Step | None:
        """Pre-training of the pocket model; None where the study brings a model."""
        if self.spec.pocket is None:
            return None
        return self._step("model", "model", {"pocket": self.pocket_spec}, {"facts": self.facts.id})

    @property
    def model_id(self) -> str:
        if self.model is not None:
            return self.model.id
        assert self.sources.model is not None
        return self.sources.model

    @cached_property
    def mastery(self) -> Step:
        spec = {"mastery": self.spec.mastery.model_dump(), "engine": self.spec.engine.model_dump()}
        return self._step("mastery", "mastery", spec, {"facts": self.facts.id, "model": self.model_id})

    @cached_property
    def base_evaluation(self) -> Step:
        return self._evaluation("base", 0.0, {})

    @cached_property
    def base_gradients(self) -> Step | None:
        """The gradients of facts at the base model; None where the study does not measure them."""
        return self._gradients("base", {})

    @cached_property
    def few_shot(self) -> Step | None:
        """The base model's answers after solved questions; None where the study does not ask for them."""
        asked = self.spec.few_shot
        if asked is None:
            return None
        parts = {"few_shot": asked, "answers": self.spec.answers, "engine": self.spec.engine}
        spec = {name: part.model_dump() for name, part in parts.items()}
        return self._step("few-shot", "base", spec, {"facts": self.facts.id, "model": self.model_id})

    def _cell_gradients(self, cell: Cell) -> Step | None:
        inputs = {"tuned": cell.tuned.id, "training_set": cell.training_set.id, "change": cell.change.id}
        return self._gradients(cell.name, inputs)

    def _gradients(self, slug: str, inputs: Mapping[str, str]) -> Step | None:
        asked = self.spec.gradients
        if asked is None:
            return None
        # Nothing is restored of the base model, and the mean gradient is not that of the predicted facts.
        spec = asked.model_dump(exclude=None if inputs else {"percent", "questions"})
        common = {"facts": self.facts.id, "mastery": self.mastery.id, "model": self.model_id}
        return self._step("gradients", slug, spec, {**common, **inputs})

    @property
    def gradients(self) -> list[Step]:
        """All measurements of gradients: of the base model, then of the cells; none where the study has none."""
        steps = (self.base_gradients, *(cell.gradients for cell in self.cells))
        return [step for step in steps if step is not None]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        grid = self.spec.training_sets
        wanted = product(grid.buckets, grid.sizes, grid.seeds) if self.only is None else self.only
        return tuple(self.cell(bucket, size, seed) for bucket, size, seed in wanted)

    @cached_property
    def probes(self) -> tuple[Cell, ...]:
        """The runs that masks are found from, each once: cells that differ in size alone share one."""
        return tuple({cell.probe.tuned.id: cell.probe for cell in self.cells if cell.probe}.values())

    def cell(self, bucket: int | str, size: int | str, seed: int) -> Cell:
        """The cell of one training set. Raises UserError where it is too small for the probe of a mask."""
        sft = self.spec.sft
        probe = None if sft.mask is None else self._probe(sft.mask, bucket, size, seed)
        cell = self._fine_tuning(bucket, size, seed, sft, self.spec.restore, probe)
        inputs = {"tuned": cell.tuned.id, "training_set": cell.training_set.id}
        ladder = {p: self._evaluation(f"{cell.name}-r{p:g}", p, inputs) for p in self.spec.restore.percents}
        cell = replace(cell, evaluations=ladder, gradients=self._cell_gradients(cell))
        return replace(
            cell, mastery_after={at: self._mastery_after(cell, at) for at in self.spec.mastery_after or ()}
        )

    def _probe(self, mask: MaskSpec, bucket: int | str, size: int | str, seed: int) -> Cell:
        if isinstance(size, int) and mask.size > size:
            raise UserError(
                f"is {mask.size:,}; a probe is part of the training set, and one of the sets has only {size:,} facts",
                place="sft.mask.size",
                value=mask.size,
                advice="lower it, or leave that set out of training_sets.sizes.",
            )
        sft = self.spec.sft.model_copy(update={"mask": None})
        restore = RestoreSpec(percents=(mask.percent,), region=mask.region, order=mask.order)
        return self._fine_tuning(bucket, mask.size, seed, sft, restore, None)

    def _fine_tuning(
        self,
        bucket: int | str,
        size: int | str,
        seed: int,
        sft: SFTSpec,
        restore: RestoreSpec,
        probe: Cell | None,
    ) -> Cell:
        """A cell without evaluations."""
        name = cell_name(bucket, size, seed)
        drawn = self._step(
            "training-set",
            name,
            {"bucket": bucket, "size": size, "seed": seed, **self._drawing(bucket)},
            {"facts": self.facts.id, "mastery": self.mastery.id},
        )
        inputs = {"model": self.model_id, "training_set": drawn.id}
        if probe is not None:
            inputs |= {"probe": probe.tuned.id, "probe_change": probe.change.id}
        spec = self._sft_spec if sft is self.spec.sft else sft.model_dump()
        tuned = self._step("tuned", name, spec, inputs)
        pair = {"model": self.model_id, "tuned": tuned.id}
        # The profile and the cuts do not depend on what a method of its own does with the weights.
        ranked = restore.model_dump(exclude={"method", "parameters"})
        change = self._step("change", name, ranked, pair)
        controls = self._step("controls", name, ranked, pair | {"change": change.id})
        updates = self._step("updates", name, {}, pair)
        return Cell(bucket, size, seed, sft, restore, drawn, tuned, change, controls, updates, {}, probe)

    def _drawing(self, bucket: int | str) -> dict[str, Any]:
        """What of the settings of the draw concerns a bucket; nothing by default.

        `mixture` and `replayed` were `mixed` and `replay` while sweeps drew such sets without either.
        """
        sets = self.spec.training_sets
        found = {
            "balance": sets.balance,
            "margin": sets.margin,
            "mixture": sets.mixed if bucket == MIXED else None,
            "replayed": sets.replay,
            "leave_out": sets.leave_out,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _evaluation(self, slug: str, percent: float, inputs: Mapping[str, str]) -> Step:
        common = {"facts": self.facts.id, "mastery": self.mastery.id, "model": self.model_id}
        source = source_of(self.spec.restore.method) if percent and self.spec.restore.method else None
        if source is not None:  # a custom strategy; 0 % is the tuned model whatever its code
            common["method"] = source
        return self._step("evaluation", slug, self._evaluation_spec(percent), {**common, **inputs})

    def _mastery_after(self, cell: Cell, at: float | str) -> Step:
        """Mastery of the test facts by a model of a ladder; which one is chosen depends on the answers of them all."""
        inputs = {"facts": self.facts.id, "model": self.model_id, "tuned": cell.tuned.id}
        source = source_of(self.spec.restore.method) if at and self.spec.restore.method else None
        if source is not None:
            inputs["method"] = source
        if at == CHOSEN:
            inputs |= {"mastery": self.mastery.id} | {
                f"{p:g}": step.id for p, step in cell.evaluations.items()
            }
        restore = self.spec.restore.model_dump(exclude={"percents"}) | {"percent": at}
        spec = {
            "mastery": self.spec.mastery.model_dump(),
            "engine": self.spec.engine.model_dump(),
            "splits": list(AFTER_SPLITS),
            "restore": restore if at else None,
        } | (self._metric if at == CHOSEN else {})
        name = at if isinstance(at, str) else f"r{at:g}"
        return self._step("mastery-after", f"{cell.name}-{name}", spec, inputs)

    def _evaluation_spec(self, percent: float) -> Mapping[str, Any]:
        """The same object for a percentage every time: a sweep hashes it once for all its trials."""
        if percent not in self._evaluation_specs:
            self._evaluation_specs[percent] = HashedOften(
                answers=self.spec.answers.model_dump(),
                divergence=self.spec.divergence.model_dump(),
                engine=self.spec.engine.model_dump(),
                # 0 % is the tuned model whatever the order, so it is shared by all ladders.
                restore=self.spec.restore.model_dump(exclude={"percents"}) | {"percent": percent}
                if percent
                else None,
            )
        return self._evaluation_specs[percent]

    @cached_property
    def _evaluation_specs(self) -> dict[float, HashedOften]:
        return {}

    @cached_property
    def _sft_spec(self) -> Mapping[str, Any]:
        return HashedOften(self.spec.sft.model_dump())

    @cached_property
    def results(self) -> Step:
        return self._step("results", self.spec.name, {"name": self.spec.name} | self._metric, self._measured)

    @property
    def _metric(self) -> dict[str, str]:
        """What chooses, for the spec of a step that depends on the choice; nothing where it is the default."""
        return {} if self.spec.metric is None else {"metric": self.spec.metric}

    @cached_property
    def _measured(self) -> dict[str, str]:
        """What the results are made of."""
        inputs = {"mastery": self.mastery.id, "base": self.base_evaluation.id}
        for cell in self.cells:
            inputs[f"{cell.name}/change"] = cell.change.id
            inputs[f"{cell.name}/controls"] = cell.controls.id
            inputs[f"{cell.name}/updates"] = cell.updates.id
            inputs |= {f"{cell.name}/{p:g}": step.id for p, step in cell.evaluations.items()}
            inputs |= {f"{cell.name}/mastery-{at}": step.id for at, step in cell.mastery_after.items()}
        inputs |= {f"{step.slug}/gradients": step.id for step in self.gradients}
        if self.few_shot is not None:
            inputs["few-shot"] = self.few_shot.id
        return inputs

    @cached_property
    def best(self) -> Step:
        """The recommended model. The results that recommend it hold the study's name, which is no part of it."""
        spec = {"results": REVISIONS["results"]} | self._metric
        return self._step("best", "best", spec, self._measured)

    @cached_property
    def report(self) -> Step:
        return self._step("report", self.spec.name, {}, {"results": self.results.id})

    @property
    def prices(self) -> Prices:
        """What the steps take."""
        return Prices(self.spec, self.sources)

    def _step(self, stage: str, slug: str, spec: Mapping[str, Any], inputs: Mapping[str, str]) -> Step:
        return Step(stage, slug, spec, dict(inputs), REVISIONS[stage])

    def steps(self) -> Iterator[tuple[Step, Cost]]:
        """Every step, in the order in which it is built, with its cost without engine starts."""
        counts, size, prices = self.sources.fact_counts, self.sources.model_bytes, self.prices
        yield self.facts, Cost()
        if self.model is not None:
            assert self.spec.pocket is not None
            yield self.model, Cost(trained_tokens=training_tokens(self.spec.pocket), bytes_written=size)
        yield self.mastery, prices.scoring(counts.values())
        drawn = {cell.training_set.id: cell.training_set for cell in (*self.probes, *self.cells)}
        for step in drawn.values():
            yield step, Cost()
        for runs in (self.probes, self.cells):  # a mask is found from the change of a finished probe
            for cell in runs:
                yield cell.tuned, prices.tuning(cell.bucket, cell.size, cell.sft.epochs)
            for cell in runs:
                yield cell.change, Cost()
        for cell in self.cells:
            yield cell.controls, Cost()
        for cell in self.cells:
            yield cell.updates, Cost()
        for step in self.gradients:
            yield step, Cost()
        yield self.base_evaluation, prices.answering(0, 0)
        for cell in self.cells:
            for percent, step in cell.evaluations.items():
                yield step, prices.answering(percent, prices.drawn(cell.bucket, cell.size))
        for cell in self.cells:
            for at, step in cell.mastery_after.items():
                yield step, prices.scoring([counts[split] for split in AFTER_SPLITS]) + prices.loading(at)
        if self.few_shot is not None:
            yield self.few_shot, prices.answering_after_examples()
        yield self.results, Cost()
        yield self.best, Cost(bytes_written=size)
        yield self.report, Cost()
