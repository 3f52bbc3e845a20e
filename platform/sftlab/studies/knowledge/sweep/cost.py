"""What a sweep takes: a step that trials share counts once, and what all trials rest on counts too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.execution.cost import Cost, cost_text
from sftlab.store.record import Step
from sftlab.studies.knowledge.pipeline import CELL_STAGES
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sweep.sweep import Sweep, is_finished
from sftlab.sweeps.records import trials_over

if TYPE_CHECKING:
    from sftlab.studies.knowledge.sweep.trials import Trial


def rung_steps(sweep: Sweep, rung: Trial) -> Iterator[tuple[Step, Cost]]:
    """The steps of one rung of a trial, those of its probe first, and what each takes."""
    plan, cell = sweep.plan_of(rung), sweep.cell(rung)
    answering = plan.answering(cell.size)
    for part in [cell] if cell.probe is None else [cell.probe, cell]:
        yield part.training_set, Cost()
        yield part.tuned, plan.tuning(part)
        yield part.change, Cost()
        for step in part.evaluations.values():
            yield step, answering


def shared_steps(plan: Plan) -> list[tuple[Step, Cost]]:
    """What all trials of a sweep over this study rest on, and what each step takes."""
    wanted = {plan.facts.id, plan.mastery.id, plan.base_evaluation.id}
    wanted |= set() if plan.model is None else {plan.model.id}
    return [(step, cost) for step, cost in plan.steps() if step.id in wanted]


def short_id(step: Step) -> bytes:
    """Tells steps apart in a twentieth of the memory of a step."""
    return bytes.fromhex(step.id[:24])


def trials_cost(sweep: Sweep, trials: Iterable[Trial]) -> Cost:
    """What the steps of these trials take, each counted once."""
    total, seen = Cost(), set[bytes]()
    for trial in trials:
        for rung in sweep.maker.rungs_of(trial):
            for step, cost in rung_steps(sweep, rung):
                if short_id(step) not in seen:
                    seen.add(short_id(step))
                    total += cost
    return total


def dearest_point(sweep: Sweep) -> Cost:
    """What a point of a search takes at most, with all its seeds; a sampler's points are not known beforehand."""
    each = [trials_cost(sweep, [trial]) for trial in sweep.maker.dearest()]
    seeds = len(sweep.spec.axes.seed)
    return Cost(
        completions=seeds * max(cost.completions for cost in each),
        generated_tokens=seeds * max(cost.generated_tokens for cost in each),
        trained_tokens=seeds * max(cost.trained_tokens for cost in each),
        bytes_written=seeds * max(cost.bytes_written for cost in each),
    )


def search_cost(sweep: Sweep, points: int) -> Cost:
    """The most that so many points of a search take, without what all trials rest on."""
    return sum([dearest_point(sweep)] * points, Cost())


def check_limits(sweep: Sweep) -> None:
    """Raises UserError where a limit of the sweep lies below what it takes, HITs included."""
    limits = sweep.spec.limits
    if sweep.spec.search.kind == "optuna":
        sweep.maker.dearest()  # a strategy that does not fit the data is told before anything runs
    if all(value is None for value in limits.model_dump().values()):
        return
    cost = _whole(sweep)
    planned = _counts(sweep) | {
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
            f"The sweep {sweep.spec.name} is larger than its limits; nothing has run. {'; '.join(over)}. "
            f"In all it takes {cost_text(cost)}, what is there already included. Shorten an axis, or raise the limit."
        )


def _whole(sweep: Sweep) -> Cost:
    """What the whole sweep takes at most, as if nothing of it were there."""
    shared = sum((cost for _, cost in shared_steps(sweep.base.plan)), Cost())
    search = sweep.spec.search
    if search.kind == "optuna":
        return shared + search_cost(sweep, search.trials or 0)
    return shared + trials_cost(sweep, sweep.listed())


def _counts(sweep: Sweep) -> dict[str, int]:
    """Cells and evaluated models, by the names of their limits; those that cells share count in each."""
    halving, search = sweep.spec.halving, sweep.spec.search
    rungs = 1 if halving is None else len(halving.rungs)
    if search.kind == "optuna":
        cells = (search.trials or 0) * len(sweep.spec.axes.seed) * rungs
        ladder = max(len(trial.spec.restore.percents) for trial in sweep.maker.dearest())
        return {"max_cells": cells, "max_models": cells * ladder}
    ladders = [len(trial.spec.restore.percents) for trial in sweep.listed()]
    return {"max_cells": rungs * len(ladders), "max_models": rungs * sum(ladders)}


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
        lines, cost, most = _plan_search(sweep) if sweep.spec.search.kind == "optuna" else _plan(sweep)
    if cost != Cost() or any(step.stage == "evaluation" for step, _ in shared):
        cost += Cost(engine_starts=sweep.runtime.sweep.engines or sweep.runtime.engine.engines)
    return "\n".join([*lines, *first, f"to build: {most}{cost_text(before + cost) or 'nothing'}"])


def _plan_search(sweep: Sweep) -> tuple[list[str], Cost, str]:
    """A sampler's points are not known yet: each is taken for the dearest one of the space."""
    points, done = sweep.spec.search.trials or 0, trials_over(sweep.records)
    line = f"sweep {sweep.spec.name}: Optuna chooses {points} points, {done} are finished"
    left = max(0, points - done)
    return [line], search_cost(sweep, left), "at most " if left else ""


def _plan(sweep: Sweep) -> tuple[list[str], Cost, str]:
    counts = {stage: Counter[str]() for stage in CELL_STAGES}
    trials = finished = 0
    total = Cost()
    seen: set[bytes] = set()
    for trial in sweep.listed():
        trials += 1
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
    lines = [f"sweep {sweep.spec.name}: {trials:,} trials, {finished:,} finished"]
    lines += [
        f"  {stage:<13} {count['HIT']:>7,} HIT {count['BUILD']:>7,} BUILD" for stage, count in counts.items()
    ]
    return lines, total, ""
