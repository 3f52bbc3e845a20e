"""One fact's way through a study: its mastery, the answers of every model, and the training facts nearest to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftlab.analysis.answer_kinds import Kind
from sftlab.analysis.divergence import first_token_kl
from sftlab.analysis.fates import returns_at
from sftlab.errors import UserError
from sftlab.facts.nearest import most_alike, nearest_facts, nearest_ids
from sftlab.facts.table import COLUMNS, SPLITS, facts_table, read_facts
from sftlab.facts.templates import read_topics
from sftlab.measurements.divergence import DIVERGENCE
from sftlab.measurements.tables import read_answer_table, read_logits
from sftlab.store.record import Step
from sftlab.store.tables import read_table
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.stages.answer_kinds import read_names
from sftlab.studies.knowledge.stages.mastery import read_mastery
from sftlab.studies.knowledge.stages.mastery_after import percent_of, read_mastery_after
from sftlab.studies.knowledge.stages.training_sets import FILE as TRAINING_FILE

if TYPE_CHECKING:
    import pyarrow as pa

FEWEST_DIGITS = 6  # of an id's beginning
SUGGESTED = 5
NEAREST = 5

Fact = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """The answer of one model. correct: None where the question was not asked, and `error` says why.

    kl: of the first token, in nats; None where it was not measured for this fact. kind: as `kind_of` gives it; None
    where the question was not asked.
    """

    answer: str | None
    correct: bool | None
    error: str | None = None
    kl: float | None = None
    kind: Kind | None = None


@dataclass(frozen=True)
class CellWay:
    """The answers along one ladder. trained: whether the fact is in the training set.

    returns_at: the first percentage at which the answer is right, where it is wrong at 0 %.
    nearest: ids of the training facts that are nearest to the fact (`nearest_facts`). mastery: R by percentage, where
    the study scores it again; None where the fact could not be scored.
    """

    cell: str
    trained: bool
    answers: Mapping[float, Answer]
    returns_at: float | None
    nearest: Sequence[str]
    mastery: Mapping[float, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FactWay:
    """One fact's way. templates: text and hits by mapping template; hits None where the fact could not be scored.

    mastery: the row of the mastery table; None before it is scored. neighbours: the facts that `nearest` names.
    """

    fact: Fact
    splits: Sequence[str]
    templates: Sequence[tuple[str, int | None]]
    mastery: Mapping[str, Any] | None
    base: Answer | None
    cells: Sequence[CellWay]
    neighbours: Mapping[str, Fact]


def explain(build: KnowledgeBuild, wanted: str) -> FactWay:
    """What the store holds of a fact, as far as the study is built.

    wanted: a fact id, at least FEWEST_DIGITS of its first digits, or a subject. Raises UserError where no fact or more
    than one is meant, and where the facts are not built yet.
    """
    plan = build.plan
    if build.missing(plan.facts):
        raise UserError(
            f"{build.store} holds no facts of this study yet",
            place=plan.name,
            advice="run it first: sftlab run STUDY.yaml",
        )
    folder = build.read(plan.facts)
    tables = {split: read_facts(folder, split) for split in SPLITS}
    fact, splits = find_fact(tables, wanted)
    scored = None if build.missing(plan.mastery) else _row(read_mastery(build), fact["fact_id"])
    texts = read_topics(folder)[fact["topic"]].fill(fact["subject"])
    hits = scored["hits"] if scored is not None and scored["hits"] is not None else [None] * len(texts)
    base = None if build.missing(plan.base_evaluation) else _answer(build, plan.base_evaluation, fact)
    sets = {cell.name: _training_facts(build, cell) for cell in plan.cells}
    near = {name: nearest_facts(fact, rows, NEAREST) for name, rows in sets.items()}
    return FactWay(
        fact,
        splits,
        list(zip(texts, hits, strict=True)),
        scored,
        base,
        [_way(build, cell, fact, sets[cell.name], near[cell.name]) for cell in plan.cells],
        {other["fact_id"]: other for rows in near.values() for other in rows},
    )


def find_fact(tables: Mapping[str, pa.Table], wanted: str) -> tuple[Fact, list[str]]:
    """The one fact that an id, its beginning or a subject names, and its splits. Raises UserError as `explain`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = {split: table.select(["fact_id", "subject"]) for split, table in tables.items()}
    known = pa.concat_tables(list(names.values()))
    ids = known["fact_id"].to_pylist()
    subjects = known["subject"].to_pylist()
    found = {fact for fact, subject in zip(ids, subjects, strict=True) if wanted in (fact, subject)}
    if not found and re.fullmatch(rf"[0-9a-f]{{{FEWEST_DIGITS},}}", wanted):
        found = {fact for fact in ids if fact.startswith(wanted)}
    if not found:
        plain = wanted.casefold()
        found = {
            fact for fact, subject in zip(ids, subjects, strict=True) if (subject or "").casefold() == plain
        }
    rows: dict[str, Fact] = {}
    splits: dict[str, list[str]] = {fact: [] for fact in found}
    for split, table in tables.items():
        for row in table.filter(pc.is_in(table["fact_id"], pa.array(sorted(found), pa.string()))).to_pylist():
            rows[row["fact_id"]] = row
            splits[row["fact_id"]].append(split)
    if len(found) == 1:
        (only,) = found
        return rows[only], splits[only]
    if found:
        shown = "\n".join(f"  {_line(rows[fact])}" for fact in sorted(found)[:20])
        raise UserError(
            f"{wanted!r} names {len(found)} facts",
            value=wanted,
            advice=f"give the id of one of them.\n{shown}",
        )
    raise UserError(
        "no fact has this id or subject",
        place=repr(wanted),
        value=wanted,
        advice=_nearest(wanted, list(zip(ids, subjects, strict=True))),
    )


def _nearest(wanted: str, known: Sequence[tuple[str, str | None]]) -> str:
    """The facts that may be meant: by their ids where `wanted` looks like an id, else by their subjects."""
    if re.fullmatch(rf"(?=.*[0-9])[0-9a-fA-F]{{{FEWEST_DIGITS - 1},}}", wanted):
        named = dict(known)
        what, near = "ids", [(id, named[id] or "") for id in nearest_ids(wanted.lower(), named, SUGGESTED)]
    else:
        pairs = {subject: id for id, subject in known if subject}
        what, near = "subjects", [(pairs[name], name) for name in most_alike(wanted, pairs, SUGGESTED)]
    lines = "\n".join(f"  {id}  {subject}".rstrip() for id, subject in near)
    return f"the nearest {what} are\n{lines}"


def _line(fact: Fact) -> str:
    return f"{fact['fact_id']}  {fact['topic']}: {fact['subject']} \N{RIGHTWARDS ARROW} {fact['object']}"


def _row(table: pa.Table, fact_id: str) -> dict[str, Any] | None:
    """The first row of a fact; None where there is none."""
    import pyarrow.compute as pc

    rows: list[dict[str, Any]] = table.filter(pc.equal(table["fact_id"], fact_id)).slice(0, 1).to_pylist()
    return rows[0] if rows else None


def _training_facts(build: KnowledgeBuild, cell: Cell) -> list[Fact]:
    if build.missing(cell.training_set):
        return []
    rows: list[Fact] = read_table(
        build.read(cell.training_set, TRAINING_FILE), facts_table([]).schema
    ).to_pylist()
    assert set(COLUMNS) <= set(rows[0])
    return rows


def _way(
    build: KnowledgeBuild, cell: Cell, fact: Fact, rows: Sequence[Fact], near: Sequence[Fact]
) -> CellWay:
    done = [(at, step) for at, step in sorted(cell.evaluations.items()) if not build.missing(step)]
    found = {at: answer for at, step in done if (answer := _answer(build, step, fact)) is not None}
    return CellWay(
        cell.name,
        any(row["fact_id"] == fact["fact_id"] for row in rows),
        found,
        returns_at({at: answer.correct is True for at, answer in found.items()}),
        [other["fact_id"] for other in near],
        _mastery_after(build, cell, fact),
    )


def _mastery_after(build: KnowledgeBuild, cell: Cell, fact: Fact) -> dict[float, float | None]:
    rows = {
        percent_of(build, cell, at): _row(read_mastery_after(build, step), fact["fact_id"])
        for at, step in cell.mastery_after.items()
        if not build.missing(step)
    }
    return {percent: row["r"] for percent, row in sorted(rows.items()) if row is not None}


def _answer(build: KnowledgeBuild, step: Step, fact: Fact) -> Answer | None:
    """What one model answered; None where it was not asked about the fact."""
    row = _row(read_answer_table(build.read(step, "answers.parquet")), fact["fact_id"])
    if row is None:
        return None
    asked = row["correct"] is not None
    names = read_names(build.read(build.plan.facts))
    kind = names.kind(fact["fact_id"], row["answer"], row["correct"]) if asked else None
    return Answer(row["answer"], row["correct"], row["error"], _kl(build, step, fact["fact_id"]), kind)


def _kl(build: KnowledgeBuild, step: Step, fact_id: str) -> float | None:
    import numpy as np
    import pyarrow as pa

    if step.id == build.plan.base_evaluation.id:
        return None
    path = build.read(step, DIVERGENCE)
    ids = read_table(path, pa.schema([("fact_id", pa.string())]))["fact_id"].to_pylist()
    if fact_id not in ids:
        return None
    names = ("tuned_logits", "base_logits")
    logits = read_logits(path, names, build.plan.spec.divergence.top, len(ids)).slice(ids.index(fact_id), 1)
    tuned, base = (np.array(logits[name].to_pylist(), np.float64) for name in names)
    return float(first_token_kl(tuned, base)[0])
