"""Training sets as tables: what is written is what is read; texts as they are."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sftlab.datasets.conversations import Conversation, Turn, exchange
from sftlab.datasets.examples import columns_of, conversations_of, examples_table
from sftlab.errors import UserError
from tests.support.refusals import refused

TWO = Conversation(
    (
        Turn("system", "S"),
        Turn("user", "a"),
        Turn("assistant", "b"),
        Turn("user", "c"),
        Turn("assistant", "d", loss=True),
    )
)


def test_conversations_are_read_as_they_were_written() -> None:
    written = [exchange(" q ", " r "), TWO, exchange("q", "r", system="be brief")]
    found = conversations_of(examples_table(written), "t.parquet")
    assert found == written
    assert [one.where for one in found] == [f"t.parquet: row {n}" for n in range(3)]


def test_prompt_and_target_are_enough_and_other_columns_are_not_read() -> None:
    assert columns_of(["object", "target", "prompt"]).names == ["prompt", "target"]
    assert columns_of(["earlier", "target"]).names == ["prompt", "target", "earlier"]
    assert conversations_of(pa.table({"prompt": ["q"], "target": ["r"]}), "t") == [exchange("q", "r")]


def test_the_last_exchange_is_prompt_and_target() -> None:
    (row,) = examples_table([TWO]).to_pylist()
    assert (row["prompt"], row["target"], row["system"]) == ("c", "d", "S")
    assert row["earlier"] == [{"prompt": "a", "target": "b", "loss": False}]


def test_an_empty_text_of_an_earlier_exchange_is_named_by_its_row() -> None:
    table = examples_table([exchange("q", "r"), TWO])
    earlier = pa.array([None, [{"prompt": "a", "target": " ", "loss": True}]], table["earlier"].type)
    with refused("the target is empty", place="t.parquet: row 1", value=" "):
        conversations_of(table.set_column(3, "earlier", earlier), "t.parquet")


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(UserError, match="t: has no rows"):
        conversations_of(examples_table([]), "t")
