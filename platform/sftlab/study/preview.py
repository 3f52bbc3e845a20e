"""What a plan will do: HIT or BUILD for every step, why, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sftlab.store.artifact import Record, Step, Store, differences
from sftlab.study.plan import STAGES, Cost, Plan
from sftlab.study.runtime import Runtime

REASONS_SHOWN = 3
STEPS_SHOWN = 12


@dataclass(frozen=True)
class PlannedStep:
    """One step's state; `cost` is nothing for a HIT."""

    step: Step
    hit: bool
    reason: str
    cost: Cost


def preview(plan: Plan, store: Store, runtime: Runtime) -> list[PlannedStep]:
    """The state of every step. Engine starts stand at the first step of a stage that needs engines."""
    records = {stage: store.records(stage) for stage in STAGES}
    stages_started: set[str] = set()
    shown: list[PlannedStep] = []
    for step, cost in plan.steps():
        if store.find(step) is not None:
            shown.append(PlannedStep(step, True, "", Cost()))
            continue
        if step.stage in ("mastery", "evaluation") and step.stage not in stages_started:
            stages_started.add(step.stage)
            cost = cost + Cost(engine_starts=runtime.engine.engines)
        begun = store.path(step).is_dir() and any(store.path(step).iterdir())
        reason = why_not(step, records[step.stage]) + ("; begun, will be resumed" if begun else "")
        shown.append(PlannedStep(step, False, reason, cost))
    return shown


def why_not(step: Step, records: Sequence[Record]) -> str:
    """Why a step is not a HIT: the fields in which the nearest committed result differs."""
    if not records:
        return "nothing of this stage is in the store"
    named = [record for record in records if record.slug == step.slug] or list(records)
    nearest = min((differences(step.spec, step.inputs, record) for record in named), key=len)
    if not nearest:
        return "the stage's revision is new"
    more = f" and {len(nearest) - REASONS_SHOWN} more" if len(nearest) > REASONS_SHOWN else ""
    return "; ".join(nearest[:REASONS_SHOWN]) + more


def total_cost(shown: Sequence[PlannedStep]) -> Cost:
    return sum((planned.cost for planned in shown), Cost())


def plan_json(shown: Sequence[PlannedStep]) -> dict[str, Any]:
    """The plan as JSON-able data."""
    steps = [
        {
            "stage": planned.step.stage,
            "slug": planned.step.slug,
            "id": planned.step.id,
            "state": "HIT" if planned.hit else "BUILD",
            "reason": planned.reason,
            "cost": asdict(planned.cost),
        }
        for planned in shown
    ]
    return {"steps": steps, "cost": asdict(total_cost(shown))}


def print_preview(plan: Plan, shown: Sequence[PlannedStep], every_step: bool) -> None:
    """Print a table of the steps (long stages in one row, unless `every_step`) and the total cost."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"study {plan.spec.name}", title_justify="left", box=None, pad_edge=False)
    for name in ("stage", "step", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("completions", "tokens out", "tokens trained", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for stage in STAGES:
        rows = [planned for planned in shown if planned.step.stage == stage]
        if not rows:
            continue
        if len(rows) > STEPS_SHOWN and not every_step:
            hits = sum(row.hit for row in rows)
            state = "HIT" if hits == len(rows) else f"BUILD {len(rows) - hits}"
            reason = next((row.reason for row in rows if not row.hit), "")
            table.add_row(stage, f"{len(rows)} steps", state, *_costs(total_cost(rows)), reason)
            continue
        for row in rows:
            state = "HIT" if row.hit else "BUILD"
            table.add_row(stage, f"{row.step.slug} {row.step.id[:12]}", state, *_costs(row.cost), row.reason)
    console.print(table, highlight=False, markup=False)
    total = total_cost(shown)
    hits = sum(row.hit for row in shown)
    console.print(
        f"{hits} of {len(shown)} steps are HITs. To build: {total.engine_starts} engine starts, "
        f"{total.completions:,} completions of at most {total.generated_tokens:,} tokens, "
        f"about {total.trained_tokens:,} trained tokens, {_bytes(total.bytes_written)} of weights.",
        highlight=False,
        markup=False,
    )
    for value in [*plan.sources.facts.values(), plan.sources.model or ""]:
        if value.startswith("missing:"):
            console.print(f"Not here yet: {value.removeprefix('missing:')}", highlight=False, markup=False)


def _costs(cost: Cost) -> tuple[str, str, str, str]:
    counts = (cost.completions, cost.generated_tokens, cost.trained_tokens)
    return (*(f"{count:,}" if count else "" for count in counts), _bytes(cost.bytes_written))  # type: ignore[return-value]


def _bytes(count: float) -> str:
    if not count:
        return ""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if count >= 10 or unit == "B" else f"{count:,.1f} {unit}"
