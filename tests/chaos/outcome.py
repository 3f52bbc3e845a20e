"""What a store holds in the end: the pieces of each stage, and whether every file has the bits that it should have."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sftlab.pocket.extent import training_tokens
from sftlab.pocket.spec import PocketSpec
from sftlab.store.fingerprint import file_hash

CHECKPOINT_EVERY = 40  # steps of pre-training
# What a run measures of itself, and thus differs from run to run: whole files, and columns of a table.
MEASURED = {"report.html"}
TRAINING = "training.json"
MEASURED_FIGURES = ("tokens_per_second", "seconds")
CELLS = "cells.parquet"


class ChaosError(AssertionError):
    """Something was lost, wrong, or done twice."""


def payloads(store: Path) -> dict[str, str]:
    """SHA-256 of every committed file as it lies there, measured times left out, by its place in the store."""
    found = {}
    for record in sorted(store.glob("*/*/record.json")):
        for name in json.loads(record.read_text())["files"]:
            if Path(name).name not in MEASURED:
                found[f"{record.parent.relative_to(store)}/{name}"] = content_hash(record.parent / name)
    return found


def content_hash(file: Path) -> str:
    """SHA-256 of a file's bytes; of the table of cells and of a training.json, of what in them is not measured."""
    if not file.is_file():
        return "missing"
    if file.name == CELLS:
        content = pq.read_table(file).drop_columns(list(MEASURED_FIGURES)).to_pylist()
    elif file.name == TRAINING:
        content = unmeasured(json.loads(file.read_text()))
    else:
        return file_hash(file)
    return sha256(json.dumps(content).encode()).hexdigest()


def unmeasured(training: dict[str, Any]) -> dict[str, Any]:
    """A training.json without its times, its runtime, and the places in the store that it names."""
    result = {name: value for name, value in training["result"].items() if name not in MEASURED_FIGURES}
    identity = {
        name: value for name, value in training["identity"].items() if name not in ("base_model", "mask")
    }
    return {"identity": identity, "result": result}


def compare(store: Path, reference: Path) -> int:
    """Number of files, all equal to those of an undisturbed run. Raises ChaosError where they are not."""
    mine, wanted = payloads(store), payloads(reference)
    odd = sorted(
        key
        for key in mine.keys() | wanted.keys()
        if mine.get(key) != wanted.get(key) or mine[key] == "missing"
    )
    if odd or not mine:
        raise ChaosError(f"{len(odd)} of {len(wanted)} files differ from the undisturbed run: {odd[:10]}")
    return len(mine)


def totals(reference: Path) -> dict[str, int]:
    """Pieces of each stage, as an undisturbed run left them."""
    spec = json.loads(next(reference.glob("results/*/results.json")).read_text())["spec"]
    steps = training_tokens(PocketSpec.model_validate(spec["pocket"]))
    steps //= spec["pocket"]["shape"]["sequence"] * spec["pocket"]["optimisation"]["sequences"]
    facts = pq.read_metadata(next(reference.glob("mastery/*/mastery.parquet"))).num_rows
    trained = [json.loads(path.read_text()) for path in reference.glob("tuned/*/model/training.json")]
    return {
        "model": max(1, steps * 7 // (10 * CHECKPOINT_EVERY)),  # the steps are an estimate
        "mastery": -(-facts // spec["mastery"]["block_facts"]),
        "tuned": sum(run["result"]["steps"] for run in trained),
        "change": len(trained),
        "evaluation": len(list(reference.glob("evaluation/*/record.json"))),
        "results": 1,
        "best": 1,
        "report": 1,
    }
