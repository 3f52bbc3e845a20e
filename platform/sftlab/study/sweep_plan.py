"""What a sweep will do: how many trials are there, what the others cost, step by step but without listing them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sftlab.store.artifact import RECORD, Store
from sftlab.study.plan import Cost
from sftlab.study.preview import cost_text
from sftlab.study.sweep import Sweep, trial_cost
from sftlab.study.sweep_tune import read_records

PLANNED = ("training-set", "tuned", "change", "evaluation")


class Committed:
    """Which steps a store has committed: a listing of each stage's folder, and a look at those that are named."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._names = {stage: _listed(store.root / stage) for stage in PLANNED}

    def __contains__(self, step: object) -> bool:
        path = self.store.path(step)  # type: ignore[arg-type]
        return path.name in self._names[path.parent.name] and (path / RECORD).exists()


def plan_sweep(sweep: Sweep) -> str:
    """A text of a line a stage: HIT and BUILD counts, and the cost of what is missing."""
    there, counts = Committed(sweep.store), {stage: Counter[str]() for stage in PLANNED}
    trials = finished = 0
    cost = Cost()
    seen: set[bytes] = set()
    for trial in sweep.listed():
        trials += 1
        cell = sweep.cell(trial)
        whole = trial_cost(sweep, trial)
        missing = 0
        for part in [cell] if cell.probe is None else [cell.probe, cell]:
            for step in (part.training_set, part.tuned, part.change, *part.evaluations.values()):
                key = bytes.fromhex(step.id[:24])  # steps that trials share are counted once
                if key in seen:
                    continue
                seen.add(key)
                hit = step in there
                counts[step.stage]["HIT" if hit else "BUILD"] += 1
                missing += not hit
                if not hit and step.stage == "tuned":
                    cost += Cost(trained_tokens=whole.trained_tokens, bytes_written=whole.bytes_written)
                if not hit and step.stage == "evaluation":
                    share = len(cell.evaluations)
                    cost += Cost(
                        completions=whole.completions // share,
                        generated_tokens=whole.generated_tokens // share,
                    )
        finished += not missing
    if sweep.spec.search.kind == "optuna":
        done = len(read_records(sweep.records))
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


def _listed(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except FileNotFoundError:
        return set()
