"""Repeated examples, and questions of benchmarks that occur in the examples."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sftlab.datasets.conversations import Conversation
from sftlab.datasets.formats import PROMPTS
from sftlab.datasets.read import open_rows
from sftlab.errors import UserError, located

NGRAM = 8  # words that a question and an example share
MAX_QUESTIONS = 2**27  # characters of all questions of a benchmark
COMMON = 10  # questions of a benchmark; what more of them share is its wording
QUESTIONS = ("question", *(name for name in PROMPTS if name != "question"), "inputs")
# Scripts without blanks between words count by the character.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af_]+"
)


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation and compatibility forms."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@dataclass
class Duplicates:
    """Examples that repeat, and prompts with several responses; filled by `add`."""

    repeated: int = 0
    first: tuple[str, str] | None = None  # the first repetition: its place, and that of the original
    prompts: int = 0  # distinct prompts, by their words
    ambiguous: int = 0  # of these, those with several responses
    _places: dict[str, str] = field(default_factory=dict)
    _responses: dict[str, str | None] = field(default_factory=dict)

    def add(self, conversation: Conversation) -> None:
        key = conversation.key
        if key in self._places:
            self.repeated += 1
            self.first = self.first or (conversation.where, self._places[key])
            return
        self._places[key] = conversation.where
        prompt = " ".join(words(conversation.prompt))
        if prompt not in self._responses:
            self._responses[prompt] = key
            self.prompts += 1
        elif self._responses[prompt] is not None:
            self._responses[prompt] = None
            self.ambiguous += 1


class Overlap:
    """Which questions of a benchmark occur in the examples that `add` was given.

    A question occurs in an example that shares `ngram` words in a row with it, unless over ten of the benchmark's
    questions have these words. A question without such words occurs where it is the whole of a user's turn.
    """

    def __init__(self, name: str, questions: Sequence[str], ngram: int = NGRAM) -> None:
        self.name, self.questions, self.ngram = name, len(questions), ngram
        self.found: dict[int, str] = {}  # question: the place of the first example with it
        self.examples = 0  # that hold at least one question
        self._grams: dict[str, list[int]] = {}
        self._whole: dict[str, list[int]] = {}
        lists = [words(question) for question in questions]
        common = Counter(gram for found in lists for gram in set(_grams(found, ngram)))
        for number, found in enumerate(lists):
            rare = [gram for gram in set(_grams(found, ngram)) if common[gram] <= COMMON]
            for gram in rare:
                self._grams.setdefault(gram, []).append(number)
            if found and not rare:
                self._whole.setdefault(" ".join(found), []).append(number)

    def add(self, conversation: Conversation) -> None:
        hits: set[int] = set()
        for turn in conversation.turns:
            found = words(turn.text)
            for gram in _grams(found, self.ngram):
                hits.update(self._grams.get(gram, ()))
            if turn.role == "user":
                hits.update(self._whole.get(" ".join(found), ()))
        self.examples += bool(hits)
        for number in hits:
            self.found.setdefault(number, conversation.where)


def _grams(found: Sequence[str], size: int) -> Iterator[str]:
    return (" ".join(found[at : at + size]) for at in range(len(found) - size + 1))


def read_questions(path: Path) -> list[str]:
    """The questions of a benchmark file: JSON lines, a JSON list or parquet with one of the columns QUESTIONS.

    Raises UserError naming the file, its columns, or the row without a question.
    """
    rows = open_rows(path)
    column = next((name for name in QUESTIONS if name in rows.columns), None)
    if column is None:
        raise UserError(
            f"has no column of questions ({', '.join(QUESTIONS)})",
            place=path,
            advice=f"its columns are {', '.join(rows.columns[:20])}.",
        )
    questions, characters = [], 0
    for where, row in rows.all:
        questions.append(_question(row, column, where))
        characters += len(questions[-1])
        if characters > MAX_QUESTIONS:
            raise UserError(
                f"the questions so far have over {MAX_QUESTIONS:,} characters",
                place=where,
                advice="give fewer.",
            )
    return questions


def _question(row: Mapping[str, object], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise UserError(place=located(where).of(column), value=str(value)[:40], expected="a non-empty text")
    return value
