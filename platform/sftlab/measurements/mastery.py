"""Mastery of one block of facts: from facts and an engine to rows (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.facts.mastery import BUCKETS, bucket_of, contains_answer, row_seed
from sftlab.facts.prompts import all_prompt_ids
from sftlab.facts.templates import Topic
from sftlab.inference.engine import Completion, Engine, Prompt, Sampling
from sftlab.inference.limits import WHOLE, BatchLimits, named_memory_errors
from sftlab.measurements.spec import MasterySpec

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class _Asked:
    """The prompts of one fact, one for each mapping template; or why there are none."""

    fact: Mapping[str, Any]
    prompts: tuple[Prompt, ...] = ()
    error: str | None = None


def score_block(
    facts: pa.Table,
    topics: Mapping[str, Topic],
    engine: Engine,
    spec: MasterySpec,
    limits: BatchLimits = WHOLE,
) -> pa.Table:
    """One row for every fact, in order, from one call to the engine unless limited (see `mastery_schema`).

    Raises EngineMemoryError naming the facts over which the engine ran out of memory.
    """
    import pyarrow as pa

    asked = [
        _Asked(fact, error=limits.refused[fact["fact_id"]])
        if fact["fact_id"] in limits.refused
        else _ask(fact, topics, engine.tokenizer, spec, engine.max_model_len)
        for fact in facts.to_pylist()
    ]
    sampling = Sampling(spec.samples, spec.temperature, spec.top_p, spec.max_tokens)
    found: list[list[Completion]] = []
    for piece in limits.pieces([ask for ask in asked if ask.error is None]):
        with named_memory_errors([ask.fact["fact_id"] for ask in piece]):
            found += engine.sample([prompt for ask in piece for prompt in ask.prompts], sampling)
    completions = iter(found)
    rows = [_row(ask, [next(completions) for _ in ask.prompts], spec) for ask in asked]
    return pa.Table.from_pylist(rows, schema=mastery_schema())


def mastery_schema() -> pa.Schema:
    """Columns of the mastery table.

    hits: completions of each template, of `samples`, that contain an accepted name. r: share of all
    completions that do, in [0, 1]. bucket: 0..4. tokens: generated for the fact. hits, r and bucket are null
    where `error` says why the fact could not be scored.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("fact_id", pa.string()),
            ("topic", pa.string()),
            ("hits", pa.list_(pa.int32())),
            ("samples", pa.int32()),
            ("r", pa.float64()),
            ("bucket", pa.int8()),
            ("tokens", pa.int64()),
            ("error", pa.string()),
        ]
    )


def check_rows(table: pa.Table, columns: Sequence[str] | None = None) -> None:
    """Raises ValueError where these are not rows of the mastery table, or not these `columns` of them."""
    import pyarrow.compute as pc

    wanted = [field for field in mastery_schema() if columns is None or field.name in columns]
    if list(table.schema) != wanted:
        raise ValueError(f"has the columns {', '.join(map(str, table.schema))}")
    table.validate(full=True)
    given = {name: table[name] for name in table.column_names}
    if any(given[name].null_count for name in ("fact_id", "topic", "samples", "tokens") if name in given):
        raise ValueError("lacks values")
    if "bucket" in given and not set(pc.unique(given["bucket"].drop_null()).to_pylist()) <= set(BUCKETS):
        raise ValueError("has buckets that cannot be")
    if columns is not None:
        return
    scored = given["error"].is_null()
    if any(not given[name].is_valid().equals(scored) for name in ("hits", "r", "bucket")):
        raise ValueError("has rows that are neither scored nor errors")
    if pc.list_flatten(given["hits"]).null_count:
        raise ValueError("has hits that cannot be")


def _ask(
    fact: Mapping[str, Any], topics: Mapping[str, Topic], tokenizer: Any, spec: MasterySpec, longest: int
) -> _Asked:
    error = fact_error(fact)
    if error is None and fact["topic"] not in topics:
        error = f"topic {fact['topic']!r} has no templates"
    if error is not None:
        return _Asked(fact, error=error)
    accepted = tuple(fact["accepted"])
    stop = accepted if spec.early_stop and not spec.whole_words else ()
    texts = topics[fact["topic"]].fill(fact["subject"])
    prompts = tuple(
        Prompt(tuple(ids), stop, row_seed(spec.seed, fact["fact_id"], index))
        for index, ids in enumerate(all_prompt_ids(tokenizer, texts))
    )
    needed = max(len(prompt.token_ids) for prompt in prompts) + spec.max_tokens
    if needed > longest:
        return _Asked(fact, error=f"too long: prompt and completion take {needed} tokens of {longest}")
    return _Asked(fact, prompts)


def fact_error(fact: Mapping[str, Any]) -> str | None:
    """Why a fact cannot be asked about at all, or None."""
    for field in ("subject", "object"):
        if not (fact[field] or "").strip():
            return f"{field} is empty"
    accepted: Sequence[str] | None = fact["accepted"]
    if not accepted or not all((name or "").strip() for name in accepted):
        return "accepted names are missing or empty"
    return None


def _row(ask: _Asked, completions: Sequence[Sequence[Completion]], spec: MasterySpec) -> dict[str, Any]:
    row = {name: ask.fact[name] for name in ("fact_id", "topic")} | {"samples": spec.samples, "tokens": 0}
    if ask.error is not None:
        return row | {"error": ask.error}
    accepted = ask.fact["accepted"]
    hits = [
        sum(contains_answer(sample.text, accepted, spec.whole_words) for sample in drawn)
        for drawn in completions
    ]
    total = spec.samples * len(hits)
    return row | {
        "hits": hits,
        "r": sum(hits) / total,
        "bucket": bucket_of(sum(hits), total),
        "tokens": sum(sample.tokens for drawn in completions for sample in drawn),
    }
