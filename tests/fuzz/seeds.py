"""Small valid inputs of every kind, made by the code that writes them; what the fuzzers damage."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TOPICS: list[dict[str, Any]] = [
    {
        "topic": "P1",
        "domain": "in-domain",
        "question": "Where is {subject}?",
        "templates": ["{subject} is in", "{subject}:"],
    },
    {
        "topic": "P2",
        "domain": "out-of-domain",
        "question": "Who made {subject}?",
        "templates": ["{subject} is by"],
    },
]

STUDY: dict[str, Any] = {
    "name": "s",
    "pocket": {
        "in_domain": ["P17"],
        "out_of_domain": ["P50"],
        "facts": {"train": 20, "test": 8},
        "objects": 24,
    },
    "engine": {"dtype": "float32"},
    "mastery": {"samples": 2},
    "training_sets": {"buckets": [0, 4], "sizes": [2], "seeds": [0]},
    "sft": {"learning_rate": 1.0e-3, "precision": "fp32"},
    "restore": {"percents": [0, 10]},
}

OWN_STUDY: dict[str, Any] = {
    "name": "t",
    "facts": {"source": "a.jsonl", "templates": "t.yaml", "limit": {"train": 10}},
    "model": {"path": "models/x", "parameters": 1000},
    "training_sets": {"buckets": [0, "mixed"], "sizes": [25]},
    "restore": {"percents": [0, 1.5], "method": "wise-ft"},
}

SWEEP: dict[str, Any] = {
    "name": "w",
    "study": "study.yaml",
    "set": {"sft": {"precision": "fp32"}},
    "axes": {
        "data": [0, "1:0.25+4:0.75"],
        "size": [2],
        "strategy": ["restore", {"name": "restore", "region": "mlp"}],
    },
    "limits": {"max_cells": 300},
}

SEARCH: dict[str, Any] = {
    "name": "w",
    "study": "study.yaml",
    "axes": {"data": "mixture", "size": [2], "learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": True}},
    "search": {"kind": "random", "trials": 5, "seed": 0, "metric": "dev"},
    "halving": {"max_epochs": 8, "factor": 2},
}

RUNTIME: dict[str, Any] = {
    "store": "runs/store",
    "engine": {"engines": 2, "max_num_seqs": 8},
    "training": {"workers": 2, "zero_stage": 2},
    "tracking": {"address": "http://127.0.0.1:5000", "experiment": "x"},
}

FACTS: list[dict[str, Any]] = [
    {"subject": "Riga", "object": "Latvia", "topic": "P1", "accepted": ["LV", "Latvija"], "split": "train"},
    {"subject": "Oslo", "object": "Norway", "topic": "P1"},
    {"subject": "Zyn", "object": "Ann", "topic": "P2", "accepted": None, "split": "test"},
]

DATA: list[list[dict[str, Any]]] = [
    [
        {"instruction": "Add", "input": "1 2", "output": "3"},
        {"instruction": "Hi", "input": None, "output": "Ho"},
    ],
    [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "id": 1}],
    [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}],
    [{"conversations": ["Hi", "Ho", "And?", "So."]}],
    [
        {"inputs": "Is it?", "targets": "yes", "task": "t"},
        {"inputs": "Is it?", "targets": "none", "task": "t"},
    ],
    [{"prompt": "Hi", "completion": "Ho"}],
]
TEMPLATES = [
    "###Question: {{ instruction }}\n###Answer: {{ response }}",
    "{% if system %}{{ system }}\n{% endif %}Q {{ instruction | trim }} A {{ response }}",
]


def yaml_text(value: Any) -> bytes:
    """A document as YAML; values that YAML cannot say become text."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def card(head: Any) -> bytes:
    """A model card with this metadata."""
    return b"---\n" + yaml_text(head) + b"---\n# A model\n"


def json_text(value: Any) -> bytes:
    return json.dumps(value).encode()


def cells() -> bytes:
    """A table of cells, as the results stage writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.store.rows import schema_of
    from sftlab.studies.knowledge.results.rows import CellRow

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(CELLS, schema=schema_of(CellRow)), out)
    return out.getvalue()


def json_lines(rows: list[Any]) -> bytes:
    return b"\n".join(json_text(row) for row in rows) + b"\n"


def parquet(rows: list[dict[str, Any]], compression: str = "none") -> bytes:
    """A parquet file of the rows, whatever types they have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, compression=compression)
    return out.getvalue()


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The same bytes at any time: members are of 1980."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return out.getvalue()


def entity_questions() -> dict[str, bytes]:
    """The members of an archive that holds the topics of TOPICS."""
    questions = {"P1": "Where is Riga?", "P2": "Who made Zyn?"}
    return {
        f"dataset/{split}/{topic}.{split}.json": json_text([{"question": question, "answers": [split]}])
        for split in ("train", "test", "dev")
        for topic, question in questions.items()
    }


def safetensors(header: Any, payload: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json_text(header)
    return len(text).to_bytes(8, "little") + text + payload


HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "lm_head.weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
    "model.embed_tokens.weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [12, 24]},
    "model.layers.0.mlp.up_proj.weight": {"dtype": "F32", "shape": [1], "data_offsets": [24, 28]},
    "model.norm.weight": {"dtype": "F32", "shape": [0, 4], "data_offsets": [28, 28]},
}
PACKED_TENSOR = "lm_head.weight"
PACKED_SIZE = 600


@cache
def delta_pair() -> tuple[Any, Any]:
    """The bits of two stretches of bfloat16 weights that differ a little."""
    import numpy as np

    draw = np.random.default_rng(0)
    base = draw.normal(0, 0.02, PACKED_SIZE).astype(np.float32)
    tuned = base + draw.normal(0, 1e-3, PACKED_SIZE).astype(np.float32)
    old, new = ((x.view(np.uint32) >> 16).astype(np.uint16) for x in (base, tuned))
    return old, new


@cache
def delta_records() -> tuple[bytes, ...]:
    """A record of each kind, for the base of `delta_pair`."""
    from sftlab.weights.delta import encode

    base, tuned = delta_pair()
    return encode(tuned, base, "BF16"), encode(base, base, "BF16"), encode(tuned, None, "BF16")


def packed_header() -> bytes:
    """The header of a safetensors file of one tensor, as a packed data file begins with it."""
    entry = {"dtype": "BF16", "shape": [PACKED_SIZE], "data_offsets": [0, 2 * PACKED_SIZE]}
    return safetensors({PACKED_TENSOR: entry}, b"")


def packed_model(record: bytes) -> dict[str, Any]:
    """The description of a packed model of one tensor with this record."""
    from hashlib import sha256

    base, tuned = delta_pair()
    tensor = {"base": sha256(base.tobytes()).hexdigest(), "records": [len(record)]}
    restored = sha256(packed_header() + tuned.tobytes()).hexdigest()
    return {
        "format": "sftlab.delta",
        "version": 1,
        "files": {"model.safetensors": {"sha256": restored, "tensors": {PACKED_TENSOR: tensor}}},
    }


SHARDS: dict[str, Any] = {
    "metadata": {"total_size": 28},
    "weight_map": {name: "model-00001-of-00001.safetensors" for name in HEADER if name != "__metadata__"},
}

RECORD: dict[str, Any] = {
    "id": "0" * 64,
    "stage": "facts",
    "slug": "s",
    "spec": {"a": 1, "b": {"c": [1, 2.5, "x"]}},
    "inputs": {"model": "1" * 64},
    "revision": 1,
    "files": {"train.parquet": {"bytes": 3, "sha256": "2" * 64}, "d/topics.json": {"bytes": 0, "sha256": "3" * 64}},
    "provenance": {"time": "2026-01-01T00:00:00+00:00", "host": "x", "python": "3.11"},
}  # fmt: skip

HISTORY: dict[str, Any] = {
    "losses": [1.0, 0.5],
    "learning_rates": [0.1, 0.05],
    "tokens": 10,
    "answer_tokens": 4,
    "seconds": 1.5,
}
RESULT: dict[str, Any] = {**HISTORY, "examples": 2, "steps": 2, "tokens_per_second": 6.0}

SUMMARY: dict[str, Any] = {
    "format": 1,
    "name": "x",
    "model": "m",
    "kind": "study",
    "metric": "dev",
    "reference": None,
    "spec": {"sft": {"learning_rate": 0.1}},
    "variants": [{"name": "restore", "strategy": "restore", "settings": {}, "spec": {}, "provenance": {}}],
}
CELLS: list[dict[str, Any]] = [
    {
        "cell": "b0-n2-s0",
        "train_bucket": "0",
        "size": 2,
        "set_seed": 0,
        "tokens_per_second": 1.0,
        "seconds": None,
        "everything": False,
    }
] * 2

TRIAL: dict[str, Any] = {
    "trial": "b0-n2-s0",
    "variant": "restore",
    "config": {"trial": 0},
    "percent": 10.0,
    "score": 0.5,
    "times": {"tuned": {"seconds": 1.0, "queued": 0.5, "hits": 1}},
}

SPENT: dict[str, Any] = {"what": "engine starts", "times": 2, "seconds": 20.5}

CARD_HEAD: dict[str, Any] = {
    "license": "apache-2.0",
    "tags": ["x", {"y": 1}],
    "date": "2020-01-01",
    "base_model": "a/b",
}


@cache
def change() -> dict[str, Any]:
    """A change.json, as `ChangeProfile.to_json` gives it."""
    from sftlab.weights.change_profile import ChangeProfile
    from sftlab.weights.cut import Cut

    cut = Cut("10", "top", "layers", 0, 123, "model.layers.0.mlp.up_proj.weight", 3, 1, 10)
    by = {"10": {"0": 1}}
    return ChangeProfile(
        "layers", "top", 0, 10, 5, 1.5, {"1": 0.5, "10": 0.9}, {"0": 10}, {"mlp.up": 10}, by, by, {"10": cut}
    ).to_json()


CARD = card(CARD_HEAD)

NOTES = [
    name + b'\n{"bytes": 3, "sha256": "' + b"0" * 64 + b'"}'
    for name in (b"model%2Fmodel.safetensors", b"a.json")
]


@cache
def checkpoints() -> tuple[bytes, ...]:
    """What DeepSpeed keeps of one rank, in torch's two formats."""
    import torch
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum

    optimizer = {
        "loss_scaler": LossScaler(1.0),
        "zero_stage": ZeroStageEnum(2),
        "param_groups": [{"lr": 0.1}],
    }
    module = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    state = {"module": module, "optimizer_state_dict": optimizer, "global_steps": 3, "ds_version": "0.19"}
    found = []
    for zipped in (True, False):
        out = io.BytesIO()
        torch.save(state, out, _use_new_zipfile_serialization=zipped)
        found.append(out.getvalue())
    return tuple(found)


def zip_members(data: bytes) -> dict[str, bytes]:
    """Names and contents of an archive's members."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


IDENTITY = "i" * 64  # of a pre-training


def pocket_model() -> tuple[Any, Any]:
    """A model of three weights, and its optimiser."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.AdamW(model.parameters())


@cache
def pretraining() -> bytes:
    """A checkpoint of the pocket model's pre-training."""
    from sftlab.pocket.pretrain import save_checkpoint

    model, optimizer = pocket_model()
    model.weight.sum().backward()
    model.bias.sum().backward()
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "x.safetensors", model, optimizer, IDENTITY, 3)
        return (Path(folder) / "x.safetensors").read_bytes()


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:end])
    return header, content[end:]
