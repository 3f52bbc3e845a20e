"""Every reader of what comes from outside, as a function of bytes, with valid inputs to damage.

A reader returns or raises UserError; whatever else it does is a finding.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import adapters, seeds
from tests.fuzz.mutate import altered, mutated
from tests.fuzz.packed import PACKED_DATA, PACKED_MODEL, delta_data, delta_description, delta_record
from tests.fuzz.reader import Make, Reader


def _documents(values: Sequence[Any], text: Callable[[Any], bytes]) -> Make:
    return lambda draw: text(altered(draw.choice(values), draw))


def _study(data: bytes, folder: Path) -> object:
    from sftlab.studies.load import load_study

    file = folder / "study.yaml"
    file.write_bytes(data)
    return load_study(file).model_dump_json()


def _sweep(data: bytes, folder: Path) -> object:
    from sftlab.studies.load import load_sweep

    (folder / "study.yaml").write_bytes(_SMALL_STUDY)
    file = folder / "sweep.yaml"
    file.write_bytes(data)
    return load_sweep(file)


def _runtime(data: bytes, folder: Path) -> object:
    from sftlab.studies.load import load_runtime

    file = folder / "runtime.yaml"
    file.write_bytes(data)
    return load_runtime(file)


def _overrides(data: bytes, _folder: Path) -> object:
    from sftlab.config.overrides import override, validated
    from sftlab.execution.runtime import Runtime
    from sftlab.studies.knowledge.spec import StudySpec

    texts = data.decode("utf-8", "replace").split("\n")
    runtime = [text.removeprefix("runtime.") for text in texts if text.startswith("runtime.")]
    validated(Runtime, override({}, runtime), "runtime")
    study = [text for text in texts if not text.startswith("runtime.")]
    return validated(StudySpec, override(deepcopy(seeds.STUDY), study), "study")


def _facts_lines(data: bytes, folder: Path) -> object:
    return _user_facts(data, folder / "facts.jsonl")


def _facts_list(data: bytes, folder: Path) -> object:
    return _user_facts(data, folder / "facts.json")


def _facts_packed(data: bytes, folder: Path) -> object:
    return _user_facts(data, folder / "facts.jsonl.gz")


def _facts_parquet(data: bytes, folder: Path) -> object:
    return _user_facts(data, folder / "facts.parquet")


def _user_facts(data: bytes, file: Path) -> object:
    from sftlab.facts.templates import parse_topics
    from sftlab.facts.user_facts import read_user_tables

    file.write_bytes(data)
    return read_user_tables(file, parse_topics(seeds.TOPICS, "topics"))


def _templates(data: bytes, folder: Path) -> object:
    from sftlab.facts.templates import dump_topics, load_topics

    file = folder / "topics.yaml"
    file.write_bytes(data)
    return dump_topics(load_topics(file).values())


def _archive(data: bytes, folder: Path) -> object:
    from sftlab.facts.entity_questions import read_tables
    from sftlab.facts.table import synonyms
    from sftlab.facts.templates import parse_topics

    file = folder / "eq.zip"
    file.write_bytes(data)
    return read_tables(file, parse_topics(seeds.TOPICS, "topics"), synonyms())


def _facts_table(data: bytes, folder: Path) -> object:
    from sftlab.facts.table import read_facts

    (folder / "train.parquet").write_bytes(data)
    return read_facts(folder, "train").to_pylist()


def _safetensors(data: bytes, folder: Path) -> object:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(data)
    return _weights(folder)


def _shard_index(data: bytes, folder: Path) -> object:
    (folder / "config.json").write_text("{}")
    (folder / "model-00001-of-00001.safetensors").write_bytes(_SMALL_MODEL)
    (folder / "model.safetensors.index.json").write_bytes(data)
    return _weights(folder)


def _model_config(data: bytes, folder: Path) -> object:
    from sftlab.inference.vllm_engine import checkpoint_dtype

    (folder / "config.json").write_bytes(data)
    (folder / "model.safetensors").write_bytes(_SMALL_MODEL)
    _weights(folder)
    return checkpoint_dtype(str(folder))


def _model_card(data: bytes, folder: Path) -> object:
    from sftlab.studies.knowledge.tracking.card import licence_of

    (folder / "README.md").write_bytes(data)
    return licence_of(folder)


def _weights(folder: Path) -> object:
    """What all readers of weights do: headers, ties, and every tensor's bits."""
    import numpy as np

    from sftlab.weights.bits import raw_type
    from sftlab.weights.pairs import check_pair, tied_aliases
    from sftlab.weights.shards import Checkpoint

    with Checkpoint.open(folder) as found:
        tied_aliases(found)
        for name in found.names:
            found.read_into(name, 0, np.empty(found.numel(name), raw_type(found.code(name))))
        return check_pair(found, found)


def _record(data: bytes, folder: Path) -> object:
    from sftlab.store.artifact import Store
    from sftlab.store.record import Step, differences, read_record

    file = folder / "facts" / "s" / "record.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    record = read_record(file)
    if record is None:
        return None
    step = Step("facts", "s", {"a": 1, "b": {"c": [1, 2.5, "y"]}}, {"model": "x"})
    place = Store(folder).path(step)
    place.mkdir(parents=True)
    (place / "record.json").write_bytes(data.replace(b"0" * 64, step.id.encode()))
    Store(folder).find(step)
    return record.bytes, differences(step.spec, step.inputs, record)


def _training(data: bytes, folder: Path) -> object:
    from sftlab.training.records import SFTRun, read_result
    from sftlab.training.spec import SFTSpec

    (folder / "training.json").write_bytes(data)
    return read_result(SFTRun("r", "m", "/dev/null", str(folder), SFTSpec()))


def _identity() -> dict[str, Any]:
    from sftlab.training.records import SFTRun, run_identity
    from sftlab.training.spec import SFTSpec

    return run_identity(SFTRun("r", "m", "/dev/null", "", SFTSpec()))


def _checkpoint_mark(data: bytes, folder: Path) -> object:
    from sftlab.training.checkpoints import latest_checkpoint

    mark = folder / "step-00000002" / "state.json"
    mark.parent.mkdir()
    mark.write_bytes(data)
    return latest_checkpoint(folder, {"run_id": "r"})


def _change(data: bytes, folder: Path) -> object:
    from sftlab.weights.change_profile import read_profile

    (folder / "change.json").write_bytes(data)
    return read_profile(folder / "change.json").to_json()


def _trial(data: bytes, folder: Path) -> object:
    from sftlab.sweeps.records import read_records

    (folder / "a.json").write_bytes(data)
    return [record.times for record in read_records(folder)]


def _spent(data: bytes, folder: Path) -> object:
    from sftlab.sweeps.times import read_timings

    (folder / "spent").mkdir(exist_ok=True)
    (folder / "spent" / "a.json").write_bytes(data)
    return [spent.seconds for spent in read_timings(folder)]


def _hashes(data: bytes, folder: Path) -> object:
    from sftlab.weights.model_id import folder_of

    (folder / "hashes.json").write_bytes(data)
    return folder_of("0" * 64, folder)


def _summary(data: bytes, folder: Path) -> object:
    from sftlab.store.rows import read_summary
    from sftlab.studies.knowledge.results.tables import KEYS

    (folder / "results.json").write_bytes(data)
    return read_summary(folder / "results.json", "study", 1, KEYS)


def _results_table(data: bytes, folder: Path) -> object:
    from sftlab.store.rows import read_rows
    from sftlab.studies.knowledge.results.rows import CellRow

    (folder / "cells.parquet").write_bytes(data)
    return read_rows(folder / "cells.parquet", CellRow)


def _parquet_of(rows: Sequence[dict[str, Any]]) -> Make:
    """Tables whose columns have other types and names than wanted."""
    kinds = [
        _documents([list(rows)], partial(seeds.parquet, compression=kind))
        for kind in ("none", "snappy", "zstd", "gzip")
    ]
    return lambda draw: draw.choice(kinds)(draw)


def _note(data: bytes, folder: Path) -> object:
    """The first line is the object's name as it is listed, the rest its content."""
    from urllib.parse import unquote

    from sftlab.store.mirror import parse_note

    name, _, content = data.partition(b"\n")
    return parse_note(content, unquote(name.decode("utf-8", "surrogateescape")), str(folder / "note"))


def _note_of(draw: Random) -> bytes:
    name, note = draw.choice(seeds.NOTES).split(b"\n", 1)
    if draw.random() < 0.2:
        name = altered(name.decode(), draw).encode()
    return name + b"\n" + seeds.json_text(altered(json.loads(note), draw))


def _archive_of(draw: Random) -> bytes:
    """Archives whose members are renamed, altered, or lie about their size."""
    members = dict(seeds.entity_questions())
    name = draw.choice(list(members))
    members[name] = seeds.json_text(altered(json.loads(members[name]), draw))
    if draw.random() < 0.2:
        members[draw.choice(("../" + name, "/" + name, name.replace("/", "\\"), name + "/", "x\x00y"))] = (
            members.pop(name)
        )
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    data = bytearray(seeds.archive(members, method))
    if draw.random() < 0.3:
        entry = data.find(b"PK\x01\x02")
        field = draw.choice((6, 8, 10, 16, 20, 24, 28, 30, 34, 38, 42))
        data[entry + field : entry + field + 4] = draw.choice((0, 1, 2**16, 2**31, 2**32 - 1)).to_bytes(
            4, "little"
        )
    return bytes(data)


def _bytes_of(valid: Sequence[bytes]) -> Make:
    return lambda draw: mutated(draw.choice(valid), valid, draw)


def _safetensors_of(draw: Random) -> bytes:
    return seeds.safetensors(altered(seeds.HEADER, draw), bytes(draw.choice((28, 28, 28, 0, 27, 29, 64))))


_SMALL_STUDY = b"{name: s, pocket: {}}"
_SMALL_MODEL = seeds.safetensors(seeds.HEADER, bytes(28))
_OPTIONS = [
    b"training_sets.sizes=[25,100]\nsft.learning_rate=1e-3\nruntime.store=x",
    b"name=y\nsft.epochs=3\nruntime.engine.engines=2",
    b"restore.percents=[0, 1]\npocket.facts.train=3\nruntime.tracking.address=sqlite:////a/b.db",
]
_TRAINING = {"identity": _identity(), "runtime": {}, "result": seeds.RESULT}
_MARK = {"step": 2, "identity": {"run_id": "r"}, "history": seeds.HISTORY, "files": {}}
_HASHED = {
    "device": 1,
    "inode": 2,
    "bytes": 3,
    "mtime_ns": 4,
    "ctime_ns": 5,
    "sha256": "0" * 64,
    "checksum": "0" * 64,
}
_HASHES = {"files": {"/x/y": _HASHED}, "folders": {"0" * 64: "/x"}}
_CONFIG = {"model_type": "llama", "torch_dtype": "float32", "tie_word_embeddings": True, "license": "mit"}


def _yaml_reader(name: str, read: Callable[[bytes, Path], object], *values: Any) -> Reader:
    texts = [seeds.yaml_text(value) for value in values]
    return Reader(name, read, texts, _documents(values, seeds.yaml_text))


def _json_reader(name: str, read: Callable[[bytes, Path], object], *values: Any) -> Reader:
    return Reader(
        name, read, [seeds.json_text(value) for value in values], _documents(values, seeds.json_text)
    )


def all_readers() -> list[Reader]:
    """The readers, cheap ones first."""
    from tests.fuzz.data_sets import data_set_readers
    from tests.fuzz.server import server_reader
    from tests.fuzz.stages import table_readers
    from tests.fuzz.surveys import survey_readers

    lines = [seeds.json_lines(seeds.FACTS)]
    zips = [seeds.archive(seeds.entity_questions(), method) for method in (0, 8)]
    tables = [seeds.parquet(seeds.FACTS, kind) for kind in ("none", "snappy", "zstd")]
    facts = [{"fact_id": "0", **row, "accepted": ["x"], "question": "?"} for row in seeds.FACTS]
    return [
        _json_reader("store record", _record, seeds.RECORD),
        _json_reader("training record", _training, _TRAINING),
        _json_reader("checkpoint mark", _checkpoint_mark, _MARK),
        Reader("sent file's note", _note, seeds.NOTES, _note_of),
        _json_reader("change.json", _change, seeds.change()),
        _json_reader("trial record", _trial, seeds.TRIAL),
        _json_reader("sweep's spent time", _spent, seeds.SPENT),
        _json_reader("hashes.json", _hashes, _HASHES),
        _json_reader("result summary", _summary, seeds.SUMMARY),
        _json_reader("shard index", _shard_index, seeds.SHARDS),
        _json_reader("model config", _model_config, _CONFIG),
        Reader("model card", _model_card, [seeds.CARD], _documents([seeds.CARD_HEAD], seeds.card)),
        Reader("safetensors", _safetensors, [_SMALL_MODEL], _safetensors_of),
        _json_reader("adapter config", adapters.adapter_config, adapters.CONFIG),
        Reader("adapter factors", adapters.adapter_factors, [adapters.FACTORS], adapters.factors_of),
        _json_reader("packed model", delta_description, PACKED_MODEL),
        Reader("packed data", delta_data, [PACKED_DATA], _bytes_of([PACKED_DATA])),
        Reader("delta record", delta_record, seeds.delta_records(), _bytes_of(seeds.delta_records())),
        Reader("facts JSONL", _facts_lines, lines, _documents([seeds.FACTS], seeds.json_lines)),
        _json_reader("facts JSON list", _facts_list, seeds.FACTS),
        Reader(
            "facts packed",
            _facts_packed,
            [gzip.compress(data, mtime=0) for data in lines],
            lambda draw: gzip.compress(_documents([seeds.FACTS], seeds.json_lines)(draw), mtime=0),
        ),
        Reader("facts parquet", _facts_parquet, tables, _parquet_of(seeds.FACTS)),
        Reader("facts table", _facts_table, [seeds.parquet(facts)], _parquet_of(facts)),
        Reader("result table", _results_table, [seeds.cells()], _parquet_of(seeds.CELLS)),
        *table_readers(),
        *data_set_readers(),
        *survey_readers(),
        Reader("EntityQuestions zip", _archive, zips, _archive_of),
        Reader("set options", _overrides, _OPTIONS, lambda draw: mutated(draw.choice(_OPTIONS), _OPTIONS, draw)),
        _yaml_reader("templates", _templates, seeds.TOPICS),
        _yaml_reader("runtime file", _runtime, seeds.RUNTIME),
        _yaml_reader("study file", _study, seeds.STUDY, seeds.OWN_STUDY),
        _yaml_reader("sweep file", _sweep, seeds.SWEEP, seeds.SEARCH),
        server_reader(),
    ]  # fmt: skip
