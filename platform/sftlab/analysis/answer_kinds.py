"""Kinds of answers: right, another entity of the topic, no answer, and everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

Kind = Literal["right", "other_entity", "no_answer", "malformed"]
KINDS: tuple[Kind, ...] = ("right", "other_entity", "no_answer", "malformed")
WRONG = KINDS[1:]

Key = TypeVar("Key", bound=Hashable)


class Kinds(NamedTuple):
    """Numbers of answers by their kind (`kind_of`)."""

    right: int
    other_entity: int
    no_answer: int
    malformed: int

    @property
    def answers(self) -> int:
        return sum(self)

    @property
    def wrong(self) -> int:
        return self.answers - self.right


def kind_of(
    answer: str | None, correct: bool | None, accepted: Collection[str], entities: Collection[str]
) -> Kind:
    """The kind of one answer.

    right: the verdict says so. no_answer: there is no text. other_entity: the text is an answer of the topic that is
    not accepted here. malformed: any other text, such as an accepted answer that the verdict does not count.

    Args:
        answer: the normalised text; None where it has no letter or digit, and where the question could not be asked.
        correct: the verdict; None where the question could not be asked.
        accepted: normalised names that are accepted.
        entities: normalised names that are accepted for any fact of the topic.

    >>> kind_of("paris", False, {"lyon"}, {"lyon", "paris"}), kind_of("it is big", False, {"lyon"}, {"lyon", "paris"})
    ('other_entity', 'malformed')
    """
    if correct:
        return "right"
    if answer is None:
        return "no_answer"
    return "other_entity" if answer in entities and answer not in accepted else "malformed"


def kinds_by(kinds: Iterable[Kind], keys: Sequence[Key | None]) -> dict[Key, Kinds]:
    """The numbers of answers of each key, in the order in which keys first occur; those of the key None are left out.

    >>> kinds_by(["right", "malformed", "right"], ["a", "a", None])
    {'a': Kinds(right=1, other_entity=0, no_answer=0, malformed=1)}
    """
    counts: dict[Key, Counter[Kind]] = {}
    for kind, key in zip(kinds, keys, strict=True):
        if key is not None:
            counts.setdefault(key, Counter())[kind] += 1
    return {key: Kinds(*(found[kind] for kind in KINDS)) for key, found in counts.items()}


def together(parts: Sequence[Kinds]) -> Kinds:
    """The answers of several groups as one."""
    return Kinds(*(sum(column) for column in zip(*parts, strict=True))) if parts else Kinds(0, 0, 0, 0)
