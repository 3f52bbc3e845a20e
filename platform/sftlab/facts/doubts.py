"""What may make the scores of facts mean something else: counted with an example each, and left out on wish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.facts.text import hidden

if TYPE_CHECKING:
    import pyarrow as pa

SHORT = 2  # letters of a name that is found by chance within other words
MOST_COMPARED = 5_000  # different answers of a topic that are looked for in each other
WHOLE_WORDS = "set mastery.whole_words and answers.whole_words to count whole words alone"
ANSWERED = (
    "have an answer that the question contains, so a model that repeats the question is right; set "
    "facts.exclude_answered to leave them out"
)

Fact = Mapping[str, Any]


def answered(tables: Mapping[str, pa.Table]) -> list[str]:
    """A line on facts whose question contains an accepted name, if there are any: how many, and the first one."""
    columns = ["subject", "object", "accepted", "question"]
    facts = [fact for table in tables.values() for fact in table.select(columns).to_pylist()]
    found = [(fact, name) for fact in facts if (name := _given_away(fact))]
    return [_line(found, ANSWERED)] if found else []


def without_answered(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The splits without facts whose question contains an accepted name; the order of the rows is kept."""
    import pyarrow as pa

    return {
        split: table.filter(
            pa.array(
                [not _given_away(fact) for fact in table.select(["accepted", "question"]).to_pylist()],
                pa.bool_(),
            )
        )
        for split, table in tables.items()
    }


def doubts(tables: Mapping[str, pa.Table]) -> list[str]:
    """A line for every kind of doubtful answer that the facts have: how many, and the first one."""
    facts = [fact for table in tables.values() for fact in table.to_pylist()]
    nested = _nested(facts)
    kinds = (
        (
            [(f, name) for f in facts if (name := _first(f, _is_short))],
            f"have an answer of at most {SHORT} letters, which other words contain by chance; {WHOLE_WORDS}",
        ),
        (
            [
                (f, nested[f["topic"]][name])
                for f in facts
                if (name := f["object"]) in nested.get(f["topic"], {})
            ],
            f"have an answer that is part of another answer of their topic; {WHOLE_WORDS}",
        ),
        (
            [(f, name) for f in facts if (name := _given_away(f))],
            ANSWERED,
        ),
        (
            [(f, found) for f in facts if (found := hidden(f["object"]))],
            "have invisible characters within the answer, which a model hardly writes; remove them, or list the answer "
            "without them under `accepted`",
        ),
    )
    return [_line(found, words) for found, words in kinds if found]


def _line(found: Sequence[tuple[Fact, str]], words: str) -> str:
    fact, detail = found[0]
    verb, count = ("fact", "1") if len(found) == 1 else ("facts", f"{len(found):,}")
    return f"{count} {verb} {words} (such as {fact['object']!r} of {fact['subject']!r}: {detail})"


def _first(fact: Fact, doubtful: Any) -> str:
    """The first accepted name that is doubtful, or ""."""
    return next((name for name in fact["accepted"] if doubtful(name)), "")


def _given_away(fact: Fact) -> str:
    """The first accepted name that the question contains, as `contains_answer` finds it, or ""."""
    return _first(fact, lambda name: name in fact["question"])


def _is_short(name: str) -> bool:
    """Whether a name is short for its script: signs that are words, as in Chinese, are not of this kind."""
    return len(name) <= SHORT and all(c.isdigit() or c.upper() != c.lower() for c in name)


def _nested(facts: Sequence[Fact]) -> dict[str, dict[str, str]]:
    """By topic: the answers that another answer contains, with that one."""
    answers: dict[str, dict[str, None]] = {}
    for fact in facts:
        answers.setdefault(fact["topic"], {})[fact["object"]] = None
    return {topic: dict(_contained(list(names)[:MOST_COMPARED])) for topic, names in answers.items()}


def _contained(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names that are within others: all names are one text, with a mark between them, that is searched."""
    mark = "\x1f"
    text = mark + mark.join(names) + mark
    for name in names:
        at = text.find(name)
        while at >= 0:
            start, end = text.rindex(mark, 0, at + 1) + 1, text.index(mark, at)
            if text[start:end] != name:
                yield name, text[start:end]
                break
            at = text.find(name, at + 1)
