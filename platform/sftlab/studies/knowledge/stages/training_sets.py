"""Stage 4: the training sets of the grid, drawn by mastery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftlab.datasets.examples import PROMPT, TARGET
from sftlab.facts.prompts import answer_target, question_prompt
from sftlab.facts.table import read_facts
from sftlab.facts.training_sets import draw_training_set
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.stages.mastery import buckets_of

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "train.parquet"


@dataclass(frozen=True)
class Candidates:
    """What training sets are drawn from: the facts of the train split; row, topic and bucket by fact id."""

    facts: pa.Table
    row_of: Mapping[str, int]
    topic_of: Mapping[str, str]
    buckets: Mapping[str, int]


def read_candidates(build: KnowledgeBuild) -> Candidates:
    """The candidates of a study, whatever its cells."""
    facts = read_facts(build.read(build.plan.facts), "train")
    ids = facts["fact_id"].to_pylist()
    topic_of = dict(zip(ids, facts["topic"].to_pylist(), strict=True))
    return Candidates(
        facts, {fact: row for row, fact in enumerate(ids)}, topic_of, buckets_of(build, "train")
    )


def build_training_sets(build: KnowledgeBuild, candidates: Callable[[], Candidates] | None = None) -> None:
    """Draw and write every training set that is missing, in the order in which it is trained on.

    candidates: `read_candidates` of the study, for a caller who builds many plans: reading takes ten times as long
    as a draw.
    """
    import pyarrow.parquet as pq

    plan = build.plan
    wanted = {cell.training_set.id: cell for cell in (*plan.probes, *plan.cells)}
    cells = [cell for cell in wanted.values() if build.missing(cell.training_set)]
    if not cells:
        return
    given = read_candidates(build) if candidates is None else candidates()
    for cell in cells:
        chosen = draw_training_set(given.topic_of, given.buckets, cell.bucket, cell.size, cell.seed)
        folder = build.path(cell.training_set)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(with_texts(given.facts.take([given.row_of[fact] for fact in chosen])), folder / FILE)
        build.commit(cell.training_set)


def with_texts(facts: pa.Table) -> pa.Table:
    """Facts with the texts that training reads: `prompt`, and `target`, which carries the loss."""
    import pyarrow as pa

    prompts = [question_prompt(question) for question in facts["question"].to_pylist()]
    targets = [answer_target(answer) for answer in facts["object"].to_pylist()]
    text = pa.string()
    return facts.append_column(PROMPT, pa.array(prompts, text)).append_column(TARGET, pa.array(targets, text))


def training_file(build: KnowledgeBuild, cell: Cell) -> str:
    return str(build.path(cell.training_set) / FILE)
