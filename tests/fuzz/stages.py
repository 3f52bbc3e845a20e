"""Readers of what stages keep in the store: pieces of their work, checkpoints, and tables of a finished result."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from sftlab.errors import UserError
from tests.fuzz import seed_tables, seeds
from tests.fuzz.mutate import altered, mutated
from tests.fuzz.reader import Later, Reader


def _mastery_block(data: bytes, folder: Path) -> object:
    """The checksums of a block may hold, whatever else does not."""
    import pyarrow as pa

    from sftlab.measurements.scoring import CHECKED, prompts_of, sound_block
    from sftlab.studies.knowledge.stages.mastery import write_mastery

    facts = pa.table({"fact_id": [row["fact_id"] for row in seed_tables.MASTERY]})
    path = folder / "00000.parquet"
    path.write_bytes(data)
    if (few := sound_block(path, facts, CHECKED)) is not None and path.exists():
        sum(few["tokens"].to_pylist())
    path.write_bytes(data)
    table = sound_block(path, facts)
    if table is None:
        raise UserError("is deleted and scored again")
    write_mastery(iter([table]), 2, iter(["train"] * table.num_rows), folder / "mastery.parquet")
    return prompts_of(table), sum(table["tokens"].to_pylist())


def _mastery_table(data: bytes, folder: Path) -> object:
    """Read whole and in part, and what divergence and accuracy make of it."""
    from sftlab.facts.mastery import BUCKETS
    from sftlab.measurements.divergence_prompts import best_templates
    from sftlab.studies.knowledge.stages.mastery import read_mastery_file

    path = folder / "mastery.parquet"
    path.write_bytes(data)
    buckets = read_mastery_file(path, ["fact_id", "bucket"])["bucket"].to_pylist()
    assert {bucket for bucket in buckets if bucket is not None} <= set(BUCKETS)
    return best_templates(read_mastery_file(path).to_pylist())


def _answers_table(data: bytes, folder: Path) -> object:
    from sftlab.analysis.accuracy import accuracy_by_bucket
    from sftlab.measurements.tables import read_answer_table

    (folder / "answers.parquet").write_bytes(data)
    table = read_answer_table(folder / "answers.parquet")
    return accuracy_by_bucket(table, {"0": 4}), table["split"].to_pylist()


def _logits(data: bytes, folder: Path) -> object:
    """As a finished divergence, and as the piece of a session."""
    import numpy as np

    from sftlab.analysis.divergence import first_token_kl
    from sftlab.measurements.tables import read_logits

    path = folder / "divergence.parquet"
    path.write_bytes(data)
    names = ("tuned_logits", "base_logits")
    table = read_logits(path, names, 2)
    sorted(token for row in read_logits(path, names[:1], 2, 2)["token_ids"].to_pylist() for token in row)
    tuned, base = (np.array(table[name].to_pylist(), np.float64) for name in names)
    return first_token_kl(tuned, base).mean()


def _checkpoint(data: bytes, folder: Path) -> object:
    from sftlab.training.safe_load import load_plain

    file = folder / "mp_rank_00_model_states.pt"
    file.write_bytes(data)
    return load_plain(str(file), "cpu")


def _checkpoint_of(draw: Random) -> bytes:
    """Archives that are whole, with one damaged member: the pickle, or a tensor's numbers."""
    members = seeds.zip_members(seeds.checkpoints()[0])
    name = draw.choice([*members, *[name for name in members if name.endswith("data.pkl")] * len(members)])
    members[name] = mutated(members[name], list(members.values()), draw)
    return seeds.archive(members, zipfile.ZIP_STORED)


def _pretraining(data: bytes, folder: Path) -> object:
    """A damaged checkpoint must leave the model as it is."""
    from sftlab.pocket.pretrain import load_checkpoint

    path, (model, optimizer) = folder / "pretraining.safetensors", seeds.pocket_model()
    before = [float(p.detach().sum()) for p in model.parameters()]
    path.write_bytes(data)
    steps = load_checkpoint(path, model, optimizer, seeds.IDENTITY)
    if steps:
        return steps
    assert before == [float(p.detach().sum()) for p in model.parameters()] and not optimizer.state
    raise UserError("pre-training starts again")


def _pretraining_of(draw: Random) -> bytes:
    header, payload = seeds.parts(seeds.pretraining())
    return seeds.safetensors(altered(header, draw), payload)


def _table_reader(
    name: str,
    read: Callable[[bytes, Path], object],
    make: Callable[[list[dict[str, Any]], bool], bytes],
    rows: list[dict[str, Any]],
) -> Reader:
    """Tables of altered rows, with the types that their columns must have or with others."""
    return Reader(name, read, [make(rows, True)], lambda draw: make(altered(rows, draw), draw.random() < 0.7))


def table_readers() -> list[Reader]:
    mastery = [{"split": "test", **row} for row in seed_tables.MASTERY]
    return [
        _table_reader("mastery block", _mastery_block, seed_tables.mastery_block, seed_tables.MASTERY),
        _table_reader("mastery table", _mastery_table, seed_tables.mastery_table, mastery),
        _table_reader("answers table", _answers_table, seed_tables.answers_table, seed_tables.ANSWERS),
        _table_reader("divergence table", _logits, seed_tables.logits_table, seed_tables.LOGITS),
        Reader("DeepSpeed checkpoint", _checkpoint, Later(seeds.checkpoints, 2), _checkpoint_of),
        Reader("pre-training", _pretraining, Later(lambda: [seeds.pretraining()]), _pretraining_of),
    ]
