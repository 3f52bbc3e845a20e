"""Tables of the store: what is read is what was asked for, and all else is a message, or a result to be rebuilt."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.errors import UserError
from sftlab.measurements.answers import answer_schema
from sftlab.measurements.tables import read_answer_table, read_completions, read_logits
from sftlab.store.record import Damaged
from sftlab.store.tables import filled, read_table
from sftlab.studies.knowledge.stages.mastery import read_mastery_file

WANTED = filled(pa.schema([("b", pa.string()), ("a", pa.int64())]))


def test_the_columns_that_are_asked_for_come_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1], "c": [0.5], "b": ["x"]}), path)
    assert read_table(path, WANTED).to_pydict() == {"b": ["x"], "a": [1]}
    assert read_table(path, WANTED).column_names == ["b", "a"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1]}, "lacks the column b"),
        ({"a": ["1"], "b": ["x"]}, "column a is of type string, expected int64"),
        ({"a": [1], "b": pa.array([None], pa.string())}, "column b lacks values"),
        ({"a": [1], "b": pa.array([b"\xff"], pa.binary()).view(pa.string())}, "Invalid UTF8"),
    ],
)
def test_another_table_is_told_with_its_file_and_column(
    columns: dict[str, object], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=rf"t\.parquet: is not a readable table .*{message}"):
        read_table(tmp_path / "t.parquet", WANTED)


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + bytes(40) + b"PAR1"])
def test_no_table_at_all_is_told_and_within_a_result_is_damage_of_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(UserError, match="is not a readable table") as found:
        read_table(tmp_path / "t.parquet", WANTED)
    assert not isinstance(found.value, Damaged)
    folder = tmp_path / "evaluation" / "cell-0123456789ab"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"sha256": sha256(content).hexdigest()}))
    (folder / "t.parquet").write_bytes(content)
    with pytest.raises(Damaged, match=r"t\.parquet is not a readable table"):
        read_table(folder / "t.parquet", WANTED)
    (folder / "t.parquet").unlink()
    with pytest.raises(UserError, match="No such file") as missing:  # the disk's word, not the file's
        read_table(folder / "t.parquet", WANTED)
    assert not isinstance(missing.value, Damaged)


def logits(tuned: list[list[float | None]], path: Path) -> Path:
    kinds = {"token_ids": pa.list_(pa.int32()), "tuned_logits": pa.list_(pa.float32())}
    rows = [{"token_ids": [1, 2], "tuned_logits": row} for row in tuned]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(kinds)), path)
    return path


@pytest.mark.parametrize("row", [[1.0], [1.0, 2.0, 3.0], [1.0, None], []])
def test_logits_have_their_width_in_every_row(row: list[float | None], tmp_path: Path) -> None:
    names = ("tuned_logits",)
    sound = logits([[1.0, 2.0]] * 2, tmp_path / "sound.parquet")
    assert read_logits(sound, names, 2, 2).num_rows == 2
    with pytest.raises(UserError, match="has 2 rows, expected 3"):
        read_logits(sound, names, 2, 3)
    with pytest.raises(UserError, match="tuned_logits: a"):
        read_logits(logits([[1.0, 2.0], row], tmp_path / "odd.parquet"), names, 2)


def test_answers_and_completions_lack_no_name(tmp_path: Path) -> None:
    row = {"fact_id": "0", "split": None, "answer": "x", "correct": True, "tokens": 1, "error": None}
    pq.write_table(pa.Table.from_pylist([row], schema=answer_schema()), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column split lacks values"):
        read_answer_table(tmp_path / "a.parquet")
    pq.write_table(pa.table({"completion": ["x"]}), tmp_path / "c.parquet")
    assert read_completions(tmp_path / "c.parquet", 1) == ["x"]
    with pytest.raises(UserError, match="has 1 rows, expected 2"):
        read_completions(tmp_path / "c.parquet", 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bucket": 5}, "buckets that cannot be"),
        ({"hits": [1]}, "other numbers of templates"),
        ({"hits": []}, "other"),
    ],
)
def test_mastery_that_cannot_be_is_told(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    from tests.fuzz.seed_tables import mastery_table

    row = {"split": "test", "fact_id": "0", "topic": "P1", "hits": [1, 0], "samples": 2, "r": 0.25, "bucket": 1, "tokens": 9, "error": None}  # fmt: skip # noqa: E501
    path = tmp_path / "m.parquet"
    path.write_bytes(mastery_table([row, {**row, "fact_id": "1", **changed}], True))
    with pytest.raises(UserError, match=message):
        read_mastery_file(path)
    if "bucket" in changed:
        with pytest.raises(UserError, match=message):
            read_mastery_file(path, ["fact_id", "bucket"])
