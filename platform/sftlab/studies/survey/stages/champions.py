"""Part of stage 6: scores of every model by halves of the questions, and the best tuned model of each base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.analysis.statistics import seed_of
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.champions import (
    DEV,
    TEST,
    Choice,
    Scored,
    choose,
    dev_questions,
    judge,
    spreads,
)
from sftlab.studies.survey.plan import Model
from sftlab.studies.survey.stages.scores import read_answers, read_questions
from sftlab.tracking.records import digest_of

if TYPE_CHECKING:
    import pyarrow as pa

SCORED, CHAMPIONS = "scored.parquet", "champions.parquet"


def scored_schema() -> pa.Schema:
    """Columns of SCORED: the fields of `studies.survey.champions.Scored`; `model` is the step of a tuned model."""
    import pyarrow as pa

    names = [(name, pa.string()) for name in ("base", "model", "benchmark")]
    return pa.schema([*names, *((name, pa.float64()) for name in ("score", "in_form", DEV, TEST))])


def champions_schema() -> pa.Schema:
    """Columns of CHAMPIONS: by base the chosen model (the id of its step), its mean gain on dev and how many tie.

    test, low, high: mean gain on the other half with its 95 % interval; questions: of that half.
    """
    import pyarrow as pa

    numbers = [(name, pa.float64()) for name in (DEV, TEST, "low", "high")]
    counts = [("ties", pa.int64()), ("questions", pa.int64())]
    return pa.schema([("base", pa.string()), ("model", pa.string()), *numbers, *counts])


@dataclass
class Halves:
    """Collects the scores of all models by halves, one model and benchmark after another."""

    build: SurveyBuild
    rows: list[Scored] = field(default_factory=list)

    @cached_property
    def _dev(self) -> Mapping[str, frozenset[str]]:
        return {
            name: dev_questions(read_questions(self.build, name)["question_id"].to_pylist())
            for name in self.build.plan.questions
        }

    def add(self, model: Model, benchmark: str, answers: pa.Table) -> None:
        """What one model answered to one benchmark; a question that was not asked counts as wrong."""
        dev = self._dev[benchmark]
        halves: dict[str, list[float]] = {DEV: [], TEST: []}
        for row in answers.to_pylist():
            halves[DEV if row["question_id"] in dev else TEST].append(row["score"] or 0.0)
        every = halves[DEV] + halves[TEST]
        means = {name: sum(found) / len(found) if found else None for name, found in halves.items()}
        in_form = sum(bool(kept) for kept in answers["in_form"].to_pylist()) / len(every)
        score = sum(every) / len(every)
        self.rows.append(
            Scored(model.base, key_of(model), benchmark, score, in_form, means[DEV], means[TEST])
        )

    def write(self, folder: Path) -> None:
        """Write both tables."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        scored = [asdict(row) for row in self.rows]
        pq.write_table(pa.Table.from_pylist(scored, schema=scored_schema()), folder / SCORED)
        spread = spreads(self.rows, TEST)
        chosen = [self._judged(choice, spread) for choice in choose(self.rows)]
        pq.write_table(pa.Table.from_pylist(chosen, schema=champions_schema()), folder / CHAMPIONS)

    def _judged(self, choice: Choice, spread: Mapping[str, float]) -> dict[str, Any]:
        models = {key_of(model): model for model in self.build.plan.models if model.base == choice.base}
        differences = {
            name: self._differences(models[choice.model], models[choice.base], name)
            for name in self.build.plan.questions
        }
        found = judge(differences, spread, seed_of("champion", choice.base))
        return {
            "base": choice.base,
            "model": choice.model,
            DEV: choice.dev,
            TEST: found.gain if found else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "ties": choice.ties,
            "questions": found.questions if found else 0,
        }

    def _differences(self, tuned: Model, base: Model, benchmark: str) -> list[float]:
        """Of each question of the other half, the score of the tuned model less that of the base."""
        before, after = (
            {row["question_id"]: row["score"] or 0.0 for row in self._answers(model, benchmark)}
            for model in (base, tuned)
        )
        return [
            after[name] - score for name, score in sorted(before.items()) if name not in self._dev[benchmark]
        ]

    def _answers(self, model: Model, benchmark: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_answers(self.build, model.scores[benchmark]).to_pylist()
        return rows


def key_of(model: Model) -> str:
    """What a model is called in both tables: the id of its step, of a base its name, of an edit a hash of both."""
    if model.tuned is None:
        return model.base
    return model.tuned.id if model.rung is None else digest_of(model.tuned.id, model.rung.hashed())


def read_scored(build: SurveyBuild) -> list[Scored]:
    """The committed scores of all models by halves."""
    rows = read_table(build.read(build.plan.results, SCORED), scored_schema()).to_pylist()
    return [Scored(**row) for row in rows]


def read_champions(build: SurveyBuild) -> Sequence[Mapping[str, Any]]:
    """The committed best model of each base."""
    rows: list[dict[str, Any]] = read_table(
        build.read(build.plan.results, CHAMPIONS), champions_schema()
    ).to_pylist()
    return rows
