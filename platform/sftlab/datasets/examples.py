"""Training sets: tables of examples in the order in which they are trained on.

`prompt` and `target` are texts, and `target` is trained. `system` and `earlier`, which a table may lack, hold the
system text and the earlier exchanges of a conversation. Other columns are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.datasets.conversations import Conversation, Turn
from sftlab.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

PROMPT, TARGET, SYSTEM, EARLIER = "prompt", "target", "system", "earlier"


def examples_schema() -> pa.Schema:
    """The columns of a training set."""
    import pyarrow as pa

    text = pa.string()
    exchange = pa.struct([(PROMPT, text), (TARGET, text), ("loss", pa.bool_())])
    return pa.schema([(PROMPT, text), (TARGET, text), (SYSTEM, text), (EARLIER, pa.list_(exchange))])


def examples_table(conversations: Iterable[Conversation]) -> pa.Table:
    """Conversations that end with a trained response as a table that `conversations_of` reads again."""
    import pyarrow as pa

    return pa.Table.from_pylist([_row(conversation) for conversation in conversations], examples_schema())


def columns_of(names: Sequence[str]) -> pa.Schema:
    """The columns to read of a table that has `names`: the texts, and the others where it has them."""
    import pyarrow as pa

    schema = examples_schema()
    return pa.schema([field for field in schema if field.name in (PROMPT, TARGET) or field.name in names])


def conversations_of(table: pa.Table, source: str) -> list[Conversation]:
    """The examples of a training set, texts as they are; `source` is how messages call it.

    Raises UserError naming the row and the column where a text is empty or there is no row.
    """
    if not table.num_rows:
        raise UserError("has no rows", place=source, advice="a training set has one or more examples.")
    return [_conversation(row, f"{source}: row {number}") for number, row in enumerate(table.to_pylist())]


def _row(conversation: Conversation) -> dict[str, Any]:
    *earlier, prompt, target = conversation.dialogue
    assert target.loss, f"{conversation.where}: ends without a trained response"
    exchanges = [
        {PROMPT: asked.text, TARGET: answered.text, "loss": answered.loss}
        for asked, answered in zip(earlier[::2], earlier[1::2], strict=True)
    ]
    return {
        PROMPT: prompt.text,
        TARGET: target.text,
        SYSTEM: conversation.system or None,
        EARLIER: exchanges or None,
    }


def _conversation(row: dict[str, Any], where: str) -> Conversation:
    system, earlier = row.get(SYSTEM), row.get(EARLIER) or []
    turns = [Turn("system", system)] if system else []
    for exchange in (*earlier, {PROMPT: row[PROMPT], TARGET: row[TARGET], "loss": True}):
        for column in (PROMPT, TARGET):
            if not (exchange[column] or "").strip():
                raise UserError(
                    f"the {column} is empty: {exchange[column]!r}", place=where, value=exchange[column]
                )
        turns += [Turn("user", exchange[PROMPT]), Turn("assistant", exchange[TARGET], bool(exchange["loss"]))]
    return Conversation(tuple(turns), where)
