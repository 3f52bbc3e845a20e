"""What people read about a survey's best models: the parent run's description, and a README.md for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sftlab.studies.survey.champions import DEV, TEST, Scored
from sftlab.studies.survey.tracking.records import KeptModel, TrackedRun, TrackedSurvey
from sftlab.tracking.records import as_text, flat

HOW_TO_READ = (
    "A run below is one fine-tuning run; its kept epochs are logged models, and its curves have the epoch as their "
    "step. Runs of the kind `edited` have the models of a ladder, or of a method that edits tuned models; the "
    "percentage is their step, or the epoch where several are kept. `score/...` and `form/...` (answers in the asked "
    "form) in per cent, `gain/...` in points over the base, "
    "`gain_standardised/...` in standard deviations of the benchmark's gains over all tuned models, `mean` over the "
    "benchmarks, `dev` and `test` on the two halves of the questions. `chosen/...`: the epoch that is best on dev, and "
    "its gains. `perplexity/...` and `bits_per_byte` of the training set under the base, before training. "
    "`movement/position_...`: relative change of the weights, from the input (0) to the output (1)."
)


def registered_name(survey: str, base: str) -> str:
    """Name of the registered model of a base."""
    return f"{survey}-{base}"


def note(survey: TrackedSurvey) -> str:
    """Description of the parent run, Markdown."""
    runs = survey.trained
    models = sum(len(run.models) for run in runs)
    bases, benchmarks = (
        sum(not run.models for run in survey.runs),
        len({row.benchmark for row in survey.scored}),
    )
    text = (
        f"**{survey.name}**: {bases:,} base models, {len(runs):,} runs with {models:,} models, {benchmarks:,} "
        "benchmarks."
    )
    if survey.champions:
        lines = [
            "| base | best model | gain on dev | gain on test | 95 % interval |",
            "|---|---|---|---|---|",
        ]
        for row in survey.champions:
            run, model = found_model(survey, row)
            name = registered_name(survey.name, str(row["base"]))
            lines.append(
                f"| {row['base']} | [{run.name}](#/models/{name}), epoch {model.epoch} | {row[DEV]:+.2f} | "
                f"{_signed(row[TEST])} | {_interval(row)} |"
            )
        text += (
            "\n\n**The best model of each base**, chosen on half of the questions of every benchmark (dev) and judged "
            "on the other half (test); mean gain in standard deviations. Each is registered under its link with the "
            "alias `champion`, and its run begins with a star.\n\n" + "\n".join(lines)
        )
    return f"{text}\n\n{HOW_TO_READ}"


def headline(survey: TrackedSurvey, row: Mapping[str, Any]) -> str:
    """Description of a registered version, Markdown."""
    run, model = found_model(survey, row)
    return "\n\n".join(
        [
            f"Best model of the base `{row['base']}` in the survey {survey.name}: run `{run.name}`, epoch "
            f"{model.epoch}. {_judged(row)}",
            score_table(survey.scored, str(row["base"]), model.id),
        ]
    )


def model_card(survey: TrackedSurvey, row: Mapping[str, Any], template: str) -> str:
    """README.md of a base's best model, as Hugging Face and people read it."""
    run, model = found_model(survey, row)
    base = str(row["base"])
    name = registered_name(survey.name, base)
    head = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base,
        "license": "unknown",
        "tags": ["sftlab", str(run.labels["method"])],
    }
    settings = {**run.labels, "epoch": model.epoch, "template": template, **dict(flat("sft", run.sft))}
    settings["artifact"] = model.id
    lines = [f"| {key} | {as_text(value)} |" for key, value in settings.items() if value is not None]
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"The base model `{base}`, fine-tuned on {run.labels['data']} ({as_text(run.labels['size'])} examples of each "
        f"set). {_judged(row)}",
        "## Scores",
        score_table(survey.scored, base, model.id),
        "## Settings",
        "\n".join(["| setting | value |", "|---|---|", *lines]),
        "## How to load",
        f"""```python
import mlflow
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = mlflow.artifacts.download_artifacts("models:/{name}@champion")
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```""",
        "## Licence and limits",
        "Whatever terms the base model and the training sets have hold for this model too. It was measured on the "
        "benchmarks of the survey alone.",
    ]
    return "\n\n".join(sections) + "\n"


def score_table(scored: Sequence[Scored], base: str, model: str) -> str:
    """Scores of a model and its base on every benchmark, in per cent: Markdown."""
    before = {row.benchmark: row.score for row in scored if row.base == base and row.model == base}
    lines = ["| benchmark | base | tuned | gain |", "|---|---|---|---|"]
    lines += [
        f"| {row.benchmark} | {100 * before[row.benchmark]:.1f} | {100 * row.score:.1f} | "
        f"{100 * (row.score - before[row.benchmark]):+.1f} |"
        for row in scored
        if row.base == base and row.model == model
    ]
    return "\n".join(lines)


def found_model(survey: TrackedSurvey, row: Mapping[str, Any]) -> tuple[TrackedRun, KeptModel]:
    """The run and the kept epoch that a row of champions names."""
    return next(
        (run, model)
        for run in survey.runs
        for model in run.models
        if run.base == row["base"] and model.id == row["model"]
    )


def _judged(row: Mapping[str, Any]) -> str:
    others = row["ties"]
    have = "1 other model has" if others == 1 else f"{others:,} other models have"
    tie = f" {have} the same gain on dev, and the first is named." if others else ""
    if row[TEST] is None:
        return f"It was chosen on half of the questions (mean gain {row[DEV]:+.2f} standard deviations).{tie}"
    beyond = "" if row["low"] > 0 or row["high"] < 0 else ", which does not distinguish it from the base"
    return (
        f"It was chosen on half of the questions of every benchmark (mean gain {row[DEV]:+.2f} standard deviations). "
        f"On the {row['questions']:,} other questions its mean gain is {row[TEST]:+.2f} (95 % interval "
        f"{_interval(row)}){beyond}.{tie}"
    )


def _interval(row: Mapping[str, Any]) -> str:
    return "–" if row["low"] is None else f"{row['low']:+.2f} to {row['high']:+.2f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
