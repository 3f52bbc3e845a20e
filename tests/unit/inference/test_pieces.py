"""Committed pieces, slices of facts, and runtimes that contradict themselves."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.errors import UserError
from sftlab.facts.table import COLUMNS, SPLITS, facts_table
from sftlab.inference.limits import WHOLE
from sftlab.inference.pieces import commit_table
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import check_served, checkpoint_dtype, engine_arguments
from sftlab.measurements import scoring as scorer
from sftlab.measurements.fact_blocks import PIECE_ROWS, FactBlocks, FactReader
from sftlab.measurements.mastery import mastery_schema
from sftlab.measurements.scoring import (
    TASKS,
    BlockScorer,
    DamagedBlockError,
    ScoringRequest,
    drop_damaged,
    read_block,
    scored,
    sound_block,
    tasks_of,
)
from sftlab.measurements.spec import MasterySpec
from sftlab.studies.knowledge.stages import mastery
from sftlab.studies.knowledge.stages.mastery import write_mastery
from tests.support.refusals import refused


def ids(*names: str) -> pa.Table:
    return pa.table({"fact_id": list(names)})


def block(*names: str, tokens: int = 3) -> pa.Table:
    """Finished rows of the mastery table."""
    row = {"topic": "P19", "hits": [1, 0], "samples": 1, "r": 0.5, "bucket": 2, "tokens": tokens}
    return pa.Table.from_pylist([{"fact_id": name, **row} for name in names], schema=mastery_schema())


def facts_folder(folder: Path, **rows: int) -> Path:
    """A facts folder whose splits have so many facts, named by split and number; the rest are empty."""
    folder.mkdir()
    for split in SPLITS:
        named = [f"{split}{i}" for i in range(rows.get(split, 0))]
        table = facts_table(
            dict.fromkeys(("topic", "subject", "object", "question"), name)
            | {"fact_id": name, "accepted": [name]}
            for name in named
        )
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=3000)
    return folder


def test_blocks_go_over_the_ends_of_splits_and_the_last_holds_the_rest(tmp_path: Path) -> None:
    blocks = FactBlocks.of(facts_folder(tmp_path / "facts", train=3, dev=2), 2)
    reader = FactReader(blocks)
    parts = [reader.block(i)["fact_id"].to_pylist() for i in range(len(blocks))]
    assert parts == [["train0", "train1"], ["train2", "dev0"], ["dev1"]]
    assert [blocks.rows_of(i) for i in range(3)] == [2, 2, 1]
    assert list(blocks.split_names()) == ["train"] * 3 + ["dev"] * 2
    assert reader.block(0).column_names == list(COLUMNS)
    assert len(FactBlocks.of(facts_folder(tmp_path / "none"), 2)) == 0


def test_blocks_are_found_forwards_and_backwards_and_few_facts_are_held(tmp_path: Path) -> None:
    blocks = FactBlocks.of(facts_folder(tmp_path / "facts", train=9000, test=9000), 32)
    expected = [f"train{i}" for i in range(9000)] + [f"test{i}" for i in range(9000)]
    reader = FactReader(blocks, ["fact_id"])
    for index in (0, 1, 280, 281, 282, 500, 562, 3, 562):  # 281 reaches over the end of a split
        rows = reader.block(index)["fact_id"].to_pylist()
        assert rows == expected[index * 32 : index * 32 + 32]
        assert reader.held.num_rows <= PIECE_ROWS + 32


def test_facts_that_are_damaged_or_fewer_than_counted_are_reported(tmp_path: Path) -> None:
    folder = facts_folder(tmp_path / "facts", train=9000)
    blocks = FactBlocks.of(folder, 32)
    pq.write_table(pq.read_table(folder / "train.parquet").slice(0, 10), folder / "train.parquet")
    with pytest.raises(UserError, match="fewer facts than before"):
        FactReader(blocks).block(1)
    (folder / "train.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"train\.parquet.*not a readable"):
        FactReader(blocks).block(1)


def test_many_blocks_share_a_task_and_few_have_their_own() -> None:
    assert tasks_of([4, 7, 9], engines=2) == [[4], [7], [9]]
    assert tasks_of([], engines=2) == []
    many = tasks_of(range(31_250), engines=1)
    assert len(many) <= TASKS and [i for task in many for i in task] == list(range(31_250))
    assert len(tasks_of(range(31_250), engines=64)) > TASKS


@pytest.mark.parametrize("rows", [0, 31, 25_000])
def test_the_mastery_table_has_the_bytes_of_one_that_is_written_at_once(rows: int, tmp_path: Path) -> None:
    schema = mastery_schema()
    columns = {
        "fact_id": [sha256(str(i).encode()).hexdigest()[:16] for i in range(rows)],
        "topic": [f"P{i % 24}" for i in range(rows)],
        "hits": [[i % 11] * 21 if i % 100 else None for i in range(rows)],
        "samples": [10] * rows,
        "r": [i % 7 / 7 for i in range(rows)],
        "bucket": [i % 5 for i in range(rows)],
        "tokens": [i * 7919 % 3001 for i in range(rows)],
        "error": [None if i % 100 else "subject is empty" for i in range(rows)],
    }
    table = pa.table(columns, schema=schema)
    blocks = [table.slice(start, 32) for start in range(0, rows, 32)]
    splits = ["train" if i < rows // 3 else "dev" for i in range(rows)]
    write_mastery(iter(blocks), 32, iter(splits), tmp_path / "streamed.parquet")
    whole = pa.concat_tables([schema.empty_table(), *blocks])
    pq.write_table(whole.add_column(0, "split", pa.array(splits, pa.string())), tmp_path / "whole.parquet")
    assert (tmp_path / "streamed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_large_mastery_table_is_written_in_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mastery, "GROUP_ROWS", 64)
    table = pa.table({"fact_id": [str(i) for i in range(150)]})
    table = pa.table(
        {f.name: table.columns[0] if f.name == "fact_id" else pa.nulls(150, f.type) for f in mastery_schema()}
    )
    write_mastery(
        (table.slice(i, 30) for i in range(0, 150, 30)), 30, iter(["dev"] * 150), tmp_path / "t.parquet"
    )
    file = pq.ParquetFile(tmp_path / "t.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [60, 60, 30]
    assert file.read()["fact_id"].to_pylist() == [str(i) for i in range(150)]


def test_a_committed_table_has_the_same_bytes_each_time_and_leaves_no_draft(tmp_path: Path) -> None:
    for name in ("one", "two"):
        commit_table(ids("a", "b"), tmp_path / name / "t.parquet")
    assert (tmp_path / "one/t.parquet").read_bytes() == (tmp_path / "two/t.parquet").read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["t.parquet"]


def test_a_table_that_cannot_be_moved_into_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        commit_table(ids("a"), tmp_path / "t.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


def test_a_damaged_block_and_a_block_of_other_facts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "00000.parquet"
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"00000\.parquet.*delete it"):
        read_block(path, ids("a"))
    pq.write_table(block("b"), path)
    with pytest.raises(UserError, match="holds other facts"):
        read_block(path, ids("a"))


def replaced(name: str, values: list[object], kind: pa.DataType | None = None) -> pa.Table:
    table = block("a")
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, kind or table.schema.field(name).type))


@pytest.mark.parametrize(
    "wrong",
    [
        replaced("tokens", [None]),
        replaced("hits", [[None]]),
        replaced("bucket", [5]),
        replaced("r", [None]),
        replaced("error", ["x"]),
        replaced("topic", [1], pa.int64()),
        block("a").append_column("more", [[1]]),
        block("a").drop_columns(["samples"]),
        block("a", "b"),
    ],
)
def test_a_block_that_is_none_is_deleted_and_left_to_be_scored_again(tmp_path: Path, wrong: pa.Table) -> None:
    path = tmp_path / "00000.parquet"
    commit_table(wrong, path, checksums=True)
    assert sound_block(path, ids("a")) is None and not path.exists()


def test_a_block_with_a_flipped_bit_is_logged_deleted_and_left_to_be_scored_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, table = tmp_path / "00000.parquet", block("a", tokens=0x1234567)
    commit_table(table, path, checksums=True)
    assert sound_block(path, table) == table
    content = bytearray(path.read_bytes())
    content[content.index((0x1234567).to_bytes(8, "little"))] ^= 1  # the first is that of the data page
    path.write_bytes(content)
    assert pq.read_table(path)["tokens"].to_pylist() == [0x1234566]  # without a look at the checksums
    assert sound_block(path, table) is None
    assert not path.exists() and "is deleted and scored again" in caplog.text


def scoring(folder: Path, facts: int = 2) -> ScoringRequest:
    """Blocks of one fact each."""
    blocks = FactBlocks.of(facts_folder(folder / "facts", train=facts), 1)
    return ScoringRequest(blocks, {}, str(folder), MasterySpec(), EngineSpec(), folder / "work")


def test_blocks_that_are_damaged_where_no_run_has_looked_are_logged_and_then_all_deleted(
    tmp_path: Path,
) -> None:
    request = scoring(tmp_path, facts=3)
    for index in range(3):
        commit_table(block(f"train{index}"), request.path(index), checksums=True)
    for index in (0, 2):
        request.path(index).write_bytes(b"PAR1 cut off")
    with refused("is not a readable block", place="00000.parquet", advice="delete it") as caught:
        list(scored(request))
    assert type(caught.value) is DamagedBlockError
    drop_damaged(request)
    assert [path.name for path in request.blocks_dir.iterdir()] == ["00001.parquet"]


def test_a_block_of_an_actor_that_died_is_sent_by_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, sent = scoring(tmp_path), list[Path]()
    monkeypatch.setattr(scorer, "push", sent.append)
    commit_table(block("train0"), request.path(0), checksums=True)
    actor = BlockScorer(request, EngineRuntime(timeout_seconds=None), no_engine, WHOLE)
    assert actor(pa.table({scorer.BLOCK: [0]})).to_pylist() == [{"prompts": 2, "tokens": 3}]
    assert sent == [request.path(0)]


def no_engine(*_: object) -> NoReturn:
    raise AssertionError("an engine was started")


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


def test_completions_at_a_time_are_vllms_choice_on_a_gpu_unless_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')

    def arguments(**runtime: int) -> dict[str, object]:
        return engine_arguments(str(tmp_path), EngineSpec(), EngineRuntime.model_validate(runtime))

    assert arguments()["max_num_seqs"] == 256
    assert "max_num_seqs" not in arguments(gpus_per_engine=1)
    assert arguments(gpus_per_engine=1, max_num_seqs=8)["max_num_seqs"] == 8
    assert arguments(max_num_seqs=8)["max_num_seqs"] == 8
