"""Mastery of facts by any model, as a measurement of the evaluator: the scores that the base model gets, once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftlab.facts.templates import Topic
from sftlab.inference.engine import Engine
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.measurements.mastery import mastery_schema, score_block
from sftlab.measurements.spec import MasterySpec

if TYPE_CHECKING:
    import pyarrow as pa

MASTERY = "mastery.parquet"


@dataclass(frozen=True)
class MasteryAgain:
    """Mastery of facts, in blocks of `spec.block_facts`. A `Measurement`; see `mastery_schema` for its table.

    Prompts, verdicts and the seed of every row are those of `scoring.score`.

    Attributes:
        facts: facts to score; their ids differ.
        topics: their mapping templates.
        spec: how they are scored.
    """

    facts: pa.Table
    topics: Mapping[str, Topic]
    spec: MasterySpec

    def measure(self, engine: Engine, limits: BatchLimits = WHOLE) -> pa.Table:
        """One row for every fact, in order. Raises as `score_block`."""
        import pyarrow as pa

        size = self.spec.block_facts
        blocks = [
            score_block(self.facts.slice(start, size), self.topics, engine, self.spec, limits)
            for start in range(0, self.facts.num_rows, size)
        ]
        return pa.concat_tables([mastery_schema().empty_table(), *blocks]).combine_chunks()
