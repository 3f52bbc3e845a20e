"""What a survey amounts to: runs, models, questions, tokens, GPU hours and disk, for its plan. Nothing is measured.

GPU hours are those of `execution.gpu_time`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftlab.execution.gpu_time import (
    BFLOAT16_BYTES,
    DELTA_SHARES,
    SECONDS,
    GPUTime,
    Speed,
    aligned,
    hours,
    hours_lines,
)
from sftlab.execution.runtime import Rates
from sftlab.files import bytes_text
from sftlab.reporting.text import count, listed, short_count
from sftlab.store.record import Step
from sftlab.studies.survey.plan import Model, SurveyPlan
from sftlab.studies.survey.spec import BenchmarksSpec

QUESTION_TOKENS = (
    200  # of a question in a file or of a task, and of an example before it, with template; assumed
)
POCKET_QUESTION_TOKENS = 16
KINDS = ("training", "answers", "perplexity", "measures", "weights")


@dataclass(frozen=True)
class Totals:
    """The amounts of a survey.

    Attributes:
        models: tuned models that are kept; scored: these, the bases, and tuned models that are edited.
        questions: asked of all models; prompt_tokens, generated_tokens: of these, the latter an upper bound.
        gpu_hours, gpu_hours_left: by KINDS, of bases in folders; left: of what is not built yet.
        disk_bytes: of all tuned models as folders; delta_bytes: packed (`sftlab pack`).
        unknown: what could not be counted, one sentence each.
    """

    bases: int
    sets: int
    benchmarks: int
    runs: int
    models: int
    scored: int
    questions: int
    prompt_tokens: int
    generated_tokens: int
    trained_tokens: int
    gpu_hours: Mapping[str, float]
    gpu_hours_left: Mapping[str, float]
    disk_bytes: int
    delta_bytes: int
    unknown: tuple[str, ...] = ()


@dataclass
class _Seconds:
    """Sums of GPU seconds by kind, of everything and of what is left; `missing` says what is."""

    missing: Callable[[Step], bool]
    sums: GPUTime

    def add(self, kind: str, step: Step, seconds: float) -> None:
        self.sums.add(kind, seconds, self.missing(step))


def totals(plan: SurveyPlan, rates: Rates, missing: Callable[[Step], bool]) -> Totals:
    """The amounts of a survey; `missing` says whether a step is still to be built."""
    spec, seconds = plan.spec, _Seconds(missing, GPUTime.of_kinds(KINDS))
    weights = {base: parameters(plan, base) for base in spec.bases.folders}
    for model in plan.scored:
        known = weights.get(model.base)
        if known:
            speed = Speed(rates, known)
            _add_model(plan, speed, model, seconds)
            _add_measures(plan, speed, model, seconds)
    tuned = [model for model in plan.models if model.run is not None]
    asked = {name: plan.questions_of(name) or 0 for name in spec.benchmarks.names}
    of_one, scored = sum(asked.values()), len(plan.scored)
    trained = list({run.training: run for run in plan.runs}.values())
    disk = {model.name: _bytes(plan, weights, model.base) for model in tuned}
    return Totals(
        bases=len(spec.bases.names),
        sets=len(spec.data.names),
        benchmarks=len(asked),
        runs=len(trained),
        models=len(tuned),
        scored=scored,
        questions=of_one * scored,
        prompt_tokens=scored * sum(n * prompt_tokens(spec.benchmarks, name) for name, n in asked.items()),
        generated_tokens=scored * sum(n * plan.max_tokens(name) for name, n in asked.items()),
        trained_tokens=sum(plan.set_tokens(run) * run.sft.epochs for run in trained),
        gpu_hours=hours(seconds.sums.every),
        gpu_hours_left=hours(seconds.sums.left),
        disk_bytes=sum(disk.values()),
        delta_bytes=round(sum(_share(plan, model) * disk[model.name] for model in tuned)),
        unknown=_unknown(plan, weights),
    )


def prompt_tokens(asked: BenchmarksSpec, benchmark: str) -> int:
    """Tokens of a prompt of a benchmark, about; an example before a question has as many as a question."""
    if benchmark in asked.pocket_names:
        return POCKET_QUESTION_TOKENS
    shots = 0
    if benchmark in asked.few_shot:
        shots = asked.files[asked.few_shot[benchmark]].shots or 0
    elif asked.harness is not None and benchmark in asked.tasks:
        shots = asked.harness.shots or 0
    return QUESTION_TOKENS * (1 + shots)


def parameters(plan: SurveyPlan, base: str) -> int | None:
    """The number of weights of a base in a folder, as the survey says or by the size of its files; None: not known."""
    found = plan.spec.bases.folders[base]
    if found.parameters is not None:
        return found.parameters
    files = list(Path(found.path).glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) // BFLOAT16_BYTES if files else None


def epoch_hours(folder: Path, tokens: int, rates: Rates) -> float:
    """GPU hours of one epoch of full fine-tuning of the model in a folder on so many tokens."""
    from sftlab.weights.shards import Checkpoint

    with Checkpoint.open(folder) as checkpoint:
        weights = sum(checkpoint.numel(name) for name in checkpoint.names)
    return Speed(rates, weights).train(tokens) / SECONDS


def _add_model(plan: SurveyPlan, speed: Speed, model: Model, seconds: _Seconds) -> None:
    run, start = model.run, speed.rates.engine_start_seconds
    for name, step in model.scores.items():
        questions = plan.questions_of(name) or 0
        tokens = questions * prompt_tokens(plan.spec.benchmarks, name)
        written = speed.write(questions * plan.max_tokens(name))
        seconds.add("answers", step, speed.read(tokens) + written)
    moved = speed.move(BFLOAT16_BYTES * speed.weights)
    first = next(iter(model.scores.values()))
    if run is None or model.tuned is None:
        seconds.add("weights", first, start + moved)
        for (name, size), step in plan.perplexities[model.base].items():
            drawn = next(one for one in plan.runs if (one.data, one.size) == (name, size))
            # Responses and whole texts are read each.
            seconds.add("perplexity", step, speed.read(2 * plan.set_tokens(drawn)))
        return
    if model.rung is not None:  # the base and the tuned model are mixed while they are read
        seconds.add("weights", first, 2 * moved)
        return
    seconds.add("weights", model.tuned, moved)  # written once
    seconds.add("weights", first, moved)  # and read into an engine
    if model.epoch == run.sft.epochs:
        tokens = plan.set_tokens(run) * run.sft.epochs
        seconds.add("training", model.tuned, speed.train(tokens, run.sft.lora is not None))


def _add_measures(plan: SurveyPlan, speed: Speed, model: Model, seconds: _Seconds) -> None:
    """What the survey measures of a model on request."""
    measured = plan.measured
    read, written = speed.read(QUESTION_TOKENS), speed.write(1)
    if step := measured.likelihood_maps.get(model.name):
        seconds.add("measures", step, measured.map_cost.scored_texts * read)
    if step := measured.geometries.get(model.name):
        seconds.add("measures", step, measured.states_cost.scored_texts * read)
    if step := measured.layer_maps.get(model.name):
        cost = measured.swaps_cost(model.base, plan.asking)
        moved = speed.move(BFLOAT16_BYTES * speed.weights)
        swaps = measured.swaps(model.base)
        seconds.add(
            "measures", step, cost.completions * read + cost.generated_tokens * written + swaps * moved
        )


def _bytes(plan: SurveyPlan, weights: Mapping[str, int | None], base: str) -> int:
    if base in weights:
        return BFLOAT16_BYTES * (weights[base] or 0)
    return plan.model_bytes(base)


def _share(plan: SurveyPlan, model: Model) -> float:
    return DELTA_SHARES["float32" if model.base in plan.spec.bases.pocket else "bfloat16"]


def _unknown(plan: SurveyPlan, weights: Mapping[str, int | None]) -> tuple[str, ...]:
    lacking = [name for name, found in weights.items() if not found]
    asked = [name for name in plan.spec.benchmarks.names if plan.questions_of(name) is None]
    found = []
    if lacking:
        found.append(
            f"GPU hours and disk of {listed(lacking)}, which count as 0: give `parameters`, or the folder."
        )
    if asked:
        found.append(f"questions of {listed(asked)}, which count as 0: all are asked; give `questions`.")
    harness = plan.spec.benchmarks.harness
    if harness is not None:
        found.append(
            f"answer lengths of {listed(harness.tasks)}, which count as 0: the tasks of lm-eval set them."
        )
        found.append(
            "subtasks of groups of lm-eval: `questions` is of each subtask, and a group counts as one."
        )
        if harness.shots is None:
            found.append("examples before questions of lm-eval, which count as 0: give `shots`.")
    return tuple(found)


def totals_json(found: Totals, rates: Rates) -> dict[str, Any]:
    """The amounts as JSON values, with the rates that they are estimated from."""
    return {**asdict(found), "rates": rates.model_dump(mode="json"), "delta_shares": DELTA_SHARES}


def _scored(found: Totals) -> str:
    """The models that are scored, by what they are."""
    edited = found.scored - found.models - found.bases
    kinds = [count(found.bases, "base"), f"{found.models:,} tuned"]
    return ", ".join([*kinds, f"{edited:,} edited or restored"] if edited else kinds)


def totals_text(found: Totals, rates: Rates) -> str:
    """The amounts in lines."""
    read, written = short_count(found.prompt_tokens), short_count(found.generated_tokens)
    folders, packed = bytes_text(found.disk_bytes), bytes_text(found.delta_bytes)
    bases, sets, asked = (
        count(found.bases, "base"),
        count(found.sets, "set"),
        count(found.benchmarks, "benchmark"),
    )
    lines = [
        ("grid", f"{bases} x {sets}, {asked}"),
        (
            "runs",
            f"{found.runs:,}; {found.scored:,} models scored: {_scored(found)}",
        ),
        ("questions", f"{short_count(found.questions)}: {read} tokens read, at most {written} written"),
        ("training", f"about {short_count(found.trained_tokens)} tokens"),
        ("disk", f"{folders} of tuned models as folders; about {packed} packed as lossless deltas"),
    ]
    lines += hours_lines(found.gpu_hours, found.gpu_hours_left, rates)
    lines += [("not counted", text) for text in found.unknown]
    return aligned(lines)
