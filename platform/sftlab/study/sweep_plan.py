"""What a sweep will do: how many trials are there, what the others cost, step by step but without listing them."""

from __future__ import annotations

from collections import Counter

from sftlab.study.plan import Cost
from sftlab.study.preview import cost_text
from sftlab.study.sweep import Sweep, is_finished
from sftlab.study.sweep_cost import rung_steps, search_cost, shared_steps, short_id
from sftlab.study.sweep_tune import trials_over

PLANNED = ("training-set", "tuned", "change", "evaluation")


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
    with sweep.store.listed(*PLANNED, names_only=True):
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
    counts = {stage: Counter[str]() for stage in PLANNED}
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
