"""Users' own facts: JSONL or parquet with subject, object, topic; optionally accepted, split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.config.documents import parse_json, unknown_hint
from sftlab.config.unpacked import check_table
from sftlab.errors import UserError
from sftlab.facts.table import SPLITS, accepted_names, fact_id, facts_table
from sftlab.facts.templates import Topic

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = ("subject", "object", "topic")
KNOWN = (*FIELDS, "accepted", "split")
USER_SPLITS = ("train", "test", "dev")
MAX_LINE = 2**20  # characters of a line
MAX_TEXT = 2**16  # characters of a subject, an object or an accepted name
MAX_TOTAL = 2**31  # characters of all of them together
BATCH_ROWS = 16  # each may be as long as the table's longest text, however small the file
_TEXTS = ("string", "large_string", "dictionary<values=string, indices=int32, ordered=0>", "null")
_LISTS = (
    "list<element: string>",
    "list<item: string>",
    "large_list<item: string>",
    "list<element: null>",
    "null",
)


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
    characters = 0
    for where, row in _rows(path):
        fact, split = _parse(row, where, topics, names)
        characters += sum(map(len, (fact["subject"], *fact["accepted"])))
        if characters > MAX_TOTAL:
            raise UserError(f"{where}: the facts so far have over {MAX_TOTAL:,} characters; give fewer.")
        key = (fact["topic"], fact["subject"])
        if key in seen:
            raise UserError(
                f"{where}: {fact['subject']!r} of {fact['topic']} is already in {seen[key]}; keep one."
            )
        seen[key] = where
        rows[split].append(fact)
    if not seen:
        raise UserError(f"{path}: holds no facts; each row needs {', '.join(FIELDS)}.")
    return {split: facts_table(facts) for split, facts in rows.items()}


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".parquet":
        for index, row in enumerate(_parquet_rows(path)):
            yield f"{path}, row {index + 1}", row
        return
    try:
        with path.open(encoding="utf-8-sig") as lines:  # some editors put a mark before the first line
            for index, line in enumerate(iter(lambda: lines.readline(MAX_LINE), "")):
                where = f"{path}, line {index + 1}"
                if len(line) == MAX_LINE:
                    raise UserError(f"{where}: has over {MAX_LINE:,} characters; give one object a line.")
                if line.strip():
                    yield where, parse_json(line, where, "give one object a line.")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give JSONL or parquet.") from error


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table, read a few at a time: a small file may unpack to more than any memory holds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow)
            check_table(path, file.metadata)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a readable parquet table: {error}") from error


def _check_columns(path: Path, schema: pa.Schema) -> None:
    """Raises UserError for a column that is unknown, given twice, or neither text nor, for `accepted`, a list of it."""
    for name in schema.names:
        if name not in KNOWN:
            raise UserError(f"{path}: unknown field {name!r}; {unknown_hint(name, KNOWN)}")
        if schema.names.count(name) > 1:
            raise UserError(f"{path}: has the column {name!r} twice; keep one.")
        kind = str(schema.field(name).type)
        wanted = _LISTS if name == "accepted" else _TEXTS
        if kind not in wanted:
            raise UserError(f"{path}, field {name!r}: is a column of type {kind}; expected {wanted[0]}.")


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
    longest = max(map(len, (subject, obj, *accepted)))
    if longest > MAX_TEXT:
        raise UserError(
            f"{where}: a text of {longest:,} characters is no name; at most {MAX_TEXT:,} are read."
        )
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
