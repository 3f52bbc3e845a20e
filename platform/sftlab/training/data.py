"""The training sets of runs as token ids, each read and encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sftlab.datasets.conversations import Conversation
from sftlab.datasets.encode import Encoder
from sftlab.datasets.examples import columns_of, conversations_of
from sftlab.datasets.spec import TemplateSpec
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from sftlab.store.mirror import display_path, pull
from sftlab.store.tables import read_table
from sftlab.training.batches import Example
from sftlab.training.records import SFTRun

Encoded = tuple[list[Example], int]
"""A training set as token ids, and the padding id."""

SHOWN = 60  # characters of a text in a message


def read_examples(runs: Sequence[SFTRun]) -> list[Encoded]:
    """The runs' training sets, in order. Raises UserError as `encode_file` does.

    Runs of a sweep or a survey share most of what is read, so each training set is encoded once with each
    tokenizer and template.
    """
    encoder_of, encoded = cache(load_encoder), cache(encode_file)
    found = []
    for run in runs:
        for path in (run.base_model, run.train_file, *([run.mask.probe] if run.mask is not None else [])):
            pull(path)
        encoder = encoder_of(run.base_model, run.template)
        found.append(encoded(encoder, run.train_file, run.spec.max_length))
    return found


def read_conversations(path: Path | str) -> list[Conversation]:
    """The examples of a training set (see datasets.examples), texts as they are.

    Raises UserError naming the file, the row and the column where it is no such table or a text is empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, shown = pull(Path(path)), display_path(str(path))
    if not file.is_file():
        raise UserError(
            "not found", place=shown, expected="a training set with the columns prompt and target"
        )
    try:
        names = pq.read_schema(file).names
    except (pa.ArrowException, OSError, ValueError):  # read_table names what is wrong with the file
        names = []
    return conversations_of(read_table(file, columns_of(names)), shown)


def load_encoder(base_model: str, template: TemplateSpec) -> Encoder:
    """The tokenizer of a model folder with a template. Raises UserError where the two do not go together."""
    tokenizer, name = load_tokenizer(base_model), display_path(base_model)
    return Encoder(tokenizer, make_template(template, tokenizer, name), name)


def load_tokenizer(base_model: str) -> Any:
    """The tokenizer of a model folder. Raises UserError where it has no end-of-sequence token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token, which SFT needs", place=base_model)
    return tokenizer


def encode_file(encoder: Encoder, train_file: str, max_length: int) -> Encoded:
    """A training set as token ids, and the padding id.

    Raises UserError as `read_conversations` and `Encoder.encode_all`, and naming file, row and texts where an example
    is longer than `max_length`.
    """
    conversations, examples = read_conversations(train_file), []
    for conversation, encoded in zip(conversations, encoder.encode_all(conversations), strict=True):
        if len(encoded.ids) > max_length:
            *_, prompt, target = (_short(turn.text) for turn in conversation.turns)
            raise UserError(
                f"has {len(encoded.ids)} tokens with its target, and at most sft.max_length = {max_length} are "
                f"allowed: {prompt} -> {target}",
                place=conversation.where,
                value=len(encoded.ids),
                advice="raise sft.max_length or leave this example out.",
            )
        examples.append(Example.of(encoded.ids, encoded.loss))
    tokenizer = encoder.tokenizer
    return examples, tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
