"""What a plan will do: HIT or BUILD for every step, why, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sftlab.config.leaves import flat
from sftlab.execution.cost import Cost, cost_text
from sftlab.execution.release import needed_again
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import StudyPlan
from sftlab.reporting.text import listed
from sftlab.store.artifact import Store
from sftlab.store.fingerprint import canonical
from sftlab.store.record import Record, Step, differences

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

REASONS_SHOWN = 3
ENOUGH = 0.5  # share of equal fields from which on a result is one to compare with
NOTHING_ALIKE = "nothing alike in the store"


@dataclass(frozen=True)
class PlannedStep:
    """One step's state; `cost` is nothing for a HIT.

    begun: whether parts of an unfinished step are here. damage: what is wrong with a committed one.
    """

    step: Step
    hit: bool
    reason: str
    cost: Cost
    begun: bool = False
    damage: str | None = None


def preview(plan: StudyPlan, store: Store, runtime: Runtime) -> list[PlannedStep]:
    """The state of every step. Engine starts are counted at the first step of each base model, its input `model`."""
    with store.listed(*(stage.name for stage in plan.stages)):
        return _preview(plan, store, runtime)


def _preview(plan: StudyPlan, store: Store, runtime: Runtime) -> list[PlannedStep]:
    records = {stage.name: store.records(stage.name) for stage in plan.stages}
    groups = {"engine": runtime.engine.engines, "evaluation": runtime.evaluation_engine.engines}
    starting = {stage.name: groups[stage.starts_engines] for stage in plan.stages if stage.starts_engines}
    started: set[tuple[str, str | None]] = set()
    planned: set[str] = set()
    to_build: set[str] = set()
    shown: list[PlannedStep] = []
    priced = list(plan.steps())
    again = {step.id for step in needed_again(store, plan.stages, [step for step, _ in priced])}
    for step, cost in priced:
        of_results = not planned.isdisjoint(step.inputs.values())
        planned.add(step.id)
        if step.id not in again and store.find(step) is not None:
            shown.append(PlannedStep(step, True, "", Cost()))
            continue
        engines = step.stage, step.inputs.get("model")
        if step.stage in starting and engines not in started:
            started.add(engines)
            cost = cost + Cost(engine_starts=starting[step.stage])
        damage, begun = store.damage(step), store.is_begun(step)
        first = [name for name, id in step.inputs.items() if id in to_build]
        reason = _needs(first) if first else why_not(step, records[step.stage], of_results)
        if step.id in again:
            reason = "deleted to save space (runtime.keep: recipe), and a missing step needs it"
        elif damage is not None:
            reason = f"damaged ({damage}), will be quarantined"
        else:
            reason += "; begun, will be resumed" if begun else ""
        to_build.add(step.id)
        begun = begun and damage is None and step.id not in again
        shown.append(PlannedStep(step, False, reason, cost, begun, damage))
    return shown


def why_not(step: Step, records: Sequence[Record], of_results: bool) -> str:
    """Why a step is not a HIT: the fields in which the nearest committed result differs.

    Nearest is, of those that were made of the most of the same inputs, the one with the largest share of equal
    fields. One with less than half of them, or with no input in common, belongs to another study and explains
    nothing. of_results: whether the step is made of other steps. One that is made of files alone, as facts are, has no
    input in common with that of the same study before a file was changed.
    """
    if not records:
        return "not in the store"
    shared = [len(record.inputs.items() & step.inputs.items()) for record in records]
    if of_results and not max(shared):
        return NOTHING_ALIKE
    related = [record for record, count in zip(records, shared, strict=True) if count == max(shared)]
    wanted = _fields(canonical(step.spec), step.inputs)
    shares = [_share(wanted, _fields(record.spec, record.inputs)) for record in related]
    if max(shares) < ENOUGH:
        return NOTHING_ALIKE
    nearest = related[shares.index(max(shares))]
    found = differences(step.spec, step.inputs, nearest)
    if nearest.revision != step.revision:
        found = [f"the stage's revision: {nearest.revision} -> {step.revision}", *found]
    if not found:
        return f"its result is in a folder of another name; expected {step.stage}/{step.folder}"
    more = f" and {len(found) - REASONS_SHOWN} more" if len(found) > REASONS_SHOWN else ""
    return "; ".join(found[:REASONS_SHOWN]) + more


def _needs(inputs: Sequence[str]) -> str:
    """What is to be built before a step: 'needs facts and model first'."""
    few = listed([name.replace("_", " ") for name in inputs])
    return f"needs {few if len(inputs) <= REASONS_SHOWN else f'{len(inputs):,} other results'} first"


def _fields(spec: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, str]:
    """Every field of a spec and every input, with its value as text."""
    return {name: str(value) for name, value in flat({"spec": spec, "input": inputs})}


def _share(one: Mapping[str, str], other: Mapping[str, str]) -> float:
    """How much of both is equal, in [0, 1]."""
    return len(one.items() & other.items()) / max(1, len(one.keys() | other.keys()))


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


def preview_text(
    plan: StudyPlan, shown: Sequence[PlannedStep], every_step: bool, by_default: bool = False
) -> str:
    """A row a stage (a row a step if `every_step`) and the total cost; `by_default`: no runtime was named.

    As wide as the terminal, or as COLUMNS, and in colours where stdout is a terminal and NO_COLOR is not set.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"study {plan.name}", title_justify="left", box=None, pad_edge=False)
    for name in ("stage", "step" if every_step else "steps", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("cost", overflow="fold")
    table.add_column("why", overflow="fold")
    for stage in plan.stages:
        rows = [planned for planned in shown if planned.step.stage == stage.name]
        for group in [[row] for row in rows] if every_step else [rows] if rows else []:
            hits = sum(row.hit for row in group)
            state = "HIT" if hits == len(group) else "BUILD" if not hits else f"BUILD {len(group) - hits}"
            name = f"{group[0].step.slug} {group[0].step.id[:12]}" if every_step else str(len(group))
            reason = next((row.reason for row in group if not row.hit), "")
            table.add_row(stage.name, name, state, cost_text(total_cost(group)), reason)
    with console.capture() as captured:
        _print_preview(console, plan, shown, by_default, table)
    return captured.get().rstrip("\n")


def _print_preview(
    console: Console, plan: StudyPlan, shown: Sequence[PlannedStep], by_default: bool, table: Table
) -> None:
    console.print(table, highlight=False, markup=False)
    hits = sum(row.hit for row in shown)
    total = cost_text(total_cost(shown)) or "nothing"
    console.print(f"{hits} of {len(shown)} steps are HITs; to build: {total}.", highlight=False, markup=False)
    if by_default:
        console.print(
            "Planned for one machine; for a cluster name its runtime file by --runtime.", highlight=False
        )
    for path in plan.outside.missing():
        console.print(f"Not here yet: {path}", highlight=False, markup=False)
