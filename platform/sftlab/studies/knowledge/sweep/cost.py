"""What a sweep takes: a step that trials share counts once, and what all trials depend on counts too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sftlab.errors import UserError
from sftlab.execution.cost import Cost, cost_text
from sftlab.execution.gpu_time import Speed, hours, hours_lines
from sftlab.store.record import Step
from sftlab.studies.knowledge.estimate import parameters
from sftlab.studies.knowledge.pipeline import CELL_STAGES
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sweep.sweep import Sweep, is_finished
from sftlab.studies.knowledge.sweep.trials import Trial


def rung_steps(sweep: Sweep, rung: Trial) -> Iterator[tuple[Step, Cost]]:
    """The steps of one rung of a trial, those of its probe first, and what each takes."""
    cell, prices = sweep.cell(rung), sweep.plan_of(rung).prices
    drawn = prices.drawn(cell.bucket, cell.size)
    for part in [cell] if cell.probe is None else [cell.probe, cell]:
        yield part.training_set, Cost()
        yield part.tuned, prices.tuning(part.bucket, part.size, part.sft.epochs)
        yield part.change, Cost()
        if part is cell:
            yield part.controls, Cost()
            yield part.updates, Cost()
        for percent, step in part.evaluations.items():
            yield step, prices.answering(percent, drawn)


def shared_steps(plan: Plan) -> list[tuple[Step, Cost]]:
    """What all trials of a sweep over this study depend on, and what each step takes."""
    wanted = {plan.facts.id, plan.mastery.id, plan.base_evaluation.id}
    wanted |= set() if plan.model is None else {plan.model.id}
    return [(step, cost) for step, cost in plan.steps() if step.id in wanted]


def short_id(step: Step) -> bytes:
    """Identifies a step in a twentieth of the memory of a step."""
    return bytes.fromhex(step.id[:24])


@dataclass(frozen=True)
class SweepPricing:
    """What trials of a sweep cost: `sweeps.searches.Pricing`."""

    sweep: Sweep

    def trials(self, trials: Iterable[Trial]) -> Cost:
        """What the steps of these trials take, each counted once."""
        total, seen = Cost(), set[bytes]()
        for trial in trials:
            for rung in self.sweep.maker.rungs_of(trial):
                for step, cost in rung_steps(self.sweep, rung):
                    if short_id(step) not in seen:
                        seen.add(short_id(step))
                        total += cost
        return total

    def models(self, trial: Trial) -> int:
        """How many models are evaluated: a ladder."""
        return len(trial.spec.restore.percents)

    def missing(self, trials: Iterable[Trial]) -> tuple[list[str], Cost]:
        """A line a stage with its HIT and BUILD counts, and what the missing steps take."""
        sweep = self.sweep
        counts = {stage: Counter[str]() for stage in CELL_STAGES}
        count = finished = 0
        total = Cost()
        seen: set[bytes] = set()
        for trial in trials:
            count += 1
            # Of a trial that ASHA stopped, or that went through all rungs, nothing is to do.
            over = sweep.spec.halving is not None and is_finished(sweep, trial)
            missing = 0
            for rung in sweep.maker.rungs_of(trial):
                for step, cost in rung_steps(sweep, rung):
                    key = short_id(step)
                    if key in seen:
                        continue
                    hit = sweep.store.is_committed(step)
                    if over and not hit:
                        continue
                    seen.add(key)
                    counts[step.stage]["HIT" if hit else "BUILD"] += 1
                    missing += not hit
                    if not hit:
                        total += cost
            finished += not missing
        lines = [f"sweep {sweep.spec.name}: {count:,} trials, {finished:,} finished"]
        lines += [
            f"  {stage:<13} {found['HIT']:>7,} HIT {found['BUILD']:>7,} BUILD"
            for stage, found in counts.items()
        ]
        return lines, total


def check_limits(sweep: Sweep) -> None:
    """Raises UserError where a limit of the sweep is below what it takes, HITs included."""
    limits = sweep.spec.limits
    sweep.search.check()  # a strategy that does not fit the data is reported before anything runs
    if all(value is None for value in limits.model_dump().values()):
        return
    pricing = SweepPricing(sweep)
    shared = sum((cost for _, cost in shared_steps(sweep.base.plan)), Cost())
    cost = shared + sweep.search.cost(pricing)
    cells, models = sweep.search.sizes(pricing)  # those that cells share count in each
    planned = {
        "max_cells": cells,
        "max_models": models,
        "max_generated_tokens": cost.generated_tokens,
        "max_trained_tokens": cost.trained_tokens,
        "max_cost": cost.generated_tokens + cost.trained_tokens,
    }
    over = [
        f"limits.{name} is {limit:,}, and the sweep plans {planned[name]:,}"
        for name, limit in limits.model_dump().items()
        if limit is not None and planned[name] > limit
    ]
    if over:
        raise UserError(
            f"the sweep {sweep.spec.name} is larger than its limits; nothing has run. {'; '.join(over)}. "
            f"In all it takes {cost_text(cost)}, what is there already included",
            value=sweep.spec.name,
            advice="shorten an axis, or raise the limit.",
        )


def plan_sweep(sweep: Sweep) -> str:
    """A text of a line a stage: HIT and BUILD counts, and the cost of what is missing."""
    shared = [(step, cost) for step, cost in shared_steps(sweep.base.plan) if sweep.base.missing(step)]
    first = []
    if shared:
        stages = ", ".join(step.stage for step, _ in shared)
        first = [f"  and first, shared by all trials: {stages} (`sftlab plan` of the study says more)"]
    before = sum((cost for _, cost in shared), Cost())
    if any(step.stage == "mastery" for step, _ in shared):
        before += Cost(engine_starts=sweep.runtime.engine.engines)
    with sweep.store.listed(*CELL_STAGES, names_only=True):
        planned = sweep.search.plan(SweepPricing(sweep))
    cost, most = planned.cost, "at most " if planned.at_most else ""
    if cost != Cost() or any(step.stage == "evaluation" for step, _ in shared):
        cost += Cost(engine_starts=sweep.runtime.sweep.engines or sweep.runtime.engine.engines)
    total = f"to build: {most}{cost_text(before + cost) or 'nothing'}"
    return "\n".join([*planned.lines, *first, total, *_gpu_lines(sweep, before + cost)])


def _gpu_lines(sweep: Sweep, cost: Cost) -> list[str]:
    """The GPU hours of a cost, in lines; none for a pocket model. Adapters count as full fine-tuning."""
    weights, rates = parameters(sweep.base.plan), sweep.runtime.rates
    if not weights:
        return []
    speed = Speed(rates, weights)
    starts = cost.engine_starts * rates.engine_start_seconds
    found = hours(
        {
            "training": speed.train(cost.trained_tokens),
            "answers": speed.read(cost.prompt_tokens) + speed.write(cost.generated_tokens),
            "weights": speed.move(cost.bytes_written + cost.bytes_read) + starts,
        }
    )
    return [f"{name or 'which is'}: {text}" for name, text in hours_lines(found, found, rates)]
