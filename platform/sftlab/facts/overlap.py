"""Facts that two splits share, so that a model may be asked what it was trained on: counted, and left out on wish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.facts.text import identity

if TYPE_CHECKING:
    import pyarrow as pa

Fact = Mapping[str, Any]
Key = tuple[str, ...]

# Every split is compared with those before it, and gives way to them.
ORDER = ("test", "test_ood", "dev", "dev_ood", "train")
EXCLUDE = "set facts.exclude_overlap to leave them out of {split}"


@dataclass(frozen=True)
class Shared:
    """Facts of a split that occur in another: how many, how, and the first of them."""

    split: str
    other: str
    kind: str  # "question": asked in the same words; "fact": the same subject and answer in other words
    count: int
    first: str

    @property
    def line(self) -> str:
        """A sentence about it for people."""
        facts = "1 fact" if self.count == 1 else f"{self.count:,} facts"
        what = "have" if self.count > 1 else "has"
        how = {"question": "question", "fact": "subject and answer"}[self.kind]
        return (
            f"{facts} of {self.split} {what} the {how} of a fact of {self.other} (such as {self.first}); "
            f"{EXCLUDE.format(split=self.split)}"
        )


def keys_of(fact: Fact) -> dict[str, Key]:
    """What makes two facts one, by kind: the words of the question, or subject and answer in any topic."""
    subject, answer = fact["subject"], fact["object"]
    return {"question": (_words(fact["question"]),), "fact": (_words(subject), _words(answer))}


def _words(text: str) -> str:
    return identity(text).casefold()


def shared(tables: Mapping[str, pa.Table]) -> list[Shared]:
    """What the splits share, by pair of splits and kind; a fact that is shared in both ways counts as a question."""
    found: dict[tuple[str, str, str], list[str]] = {}
    seen: dict[str, dict[Key, str]] = {"question": {}, "fact": {}}
    for split in _in_order(tables):
        mine: list[tuple[str, Key]] = []
        for fact in _rows(tables[split]):
            keys = keys_of(fact)
            mine += keys.items()
            kind = next((kind for kind, key in keys.items() if key in seen[kind]), None)
            if kind is not None:
                pair = (split, seen[kind][keys[kind]], kind)
                found.setdefault(pair, []).append(repr(fact["question"]))
        for kind, key in mine:
            seen[kind].setdefault(key, split)
    return [Shared(*pair, len(facts), facts[0]) for pair, facts in sorted(found.items())]


def without_shared(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The splits without facts that a split before them in ORDER has; the order of the rows is kept."""
    import pyarrow as pa

    kept = dict(tables)
    seen: dict[str, set[Key]] = {"question": set(), "fact": set()}
    for split in _in_order(tables):
        keys = [keys_of(fact) for fact in _rows(tables[split])]
        rows = [row for row, of in enumerate(keys) if not any(key in seen[kind] for kind, key in of.items())]
        kept[split] = tables[split].take(pa.array(rows, pa.int64()))
        for of in keys:
            for kind, key in of.items():
                seen[kind].add(key)
    return kept


def _in_order(tables: Mapping[str, pa.Table]) -> Iterable[str]:
    return (split for split in ORDER if split in tables)


def _rows(table: pa.Table) -> list[Fact]:
    rows: list[Fact] = table.select(["subject", "object", "question"]).to_pylist()
    return rows
