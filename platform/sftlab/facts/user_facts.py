"""Users' own facts: JSONL or parquet with subject, object, topic; optionally accepted, split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.documents import parse_json, unknown_hint
from sftlab.errors import UserError
from sftlab.facts.table import SPLITS, accepted_names, fact_id, facts_table
from sftlab.facts.templates import Topic

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = ("subject", "object", "topic")
KNOWN = (*FIELDS, "accepted", "split")
USER_SPLITS = ("train", "test", "dev")


def read_user_tables(
    path: Path, topics: Mapping[str, Topic], names: Mapping[str, Sequence[str]]
) -> dict[str, pa.Table]:
    """The five splits of a user's facts.

    A row's `split` (train, test or dev) is kept; without one it follows from the fact id (8:1:1 in domain,
    half test and half dev out of domain). Out-of-domain facts are never trained on, so a row that puts one
    into `train` is an error. Raises UserError naming file, row and field.
    """
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    seen: dict[tuple[str, str], str] = {}
    for where, row in _rows(path):
        fact, split = _parse(row, where, topics, names)
        key = (fact["topic"], fact["subject"])
        if key in seen:
            raise UserError(
                f"{where}: {fact['subject']!r} of {fact['topic']} stands already in {seen[key]}; keep one."
            )
        seen[key] = where
        rows[split].append(fact)
    if not seen:
        raise UserError(f"{path}: holds no facts; each row needs {', '.join(FIELDS)}.")
    return {split: facts_table(facts) for split, facts in rows.items()}


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: is not a readable parquet table: {error}") from error
        for index, row in enumerate(rows):
            yield f"{path}, row {index + 1}", row
        return
    try:
        with path.open(encoding="utf-8-sig") as lines:  # some editors put a mark before the first line
            for index, line in enumerate(lines):
                if line.strip():
                    where = f"{path}, line {index + 1}"
                    yield where, parse_json(line, where, "give one object a line.")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give JSONL or parquet.") from error


def _parse(
    row: Any, where: str, topics: Mapping[str, Topic], names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], str]:
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: expected an object with {', '.join(FIELDS)}, found {row!r}.")
    for key in row:
        if key not in KNOWN:
            raise UserError(f"{where}: unknown field {key!r}; {unknown_hint(key, KNOWN)}")
    for field in FIELDS:
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise UserError(f"{where}, field {field!r}: expected a non-empty text, found {row.get(field)!r}.")
    topic = topics.get(row["topic"])
    if topic is None:
        raise UserError(
            f"{where}, field 'topic': {row['topic']!r} has no templates; known are {', '.join(topics)}."
        )
    subject, obj = row["subject"].strip(), row["object"].strip()
    accepted = row.get("accepted")
    if accepted is None:
        accepted = accepted_names(obj, names)
    elif not isinstance(accepted, list) or not all(isinstance(a, str) and a.strip() for a in accepted):
        raise UserError(f"{where}, field 'accepted': expected a list of non-empty texts, found {accepted!r}.")
    key = fact_id(topic.topic, subject, obj)
    fact = {
        "fact_id": key,
        "topic": topic.topic,
        "subject": subject,
        "object": obj,
        "accepted": list(dict.fromkeys([obj, *accepted])),
        "question": topic.ask(subject),
    }
    return fact, _split(row.get("split"), topic, key, where)


def _split(given: Any, topic: Topic, key: str, where: str) -> str:
    if given is not None and given not in USER_SPLITS:
        raise UserError(f"{where}, field 'split': {given!r} is none of {', '.join(USER_SPLITS)}.")
    share = int(sha256(f"split\x1f{key}".encode()).hexdigest()[:8], 16) % 10
    if topic.domain == "in-domain":
        return given or ("test" if share == 0 else "dev" if share == 1 else "train")
    if given == "train":
        raise UserError(
            f"{where}, field 'split': topic {topic.topic} is out-of-domain and is never trained on."
        )
    return f"{given or ('test' if share < 5 else 'dev')}_ood"
