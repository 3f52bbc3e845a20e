"""The model card of a recommended model: README.md with settings, numbers, base model and licence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sftlab.config.documents import parse_yaml
from sftlab.errors import UserError
from sftlab.studies.knowledge.results.choice import metric_of
from sftlab.studies.knowledge.results.rows import AccuracyRow
from sftlab.studies.knowledge.results.tables import Recommended, Results
from sftlab.studies.knowledge.results.ties import ties
from sftlab.studies.knowledge.tracking.metrics import tie_text
from sftlab.studies.knowledge.tracking.runs import (
    TEST_SPLITS,
    choice_text,
    score_table,
    verdict_lines,
)
from sftlab.tracking.names import percent_text
from sftlab.tracking.records import TrackedModel, as_text, flat

LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "USE_POLICY.md", "NOTICE")
_LICENCE = re.compile(
    r"[\w .,+()/-]{1,100}", re.ASCII
)  # a name: neither Markdown nor HTML, which the card would show
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class BaseModel:
    """What a card says of the base model.

    name: what people call it; id: content hash of its files, or id of the result that it is; origin: a
    sentence on where it comes from; licence: as its own model card names it, None where it names none;
    licence_files: those found next to its weights.
    """

    name: str
    id: str
    origin: str
    licence: str | None = None
    licence_files: tuple[str, ...] = ()


def licence_of(folder: Path) -> tuple[str | None, tuple[str, ...]]:
    """The licence that the model card in a Hugging Face folder names, and the licence files next to it.

    A card that is missing or without readable metadata names none, nor does one that names more than a name.
    """
    files = tuple(name for name in LICENCE_FILES if (folder / name).is_file())
    card = folder / "README.md"
    found = (
        _FRONT_MATTER.match(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    )
    if found is None:
        return None, files
    try:
        metadata = parse_yaml(found.group(1), str(card))
    except UserError:
        return None, files
    named = metadata.get("license") if isinstance(metadata, Mapping) else None
    return (named if isinstance(named, str) and _LICENCE.fullmatch(named) else None), files


def model_card(results: Results, best: Recommended, model: TrackedModel, base: BaseModel) -> str:
    """README.md of the recommended model, as Hugging Face and people read it.

    model: as it is logged; its id is what `sftlab materialize` takes.
    """
    variant, cell = best.variant, best.cell
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    head |= {
        "base_model": base.name,
        "license": base.licence or "unknown",
        "tags": ["sftlab", variant.strategy],
    }
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {results.name}: recommended model",
        f"{base.name}, fine-tuned on {cell.size:,} facts and edited by the strategy `{variant.strategy}` at "
        f"{percent_text(best.percent)} %. Of all models of the {results.kind} `{results.name}` the group that it "
        f"belongs to ({choice_text(best.choice)}) had the best dev score ({metric_of(results.metric).words}); "
        f"of the group's {best.choice.seeds} training sets this model has the one of seed {cell.set_seed}. The test "
        f"questions took no part in the choice.{tie_text(len(ties(results, best.choice)))}",
        "## Numbers",
        _numbers(results, best),
        "## Settings",
        _settings(best, model),
        "## How to load",
        _loading(results.name),
        "## Base model and licence",
        _licence(base),
        "## Limits",
        f"It was measured on short questions about the facts of the {results.kind} alone. Nothing is known of other "
        "uses; other abilities of the base model were not measured and may have suffered.",
    ]
    return "\n\n".join(sections) + "\n"


def headline(results: Results, best: Recommended) -> str:
    """Description of the registered version, Markdown."""
    tie = tie_text(len(ties(results, best.choice)))
    how = f"chosen on dev ({metric_of(results.metric).words})"
    lines = [f"Recommended by the {results.kind} {results.name}, {how}: {choice_text(best.choice)}.{tie}"]
    return "\n\n".join([*lines, score_table(results, best.choice)]).strip()


def _numbers(results: Results, best: Recommended) -> str:
    parts = []
    table = score_table(results, best.choice)
    if table:
        parts.append(
            f"Of the whole group, mean over its {best.choice.seeds} training sets, in percent; the mean of the buckets "
            "of the base model's mastery, with bootstrap 95 % intervals over questions and training sets:"
        )
        parts.append(table)
    own = {row.split: row for row in best.variant.accuracy if _is_own(row, best)}
    lines = [
        f"- {words}: {100 * own[split].accuracy:.1f} % of {own[split].questions:,} questions (mean of the buckets)"
        for split, words in TEST_SPLITS.items()
        if split in own
    ]
    if lines:
        parts += ["Of this model alone, on test:", "\n".join(lines)]
    tests = verdict_lines(results, best.choice)
    if tests:
        parts += ["Differences of the group, on test:", "\n".join(tests)]
    return "\n\n".join(parts) or f"This {results.kind} asked no test questions."


def _is_own(row: AccuracyRow, best: Recommended) -> bool:
    return (row.cell, row.percent, row.bucket) == (best.cell.cell, best.percent, None)


def _settings(best: Recommended, model: TrackedModel) -> str:
    variant, spec = best.variant, best.variant.spec
    rows: dict[str, Any] = {"strategy": variant.strategy, "percent": percent_text(best.percent)}
    rows |= {"training set": best.cell.cell} | dict(flat("settings", variant.settings))
    rows |= dict(flat("sft", spec.get("sft", {})))
    rows |= dict(flat("restore", {k: v for k, v in spec.get("restore", {}).items() if k != "percents"}))
    rows |= {"artifact": f"`{model.id}`"}
    lines = [f"| {key} | {as_text(value)} |" for key, value in rows.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines])


def _loading(name: str) -> str:
    return f"""```python
import mlflow
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = mlflow.artifacts.download_artifacts("models:/{name}@champion")
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

```python
from vllm import LLM

model = LLM(folder)
```

It answers the prompt `<|question|> QUESTION <|answer|>`."""


def _licence(base: BaseModel) -> str:
    lines = [f"{base.origin} Its id is `{base.id}`."]
    if base.licence:
        lines.append(f"Its model card names the licence **{base.licence}**, which holds for this model too.")
    else:
        lines.append(
            "No licence is named beside its weights. Whatever terms the base model came under hold for this "
            "model too: look them up before you pass it on."
        )
    if base.licence_files:
        lines.append(f"Files beside its weights to read: {', '.join(base.licence_files)}.")
    lines.append("The facts that it was fine-tuned on may have terms of their own.")
    return " ".join(lines)
