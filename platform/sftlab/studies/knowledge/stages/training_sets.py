"""Stage 4: the training sets of the grid, drawn by mastery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftlab.datasets.examples import PROMPT, TARGET
from sftlab.errors import UserError
from sftlab.facts.mastery import BUCKETS
from sftlab.facts.prompts import answer_target, question_prompt
from sftlab.facts.table import read_facts
from sftlab.facts.training_sets import MIXED, draw_training_set, largest_sizes
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.stages.mastery import buckets_of, read_mastery

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "train.parquet"


@dataclass(frozen=True)
class Candidates:
    """What training sets are drawn from: the facts of the train split; row, topic and bucket by fact id.

    errors: why facts have no bucket, with the number of facts.
    """

    facts: pa.Table
    row_of: Mapping[str, int]
    topic_of: Mapping[str, str]
    buckets: Mapping[str, int]
    errors: Mapping[str, int]

    def draw(self, cell: Cell) -> list[str]:
        """The fact ids of a training set. Raises UserError where there are too few, with the reason for lost facts."""
        try:
            return draw_training_set(self.topic_of, self.buckets, cell.bucket, cell.size, cell.seed)
        except UserError as error:
            if not self.errors:
                raise
            why = max(self.errors, key=lambda text: self.errors[text])
            lost = sum(self.errors.values())
            raise UserError(
                error.problem,
                place=error.place,
                value=error.value,
                expected=error.expected,
                advice=(
                    f"{error.advice} {lost:,} training facts could not be scored; most often: {why} "
                    f"({self.errors[why]:,})."
                ),
            ) from error


def read_candidates(build: KnowledgeBuild) -> Candidates:
    """The candidates of a study, whatever its cells."""
    facts = read_facts(build.read(build.plan.facts), "train")
    ids = facts["fact_id"].to_pylist()
    topic_of = dict(zip(ids, facts["topic"].to_pylist(), strict=True))
    failed = read_mastery(build, "train", ["fact_id", "error"])["error"].drop_null().to_pylist()
    row_of = {fact: row for row, fact in enumerate(ids)}
    return Candidates(facts, row_of, topic_of, buckets_of(build, "train"), Counter(failed))


def sizes_text(build: KnowledgeBuild) -> str:
    """Training facts by topic and bucket, and the largest set of each bucket; "" before mastery is scored."""
    plan = build.plan
    if build.missing(plan.facts, plan.mastery):
        return ""
    given = read_candidates(build)
    counts = Counter((given.topic_of[fact], bucket) for fact, bucket in given.buckets.items())
    topics = sorted(set(given.topic_of.values()))
    width = max(map(len, (*topics, "training facts")))
    header = " ".join(
        [f"{'training facts':<{width}}", *(f"{f'bucket {b}':>9}" for b in BUCKETS), f"{MIXED:>9}"]
    )
    rows = [
        " ".join([f"{topic:<{width}}", *(f"{counts[topic, b]:>9,}" for b in BUCKETS)]) for topic in topics
    ]
    sizes = largest_sizes(given.topic_of, given.buckets).values()
    return "\n".join([header, *rows, " ".join([f"{'largest set':<{width}}", *(f"{n:>9,}" for n in sizes)])])


def check_training_sets(build: KnowledgeBuild) -> None:
    """Raises UserError where finished mastery shows that a training set of the grid cannot be drawn."""
    plan = build.plan
    if build.missing(plan.facts, plan.mastery):
        return
    cells = {cell.training_set.id: cell for cell in (*plan.probes, *plan.cells)}
    wanted = [cell for cell in cells.values() if build.missing(cell.training_set)]
    given = read_candidates(build) if wanted else None
    for cell in wanted:
        assert given is not None
        given.draw(cell)


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
        chosen = given.draw(cell)
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
