"""A preview as lines for a terminal. The trained part is in double brackets, with colour or without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from sftlab.datasets.preview import Example, Lengths, Piece, Preview

TRAINED, PLAIN = "\x1b[1;32m", "\x1b[0m"
LONGEST = 160  # pieces of one part; of a longer part the beginning and the end are shown
CHARACTERS = 1200  # of a text that is shown without a tokenizer


def as_text(found: Preview, colour: bool) -> str:
    """All of a preview; `colour` colours the trained part."""
    return "\n".join([*_head(found), "", *(line for one in found.examples for line in _example(one, colour))])


def _head(found: Preview) -> Iterator[str]:
    source, duplicates = found.source, found.duplicates
    yield f"{source.spec.source}: {source.container}, format {source.detected.format}: {source.detected.why}"
    read = ", ".join(f"{slot} {plain(column)!r}" for slot, column in source.detected.columns.items())
    unread = ", ".join(plain(name) for name in source.unread_columns[:20])
    yield f"  columns     {read}{f'; not read: {unread}' if unread else ''}"
    dropped = ", ".join(f"{number:,} by {plain(reason)}" for reason, number in source.dropped.items())
    exchanges = "" if found.exchanges == found.conversations else f" of {found.exchanges:,} exchanges"
    left_out = f"; left out: {dropped}" if dropped else ""
    yield f"  examples    {found.conversations:,}{exchanges} in {source.rows:,} rows{left_out}"
    yield f"  template    {found.template}"
    for lengths in found.lengths:
        yield from _lengths(lengths)
    again = ""
    if duplicates.first is not None:
        again = f" (the first: {duplicates.first[0]} is {duplicates.first[1]})"
    several = f"{duplicates.ambiguous:,} prompts with several responses"
    yield f"  repeated    {duplicates.repeated:,} examples{again}; {several}"
    for overlap in found.overlaps:
        where = next(iter(overlap.found.values()), None)
        first = f" (the first: {where})" if where else ""
        yield (
            f"  overlap     {overlap.name}: {len(overlap.found):,} of {overlap.questions:,} questions occur in "
            f"{overlap.examples:,} examples{first}"
        )


def _lengths(lengths: Lengths) -> Iterator[str]:
    model = f" under {lengths.model}" if lengths.model else ""
    for what, values in (("length", lengths.whole), ("trained", lengths.trained)):
        shown = ", ".join(f"{name} {value:,}" for name, value in values.items())
        yield f"  {what:11} {shown} {lengths.unit}{model}"
    if lengths.limit is not None:
        yield f"  too long    {lengths.over:,} examples have over {lengths.limit:,} {lengths.unit}{model}"


def _example(example: Example, colour: bool) -> Iterator[str]:
    count, trained = len(example.pieces), sum(piece.trained for piece in example.pieces)
    numbers = f": {count:,} tokens under {example.model}, {trained:,} trained" if example.model else ""
    yield f"{example.where}{numbers}"
    parts = []
    for is_trained, group in groupby(example.pieces, key=lambda piece: piece.trained):
        shown = _part(list(group), bool(example.model))
        if is_trained:
            shown = f"[[{shown}]]"
            shown = f"{TRAINED}{shown}{PLAIN}" if colour else shown
        parts.append(shown)
    yield f"  {''.join(parts)}"
    yield ""


def _part(pieces: Sequence[Piece], tokens: bool) -> str:
    if not tokens:
        return _shortened("".join(piece.text for piece in pieces))
    texts = [plain(piece.text) for piece in pieces]
    if len(texts) > LONGEST:
        half = LONGEST // 2
        texts = [*texts[:half], f" ... {len(texts) - 2 * half:,} tokens ... ", *texts[-half:]]
    return "|".join(texts)


def _shortened(text: str) -> str:
    half = CHARACTERS // 2
    if len(text) > CHARACTERS:
        return f"{plain(text[:half])} ... {len(text) - 2 * half:,} characters ... {plain(text[-half:])}"
    return plain(text)


def plain(text: str) -> str:
    """A text in one line; what a terminal would obey or hide is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
