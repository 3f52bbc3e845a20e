"""What a study amounts to: models, tokens, GPU hours and disk, for its plan. Nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sftlab.execution.cost import Cost
from sftlab.execution.gpu_time import (
    BFLOAT16_BYTES,
    DELTA_SHARES,
    GPUTime,
    Speed,
    aligned,
    hours,
    hours_lines,
)
from sftlab.execution.runtime import Keep, Rates, Runtime
from sftlab.files import bytes_text
from sftlab.reporting.text import count, short_count
from sftlab.store.record import Step
from sftlab.studies.knowledge.plan import Plan

SCORING = ("mastery", "mastery-after")
KINDS = ("training", "scoring", "answers", "weights")


@dataclass(frozen=True)
class Totals:
    """The amounts of a study.

    Attributes:
        models: tuned models; evaluated: models that answer, the base and the restored ones included.
        completions, prompt_tokens, generated_tokens, trained_tokens: of all; generated ones are an upper bound.
        gpu_hours, gpu_hours_left: by KINDS, of a base model in a folder; left: of what is not built yet.
        disk_bytes: of all tuned models as folders; delta_bytes: as lossless deltas. keep: as the runtime says.
        unknown: what is not counted, one sentence each.
    """

    models: int
    evaluated: int
    completions: int
    prompt_tokens: int
    generated_tokens: int
    trained_tokens: int
    gpu_hours: Mapping[str, float]
    gpu_hours_left: Mapping[str, float]
    disk_bytes: int
    delta_bytes: int
    keep: Keep
    unknown: tuple[str, ...] = ()


def totals(plan: Plan, runtime: Runtime, missing: Callable[[Step], bool]) -> Totals:
    """The amounts of a study; `missing` says whether a step is still to be built."""
    time = GPUTime.of_kinds(KINDS)
    weights = parameters(plan)
    speed = Speed(runtime.rates, weights) if weights else None
    starting = {stage.name for stage in plan.stages if stage.starts_engines}
    total, tuned, evaluated, disk = Cost(), 0, 0, 0
    for step, cost in plan.steps():
        total += cost
        tuned += step.stage == "tuned"
        evaluated += step.stage == "evaluation"
        disk += cost.bytes_written if step.stage == "tuned" else 0
        if speed is not None:
            start = runtime.rates.engine_start_seconds if step.stage in starting else 0.0
            starting.discard(step.stage)
            _add(time, step, cost, speed, missing(step))
            time.add("weights", start, missing(step))
    share = DELTA_SHARES["bfloat16" if plan.spec.pocket is None else "float32"]
    return Totals(
        models=tuned,
        evaluated=evaluated,
        completions=total.completions,
        prompt_tokens=total.prompt_tokens,
        generated_tokens=total.generated_tokens,
        trained_tokens=total.trained_tokens,
        gpu_hours=hours(time.every),
        gpu_hours_left=hours(time.left),
        disk_bytes=disk,
        delta_bytes=round(share * disk),
        keep=runtime.keep,
        unknown=_unknown(plan, weights),
    )


def parameters(plan: Plan) -> int | None:
    """The number of weights of a base model in a folder, as the study says or by its size; None: pocket or unknown."""
    model = plan.spec.model
    if model is None:
        return None
    return model.parameters or plan.sources.model_bytes // BFLOAT16_BYTES or None


def _add(time: GPUTime, step: Step, cost: Cost, speed: Speed, missing: bool) -> None:
    adapters = step.stage == "tuned" and step.spec.get("lora") is not None
    asked = speed.read(cost.prompt_tokens) + speed.write(cost.generated_tokens)
    time.add("training", speed.train(cost.trained_tokens, adapters), missing)
    time.add("scoring" if step.stage in SCORING else "answers", asked, missing)
    time.add("weights", speed.move(cost.bytes_written + cost.bytes_read), missing)


def _unknown(plan: Plan, weights: int | None) -> tuple[str, ...]:
    found = []
    if plan.spec.model is not None and not weights:
        found.append("GPU hours and disk: give `model.parameters`, or the folder of the model.")
    if plan.sources.lacks_facts and not plan.sources.fact_counts["train"]:
        found.append("scoring facts and answering them: how many there are is not known.")
    if plan.spec.gradients is not None:
        found.append("gradients of facts.")
    return tuple(found)


def totals_json(found: Totals, rates: Rates) -> dict[str, Any]:
    """The amounts as JSON values, with the rates that they are estimated from."""
    return {**asdict(found), "rates": rates.model_dump(mode="json"), "delta_shares": DELTA_SHARES}


def totals_text(found: Totals, rates: Rates) -> str:
    """The amounts in lines."""
    read, written = short_count(found.prompt_tokens), short_count(found.generated_tokens)
    folders, deltas = bytes_text(found.disk_bytes), bytes_text(found.delta_bytes)
    kept = {
        "full": f"kept as folders; about {deltas} with runtime.keep=delta, none in the end with recipe",
        "delta": f"as folders; kept as deltas, about {deltas}",
        "recipe": "until the study is finished; then deleted (runtime.keep: recipe)",
    }
    lines = [
        ("models", f"{found.models:,} tuned, {count(found.evaluated, 'model')} evaluated"),
        (
            "answers",
            f"{short_count(found.completions)} completions: about {read} tokens read, at most {written} written",
        ),
        ("training", f"about {short_count(found.trained_tokens)} tokens"),
        ("disk", f"{folders} of tuned models {kept[found.keep]}"),
        *hours_lines(found.gpu_hours, found.gpu_hours_left, rates),
    ]
    lines += [("not counted", text) for text in found.unknown]
    return aligned(lines)
