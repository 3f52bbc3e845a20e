"""The main study's published numbers (arXiv:2509.16596), from the package's data file."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

PAPER = "arXiv:2509.16596"
PAPER_MODEL = "LLaMA-3-8B"
SIZES = (240, 1920)  # the two training sizes of its Tables 3, 4 and 6


@cache
def published() -> dict[str, Any]:
    """Every numeric table of the study, each with its `source`; accuracies and shares in percent."""
    text = (
        files("sftlab.studies.knowledge.report")
        .joinpath("data/published_results.json")
        .read_text(encoding="utf-8")
    )
    tables: dict[str, Any] = json.loads(text)
    return tables


def mastery_shares(split: str, model: str = PAPER_MODEL) -> list[float]:
    """Shares in [0, 1] of the five buckets in train, test or test_ood (Tables 1 and 8)."""
    counts = published()["mastery_distribution"]["rows"][model][split]
    return [count / sum(counts) for count in counts]


def ladder(split: str, size: int) -> dict[float, list[float]]:
    """Accuracy in [0, 1] of train buckets 0..4 by restored percentage (Table 4); split test or test_ood."""
    domain = "in_domain" if split == "test" else "out_of_domain"
    rows = published()["restoration_accuracy"][domain][str(size)]
    return {float(percent): [value / 100 for value in values] for percent, values in rows.items()}


def training_set(size: int) -> dict[float, list[float]]:
    """Accuracy in [0, 1] on the training set of buckets 0..4 by restored percentage (Table 6)."""
    rows = published()["restoration_training_set"]["by_train_size"][str(size)]
    return {float(percent): [value / 100 for value in values] for percent, values in rows.items()}


def concentration_range() -> dict[float, tuple[float, float]]:
    """Lowest and highest share in [0, 1] of the relative change by top percentage (Table 3, 10 models)."""
    table = published()["update_concentration"]
    models = [row for rows in table["by_train_size"].values() for row in rows]
    columns = zip(*models, strict=True)
    shares = [(min(column) / 100, max(column) / 100) for column in columns]
    return dict(zip(map(float, table["top_share_percent"]), shares, strict=True))


def layer_shares() -> list[float]:
    """Share in [0, 1] of the restored weights in each of the 32 layers (Table 9)."""
    return [value / 100 for value in published()["redundant_by_layer"]["percent"]]


def weight_shares() -> dict[str, float]:
    """Share in [0, 1] of LLaMA-3-8B's layer weights by kind of module, from the shapes of its matrices."""
    hidden, keys, inner = 4096, 1024, 14336
    sizes = {
        "attn.q": hidden * hidden,
        "attn.k": hidden * keys,
        "attn.v": hidden * keys,
        "attn.o": hidden * hidden,
    }
    sizes |= dict.fromkeys(("mlp.gate", "mlp.up", "mlp.down"), hidden * inner)
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def module_shares() -> dict[str, float]:
    """Share in [0, 1] of the restored weights by kind of module, largest first (Table 10)."""
    return {name: value / 100 for name, value in published()["redundant_by_module"]["percent"].items()}
