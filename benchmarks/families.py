"""Walks the causal language models that transformers ships and writes the table of docs/models.md.

    .venv/bin/python -m benchmarks.families

Each family is built from its default configuration with two layers and without data. Checked are: that every number of
its stored tensors has one place in the model (fine-tuning and export), that layer and block of every parameter agree
with the classes of the modules around it (regions), and whether the installed vLLM serves it.
"""

from __future__ import annotations

import argparse
import warnings
from math import prod
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from tests.support.families import by_classes, without_data

MOST_REASONS = 80  # characters


def walk(kind: str) -> tuple[str, ...]:
    """The row of a family: its name, its class, and a word for each check."""
    try:
        model = without_data(kind)
    except Exception as error:  # of any kind: the default configuration of a family may be incomplete
        return kind, "", f"not built: {' '.join(str(error).split())[:MOST_REASONS]}", "", ""
    return kind, type(model).__name__, _stored(kind, model), _places(model), _served(type(model))


def _stored(kind: str, model: Any) -> str:
    from transformers.core_model_loading import revert_weight_conversion

    from sftlab.training.stored_tensors import placed

    saved = revert_weight_conversion(model, dict(model.named_parameters()))
    try:
        found = placed({name: tuple(tensor.shape) for name, tensor in saved.items()}, model, Path(kind))
    except UserError:
        return "no"
    whole = all(
        sum(prod(part.stored.size if part.stored else saved[name].shape) for part in parts)
        == saved[name].numel()
        for name, parts in found.items()
    )
    return "yes" if whole and found.keys() == saved.keys() else "no"


def _places(model: Any) -> str:
    from sftlab.weights.regions import place

    differing = 0
    for name, _ in model.named_parameters():
        (layer, block), found = by_classes(model, name), place(name)
        is_norm = (found.block == "norm") == (block == "norm")
        differing += not (found.layer == layer and is_norm and block in (None, found.block))
    return "yes" if not differing else f"{differing} differ"


def _served(architecture: type) -> str:
    from sftlab.inference.model_check import served_architectures

    backend = getattr(architecture, "is_backend_compatible", None)
    if architecture.__name__ in served_architectures():
        return "yes"
    return "by transformers' code" if backend is not None and backend() else "no"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help="families (model_type); all by default")
    wanted = parser.parse_args().kinds
    warnings.filterwarnings("ignore")
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    transformers.logging.set_verbosity_error()
    rows = [walk(kind) for kind in wanted or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)]
    print("| family | class | fine-tuned and exported | regions | served by vLLM |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    built = [row for row in rows if row[1]]
    tuned, regions = (sum(row[column] == "yes" for row in built) for column in (2, 3))
    served = sum(row[4] != "no" for row in built)
    print(f"\n{len(built)} of {len(rows)} families are built; {tuned=}, {regions=}, {served=}.")


if __name__ == "__main__":
    main()
