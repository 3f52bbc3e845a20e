"""A look at a data file before anything is trained: format, lengths, repetitions, overlap, examples as tokens."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sftlab.datasets.conversations import Conversation
from sftlab.datasets.encode import BATCH, Encoded, Encoder
from sftlab.datasets.overlap import Duplicates, Overlap
from sftlab.datasets.rendered import Template
from sftlab.datasets.source import Source
from sftlab.errors import UserError

QUANTILES = {"min": 0.0, "median": 0.5, "95 %": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Model:
    """A model as a preview knows it: its encoder, and how many tokens it allows (None: not known)."""

    encoder: Encoder
    limit: int | None = None


@dataclass(frozen=True)
class Piece:
    """A token, or without a tokenizer a stretch of text, and whether it is trained."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Example:
    """One example under one model; `model` is empty where texts are shown."""

    where: str
    model: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Lengths:
    """Quantiles over the examples, in tokens under a model or in characters, whole and trained part.

    `over` counts the examples that are longer than `limit`.
    """

    model: str
    unit: str
    whole: Mapping[str, int]
    trained: Mapping[str, int]
    limit: int | None
    over: int


@dataclass(frozen=True)
class Preview:
    """What `sftlab data show` prints."""

    source: Source
    template: str
    conversations: int
    exchanges: int
    lengths: tuple[Lengths, ...]
    duplicates: Duplicates
    overlaps: tuple[Overlap, ...]
    examples: tuple[Example, ...]


def preview(
    source: Source,
    template: Template,
    models: Sequence[Model],
    overlaps: Sequence[Overlap] = (),
    shown: int = 3,
    max_tokens: int | None = None,
) -> Preview:
    """Read the whole file once. `template` shows texts where there are no models.

    max_tokens: the length filter of a draw, in place of what the models allow.

    Raises UserError as `Source.conversations` and `Encoder.encode_all` do, and without max_tokens for an
    example that is longer than every model allows.
    """
    duplicates, count, exchanges = Duplicates(), 0, 0
    examples: list[Example] = []
    gauges = [_Gauge(model, max_tokens) for model in models] or [_Gauge(None, None)]
    rest = source.conversations()
    while batch := list(islice(rest, BATCH)):
        encoded = [gauge.add(batch, template) for gauge in gauges]
        for number, conversation in enumerate(batch[: max(0, shown - count)]):
            examples += [
                gauge.example(conversation, codes[number], template)
                for gauge, codes in zip(gauges, encoded, strict=True)
            ]
        if max_tokens is None:
            _check_allowed(batch, gauges)
        for conversation in batch:
            duplicates.add(conversation)
            exchanges += len(conversation.dialogue) // 2
            for overlap in overlaps:
                overlap.add(conversation)
        count += len(batch)
    if not count:
        raise _none_left(source)
    lengths = tuple(gauge.lengths() for gauge in gauges)
    return Preview(
        source, template.name, count, exchanges, lengths, duplicates, tuple(overlaps), tuple(examples)
    )


def _none_left(source: Source) -> UserError:
    left_out = ", ".join(f"{number:,} by {reason}" for reason, number in source.dropped.items())
    return UserError(
        f"no example is left of {source.rows:,} rows ({left_out})",
        place=source.spec.source,
        advice="check `where`, `drop_responses` and `unusable`.",
    )


class _Gauge:
    """Lengths under one model, or in characters."""

    def __init__(self, model: Model | None, max_tokens: int | None) -> None:
        self.encoder = model.encoder if model else None
        self.limit = max_tokens if max_tokens is not None else model.limit if model else None
        self.whole, self.trained = array("L"), array("L")

    def add(self, batch: Sequence[Conversation], template: Template) -> list[Encoded | None]:
        if self.encoder is None:
            for conversation in batch:
                rendered = template.render(conversation)
                self.whole.append(len(rendered.text))
                self.trained.append(sum(span.end - span.start for span in rendered.spans))
            return [None] * len(batch)
        encoded: list[Encoded | None] = []
        for one in self.encoder.encode_all(batch):
            self.whole.append(len(one.ids))
            self.trained.append(one.trained)
            encoded.append(one)
        return encoded

    def example(self, conversation: Conversation, encoded: Encoded | None, template: Template) -> Example:
        if self.encoder is None or encoded is None:
            return Example(conversation.where, "", tuple(_text_pieces(conversation, template)))
        texts = token_texts(self.encoder, conversation, encoded)
        pieces = tuple(Piece(text, trained) for text, trained in zip(texts, encoded.loss, strict=True))
        return Example(conversation.where, self.encoder.name, pieces)

    def lengths(self) -> Lengths:
        name, unit = ("", "characters") if self.encoder is None else (self.encoder.name, "tokens")
        over = 0 if self.limit is None else sum(length > self.limit for length in self.whole)
        return Lengths(name, unit, quantiles(self.whole), quantiles(self.trained), self.limit, over)


def _check_allowed(batch: Sequence[Conversation], gauges: Sequence[_Gauge]) -> None:
    """Raises UserError for an example of the last batch that is longer than every model allows."""
    if any(gauge.limit is None for gauge in gauges):
        return
    for number, conversation in enumerate(batch, -len(batch)):
        lengths = [(gauge.whole[number], gauge.limit or 0, gauge.encoder) for gauge in gauges]
        if all(length > limit for length, limit, _ in lengths):
            found = ", ".join(
                f"{length:,} tokens under {encoder.name if encoder else ''}, which allows {limit:,}"
                for length, limit, encoder in lengths
            )
            raise UserError(
                f"is longer than every model allows ({found})",
                place=conversation.where,
                advice=(
                    "remove the row, or set draw.max_tokens, which leaves such examples out (here "
                    "--max-tokens, which counts them)."
                ),
            )


def quantiles(values: Iterable[int]) -> dict[str, int]:
    """Smallest, median, 95th percentile and largest value: each the one at rank ceil(q n), at least 1."""
    ordered = sorted(values)
    return {name: ordered[max(0, -int(-q * len(ordered) // 1) - 1)] for name, q in QUANTILES.items()}


def _text_pieces(conversation: Conversation, template: Template) -> Iterable[Piece]:
    rendered, at = template.render(conversation), 0
    for span in rendered.spans:
        yield Piece(rendered.text[at : span.start], False)
        yield Piece(rendered.text[span.start : span.end], True)
        at = span.end


def token_texts(encoder: Encoder, conversation: Conversation, encoded: Encoded) -> list[str]:
    """What each token shows as: the characters that it covers, with the blanks before it.

    A token of a part of a character shows as the whole character, and those of its other parts as a dot.
    """
    text, tokenizer = encoder.template.render(conversation).text, encoder.tokenizer
    tokens: list[str] = tokenizer.convert_ids_to_tokens(list(encoded.ids))
    if not tokenizer.is_fast:
        return tokens
    offsets = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    texts, at = tokens[: len(tokens) - len(offsets)], 0
    for _, end in offsets:
        texts.append(text[at:end] or "·")
        at = max(at, end)
    return texts


def as_json(found: Preview) -> dict[str, Any]:
    """The preview as plain values."""
    source = found.source
    return {
        "source": source.spec.source,
        "container": source.container,
        "format": source.detected.format,
        "why": source.detected.why,
        "columns": dict(source.detected.columns),
        "unread_columns": source.unread_columns,
        "template": found.template,
        "rows": source.rows,
        "dropped": dict(source.dropped),
        "conversations": found.conversations,
        "exchanges": found.exchanges,
        "lengths": [vars(lengths) for lengths in found.lengths],
        "repeated": found.duplicates.repeated,
        "prompts_with_several_responses": found.duplicates.ambiguous,
        "overlap": [
            {"benchmark": o.name, "questions": o.questions, "found": len(o.found), "examples": o.examples}
            for o in found.overlaps
        ],
        "examples": [
            {
                "where": example.where,
                "model": example.model,
                "pieces": [piece.text for piece in example.pieces],
                "trained": [piece.trained for piece in example.pieces],
            }
            for example in found.examples
        ],
    }
