"""Committed pieces, slices of facts, and runtimes that contradict themselves."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.errors import UserError
from sftlab.inference.blocks import commit_table
from sftlab.inference.scorer import read_block, split_blocks
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import check_served, checkpoint_dtype, engine_arguments


def ids(*names: str) -> pa.Table:
    return pa.table({"fact_id": list(names)})


def test_blocks_are_consecutive_and_the_last_holds_the_rest() -> None:
    parts = split_blocks(ids("a", "b", "c", "d", "e"), 2)
    assert [part["fact_id"].to_pylist() for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    assert split_blocks(ids(), 2) == []


def test_a_committed_table_has_the_same_bytes_each_time_and_leaves_no_draft(tmp_path: Path) -> None:
    for name in ("one", "two"):
        commit_table(ids("a", "b"), tmp_path / name / "t.parquet")
    assert (tmp_path / "one/t.parquet").read_bytes() == (tmp_path / "two/t.parquet").read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["t.parquet"]


def test_a_table_that_cannot_be_moved_into_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").mkdir()
    with pytest.raises(OSError):
        commit_table(ids("a"), tmp_path / "t.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_damaged_block_and_a_block_of_other_facts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "00000.parquet"
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"00000\.parquet.*delete it"):
        read_block(path, ids("a"))
    pq.write_table(ids("b"), path)
    with pytest.raises(UserError, match="holds other facts"):
        read_block(path, ids("a"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tensor_parallel": 2}, "gpus_per_engine"),
        ({"enforce_eager": False}, "freezes weights"),
        ({"gpus_per_engine": 4, "tensor_parallel": 2}, "does not match"),
    ],
)
def test_a_runtime_that_contradicts_itself_is_refused(
    tmp_path: Path, fields: dict[str, int], message: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=message):
        check_served(str(tmp_path), EngineRuntime(**fields))


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        check_served(str(tmp_path), EngineRuntime())


def test_the_number_type_is_the_checkpoints_own_and_is_never_guessed(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"dtype": "float32"}')
    assert engine_arguments(str(tmp_path), EngineSpec(), EngineRuntime())["dtype"] == "float32"
    assert (
        engine_arguments(str(tmp_path), EngineSpec(dtype="bfloat16"), EngineRuntime())["dtype"] == "bfloat16"
    )
    config.write_text('{"torch_dtype": "float16"}')
    assert checkpoint_dtype(str(tmp_path)) == "float16"
    config.write_text("{}")
    with pytest.raises(UserError, match=r"engine\.dtype"):
        checkpoint_dtype(str(tmp_path))
