"""What a sweep will do: how many trials are there, what the others cost, step by step but without listing them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from sftlab.study.plan import Cost
from sftlab.study.preview import cost_text
from sftlab.study.sweep import Sweep, is_finished, trial_cost, tuning_cost
from sftlab.study.sweep_tune import trials_over

PLANNED = ("training-set", "tuned", "change", "evaluation")


def plan_sweep(sweep: Sweep) -> str:
    """A text of a line a stage: HIT and BUILD counts, and the cost of what is missing."""
    with sweep.store.listed(*PLANNED, names_only=True):
        return _plan(sweep)


def _plan(sweep: Sweep) -> str:
    counts = {stage: Counter[str]() for stage in PLANNED}
    trials = finished = 0
    cost = Cost()
    seen: set[bytes] = set()
    for trial in sweep.listed():
        trials += 1
        # Of a trial that ASHA stopped, or that went through all rungs, nothing is to do.
        over = sweep.spec.halving is not None and is_finished(sweep, trial)
        missing = 0
        for rung in sweep.maker.rungs_of(trial):
            cell, whole = sweep.cell(rung), trial_cost(sweep, rung)
            for part in [cell] if cell.probe is None else [cell.probe, cell]:
                for step in (part.training_set, part.tuned, part.change, *part.evaluations.values()):
                    key = bytes.fromhex(step.id[:24])  # steps that trials share are counted once
                    if key in seen:
                        continue
                    hit = sweep.store.is_committed(step)
                    if over and not hit:
                        continue
                    seen.add(key)
                    counts[step.stage]["HIT" if hit else "BUILD"] += 1
                    missing += not hit
                    if not hit and step.stage == "tuned":
                        cost += tuning_cost(sweep, part.size, part.sft.epochs)
                    if not hit and step.stage == "evaluation":
                        share = len(cell.evaluations)
                        cost += Cost(
                            completions=whole.completions // share,
                            generated_tokens=whole.generated_tokens // share,
                        )
        finished += not missing
    if sweep.spec.search.kind == "optuna":
        done = trials_over(sweep.records)
        return (
            f"sweep {sweep.spec.name}: Optuna chooses {sweep.spec.search.trials} trials, {done} are finished."
        )
    if counts["evaluation"]["BUILD"]:
        cost = replace(cost, engine_starts=sweep.runtime.sweep.engines or sweep.runtime.engine.engines)
    lines = [f"sweep {sweep.spec.name}: {trials:,} trials, {finished:,} finished"]
    lines += [
        f"  {stage:<13} {count['HIT']:>7,} HIT {count['BUILD']:>7,} BUILD" for stage, count in counts.items()
    ]
    shared = sweep.base.plan
    first = [
        step
        for step in (shared.facts, shared.model, shared.mastery, shared.base_evaluation)
        if step is not None
    ]
    lacking = [step.stage for step in sweep.base.missing(*first)]
    if lacking:
        lines.append(
            f"  and first, shared by all trials: {', '.join(lacking)} (`sftlab plan` of the study says more)"
        )
    return "\n".join([*lines, f"to build: {cost_text(cost) or 'nothing'}"])
