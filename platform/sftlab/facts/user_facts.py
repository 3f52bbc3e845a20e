"""Custom facts of a user: rows with subject, object, topic; optionally accepted names and a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from sftlab.config.documents import unknown_hint
from sftlab.errors import Place, UserError
from sftlab.facts.fact_files import FIELDS, IGNORED, KNOWN, rows_of
from sftlab.facts.table import SPLITS, accepted_names, fact_id, facts_table, synonyms
from sftlab.facts.templates import Topic
from sftlab.facts.text import cleaned, identity

if TYPE_CHECKING:
    import pyarrow as pa

USER_SPLITS = ("train", "test", "dev")
MAX_TEXT = 2**16  # characters of a subject, an object or an accepted name
MAX_TOTAL = 2**31  # characters of all of them together


@dataclass(frozen=True)
class UserFacts:
    """The five splits, and the first version of this reader that reads all of these facts so.

    Version 1 kept the normal form and the blanks of accepted names, and gave custom facts the aliases of Table 12.
    Version 2 did not accept names in decomposed form (NFD), unless they were given so.
    """

    tables: dict[str, pa.Table]
    version: int


def read_user_tables(path: Path, topics: Mapping[str, Topic]) -> dict[str, pa.Table]:
    """The five splits of a user's facts (`read_user_facts`)."""
    return read_user_facts(path, topics).tables


def read_user_facts(path: Path, topics: Mapping[str, Topic]) -> UserFacts:
    """A user's facts, their texts in composed form (NFC).

    The form that was given and the decomposed one (NFD) are accepted names too.

    A row's `split` (train, test or dev) is kept; without one it follows from the fact id (8:1:1 in domain,
    half test and half dev out of domain). Out-of-domain facts are never trained on, so a row that puts one
    into `train` is an error, and so is a subject that a topic has twice, in whatever form. Raises UserError naming
    file, row and field.
    """
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    seen: dict[tuple[str, str], Place] = {}
    aliases = synonyms()
    characters, version = 0, 1
    for where, row in rows_of(path):
        fact, split = _parse(row, where, topics)
        characters += sum(map(len, (fact["subject"], *fact["accepted"])))
        if characters > MAX_TOTAL:
            raise UserError(
                f"the facts so far have over {MAX_TOTAL:,} characters", place=where, advice="give fewer."
            )
        key = (fact["topic"], identity(fact["subject"]))
        if key in seen:
            raise UserError(
                f"{fact['subject']!r} of {fact['topic']} is already in {seen[key]}",
                place=where,
                value=fact["subject"],
                advice="keep one.",
            )
        seen[key] = where
        rows[split].append(fact)
        version = max(version, _version(row, fact, aliases))
    if not seen:
        raise UserError("holds no facts", place=path, advice=f"each row needs {', '.join(FIELDS)}.")
    return UserFacts({split: facts_table(facts) for split, facts in rows.items()}, version)


def _version(row: Mapping[str, Any], fact: Mapping[str, Any], aliases: Mapping[str, list[str]]) -> int:
    """The first version of this reader that made this fact of the row."""
    if _names(row) != fact["accepted"]:
        return 3
    return 1 if _first_reading(row, aliases) == (fact["subject"], fact["object"], fact["accepted"]) else 2


def _names(row: Mapping[str, Any]) -> list[str]:
    """The accepted names in composed form, and as they were given, for models whose tokenizer does not compose."""
    given = (row["object"], *(row.get("accepted") or ()))
    return list(dict.fromkeys([*map(cleaned, given), *(name.strip() for name in given)]))


def _first_reading(row: Mapping[str, Any], aliases: Mapping[str, list[str]]) -> tuple[str, str, list[str]]:
    """Subject, object and accepted names as the first version of this reader made them."""
    obj, accepted = row["object"].strip(), row.get("accepted")
    names = accepted_names(obj, aliases) if accepted is None else list(dict.fromkeys([obj, *accepted]))
    return row["subject"].strip(), obj, names


def _parse(row: Any, where: Place, topics: Mapping[str, Topic]) -> tuple[dict[str, Any], str]:
    if not isinstance(row, Mapping):
        raise UserError(place=where, value=row, expected=f"an object with {', '.join(FIELDS)}")
    for key in row:
        if key not in KNOWN and key not in IGNORED:
            raise UserError(f"unknown field {key!r}", place=where, value=key, advice=unknown_hint(key, KNOWN))
    for field in FIELDS:
        if not isinstance(row.get(field), str) or not cleaned(row[field]):
            raise UserError(
                place=where.of(field), value=row.get(field), expected="a text with visible characters"
            )
    topic = topics.get(row["topic"])
    if topic is None:
        raise UserError(
            f"{row['topic']!r} has no templates",
            place=where.of("topic"),
            value=row["topic"],
            advice=f"known are {', '.join(topics)}.",
        )
    subject, obj = cleaned(row["subject"]), cleaned(row["object"])
    given = row.get("accepted")
    if given is None:
        given = []
    elif not isinstance(given, list) or not all(isinstance(a, str) and cleaned(a) for a in given):
        raise UserError(
            place=where.of("accepted"), value=given, expected="a list of texts with visible characters"
        )
    names = _names(row)
    longest = max(map(len, (subject, *names)))
    if longest > MAX_TEXT:
        raise UserError(
            f"a text of {longest:,} characters is no name",
            place=where,
            advice=f"at most {MAX_TEXT:,} are read.",
        )
    decomposed = [normalize("NFD", name) for name in (obj, *map(cleaned, given))]
    accepted = list(dict.fromkeys([*names, *decomposed]))
    key = fact_id(topic.topic, subject, obj)
    fact = {
        "fact_id": key,
        "topic": topic.topic,
        "subject": subject,
        "object": obj,
        "accepted": accepted,
        "question": topic.ask(subject),
    }
    return fact, _split(row.get("split"), topic, key, where)


def _split(given: Any, topic: Topic, key: str, where: Place) -> str:
    if given is not None and given not in USER_SPLITS:
        raise UserError(
            f"{given!r} is none of {', '.join(USER_SPLITS)}", place=where.of("split"), value=given
        )
    share = int(sha256(f"split\x1f{key}".encode()).hexdigest()[:8], 16) % 10
    if topic.domain == "in-domain":
        return given or ("test" if share == 0 else "dev" if share == 1 else "train")
    if given == "train":
        raise UserError(
            f"topic {topic.topic} is out-of-domain and is never trained on", place=where.of("split")
        )
    return f"{given or ('test' if share < 5 else 'dev')}_ood"
