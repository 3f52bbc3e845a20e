"""A ranking as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sftlab.reporting.text import count, listed, number, percent
from sftlab.studies.survey.rank import Ranked, Ranking, ties

HEADINGS = (
    "rank",
    "places",
    "set",
    "predicted gain",
    "perplexity",
    "bits a byte",
    "tokens",
    "too long",
    "repeated",
)


def ranking_text(ranking: Ranking, gpu_hours: Sequence[float | None]) -> str:
    """The order, what is certain of it, a row a set, and the overlap with each benchmark."""
    rows = [_cells(number, one) for number, one in enumerate(ranking.ranked, start=1)]
    shown = [n for n in range(len(HEADINGS)) if any(row[n] for row in rows)]
    lines = [[HEADINGS[n] for n in shown], *([row[n] for n in shown] for row in rows)]
    return "\n".join(
        [
            f"{count(len(rows), 'set')} by {ranking.by}: {ties(ranking)}",
            "",
            *_aligned(lines),
            "",
            *_overlaps(ranking),
            *_cost(ranking, gpu_hours),
            _basis(ranking),
        ]
    )


def _cells(place: int, one: Ranked) -> list[str]:
    found, candidate = one.perplexity, one.candidate
    low, high = one.response_interval
    gain = ""
    if one.gain is not None:
        middle, least, most = (f"{value:+.2f}" for value in one.gain)
        gain = f"{middle} [{least}, {most}]"
    return [
        str(place),
        str(one.places[0]) if one.places[0] == one.places[1] else f"{one.places[0]}-{one.places[1]}",
        candidate.name,
        gain,
        f"{_short(found['response'])} [{_short(low)}, {_short(high)}]",
        f"{found['bits_per_byte']:.3f}",
        f"{candidate.tokens / candidate.examples:.0f}",
        percent(candidate.share_too_long) if candidate.too_long else "",
        f"{candidate.repeated:,}" if candidate.repeated else "",
    ]


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _overlaps(ranking: Ranking) -> Iterator[str]:
    """By benchmark, how many questions occur in each set, and how alike the words are."""
    for benchmark in ranking.ranked[0].candidate.overlap:
        parts = []
        for one in ranking.ranked:
            (found, of), alike = one.candidate.overlap[benchmark], one.candidate.similarity[benchmark]
            similarity = "" if alike is None else f", similarity {alike:.2f}"
            parts.append(f"{one.candidate.name} {found:,} of {of:,}{similarity}")
        yield f"questions of {Path(benchmark).name} in the sets (13 words in a row): {'; '.join(parts)}"


def _cost(ranking: Ranking, gpu_hours: Sequence[float | None]) -> Iterator[str]:
    parts = []
    for one, hours in zip(ranking.ranked, gpu_hours, strict=True):
        cost = "" if hours is None else f", {hours:.2g} GPU hours"
        parts.append(f"{one.candidate.name} {one.candidate.tokens:,} tokens{cost}")
    yield f"an epoch on the measured examples: {'; '.join(parts)}"


def _basis(ranking: Ranking) -> str:
    known, prediction = ranking.known, ranking.prediction
    if prediction is None:
        why = "the store holds no survey to predict gains from"
        if known.surveys:
            why = (
                f"the surveys of the store ({listed(known.surveys)}) have too few sets or bases to predict gains from: "
                f"{len(set(known.known.sets))} sets under {len(set(known.known.models))} bases"
            )
        elif known.left_out:
            why = f"the surveys of the store say nothing about gains ({'; '.join(known.left_out)})"
        return f"The order is by perplexity, with an interval over examples; {why}."
    r2 = "not defined" if np.isnan(prediction.r2) else number(prediction.r2, 2)
    return (
        f"Predicted gains are in standard deviations, with 95 % intervals over training sets, from the perplexity and "
        f"length of {len(set(known.known.sets))} sets under {len(set(known.known.models))} bases "
        f"({listed(known.surveys)}). R2 for a base that the fit has not seen: {r2}."
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
