"""Stage 4: the training sets of the grid, drawn by mastery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sftlab.datasets.examples import PROMPT, TARGET
from sftlab.errors import UserError, within
from sftlab.facts.mastery import BUCKETS
from sftlab.facts.prompts import answer_target, question_prompt
from sftlab.facts.table import facts_table, read_facts
from sftlab.facts.training_sets import (
    ALL,
    EVEN,
    MIXED,
    DrawRule,
    all_sizes,
    draw_everything,
    draw_training_set,
    largest_sizes,
)
from sftlab.store.tables import read_table
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.results.rows import DrawnRow
from sftlab.studies.knowledge.stages.certainty import probabilities
from sftlab.studies.knowledge.stages.mastery import buckets_of, read_mastery

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "train.parquet"


@dataclass(frozen=True)
class Candidates:
    """What training sets are drawn from: the facts of the train split; row, topic and bucket by fact id.

    errors: why facts have no bucket, with the number of facts. rule: how sets are spread. unsure: facts that
    `training_sets.margin` leaves out; they are not among the buckets. sizes: those of the study.
    """

    facts: pa.Table
    row_of: Mapping[str, int]
    topic_of: Mapping[str, str]
    buckets: Mapping[str, int]
    errors: Mapping[str, int]
    rule: DrawRule = EVEN
    unsure: int = 0
    sizes: Collection[int | str] = ()

    def draw(self, cell: Cell) -> list[str]:
        """The fact ids of a training set. Raises UserError where there are too few, with the reason for lost facts."""
        try:
            if isinstance(cell.size, int):
                return draw_training_set(
                    self.topic_of, self.buckets, cell.bucket, cell.size, cell.seed, self.rule
                )
            return self._draw_everything(cell)
        except UserError as error:
            if self.unsure:
                raise with_reason(
                    error,
                    f"training_sets.margin leaves out {self.unsure:,} training facts whose bucket is less sure.",
                ) from error
            if not self.errors:
                raise
            why = max(self.errors, key=lambda text: self.errors[text])
            lost = sum(self.errors.values())
            raise with_reason(
                error,
                f"{lost:,} training facts could not be scored; most often: {why} ({self.errors[why]:,}).",
            ) from error

    def _draw_everything(self, cell: Cell) -> list[str]:
        """Raises UserError also where a listed size is just as large: both would be one training set."""
        drawn = draw_everything(self.topic_of, self.buckets, cell.bucket, cell.seed, self.rule)
        if len(drawn) in self.sizes:
            raise UserError(
                f"holds {len(drawn):,} facts, so the sizes {len(drawn):,} and {ALL} are the same training set",
                place=f"training_sets.sizes: bucket {cell.bucket}",
                value=len(drawn),
                advice="leave one of the two out.",
            )
        return drawn


def with_reason(error: UserError, reason: str) -> UserError:
    """The error of a draw, with why there are too few facts after its advice."""
    return UserError(
        error.problem,
        place=error.place,
        value=error.value,
        expected=error.expected,
        advice=f"{error.advice} {reason}".lstrip(),
    )


def read_candidates(build: KnowledgeBuild) -> Candidates:
    """The candidates of a study, whatever its cells."""
    facts = read_facts(build.read(build.plan.facts), "train")
    ids = facts["fact_id"].to_pylist()
    topic_of = dict(zip(ids, facts["topic"].to_pylist(), strict=True))
    failed = read_mastery(build, "train", ["fact_id", "error"])["error"].drop_null().to_pylist()
    row_of = {fact: row for row, fact in enumerate(ids)}
    buckets, sets = buckets_of(build, "train"), build.plan.spec.training_sets
    sure = buckets if sets.margin is None else sure_buckets(build, buckets, sets.margin)
    unsure = len(buckets) - len(sure)
    return Candidates(facts, row_of, topic_of, sure, Counter(failed), sets.rule, unsure, sets.sizes)


def sure_buckets(build: KnowledgeBuild, buckets: Mapping[str, int], margin: float) -> dict[str, int]:
    """The buckets of the training facts that are in them with at least this probability, and of all of bucket 0.

    All facts without a hit have the same evidence, so a margin cannot distinguish them.
    """
    found = probabilities(read_mastery(build, "train"))
    return {fact: bucket for fact, bucket in buckets.items() if not bucket or found[fact] >= margin}


def sizes_text(build: KnowledgeBuild) -> str:
    """Training facts by topic and bucket, and the largest set of each bucket; "" before mastery is scored."""
    plan = build.plan
    if build.missing(plan.facts, plan.mastery):
        return ""
    given = read_candidates(build)
    drawn_from = given.rule.candidates(given.topic_of, given.buckets)
    counts = Counter((given.topic_of[fact], bucket) for fact, bucket in drawn_from.items())
    topics = sorted(set(given.topic_of.values()) - {given.rule.leave_out})
    width = max(map(len, (*topics, "training facts")))
    header = " ".join(
        [f"{'training facts':<{width}}", *(f"{f'bucket {b}':>9}" for b in BUCKETS), f"{MIXED:>9}"]
    )
    rows = [
        " ".join([f"{topic:<{width}}", *(f"{counts[topic, b]:>9,}" for b in BUCKETS)]) for topic in topics
    ]
    sizes = largest_sizes(given.topic_of, drawn_from, given.rule).values()
    rows.append(" ".join([f"{'largest set':<{width}}", *(f"{n:>9,}" for n in sizes)]))
    if ALL in given.sizes:
        found = all_sizes(drawn_from, [*BUCKETS, MIXED, *plan.spec.training_sets.buckets], given.rule)
        numbers = [f"{found.pop(str(bucket)):>9,}" for bucket in (*BUCKETS, MIXED)]
        rows.append(" ".join([f"{f'size {ALL}':<{width}}", *numbers]))
        rows += [f"size {ALL} of {mixture}: {size:,}" for mixture, size in found.items()]
    return "\n".join([header, *rows])


def check_training_sets(build: KnowledgeBuild) -> None:
    """Raises UserError where finished mastery shows that training sets of the grid cannot be drawn; it names all."""
    plan = build.plan
    if build.missing(plan.facts, plan.mastery):
        return
    cells = {cell.training_set.id: cell for cell in (*plan.probes, *plan.cells)}
    wanted = [cell for cell in cells.values() if build.missing(cell.training_set)]
    if wanted:
        draw_all(read_candidates(build), wanted)


def draw_all(given: Candidates, cells: Sequence[Cell]) -> list[list[str]]:
    """The fact ids of every set. Raises UserError that names all sets that cannot be drawn."""
    drawn, short = [], []
    for cell in cells:
        try:
            drawn.append(given.draw(cell))
        except UserError as error:
            short.append((cell.name, error))
    if len(short) == 1:
        raise short[0][1]
    if short:
        raise UserError(
            f"{len(short)} of {len(cells)} training sets cannot be drawn; nothing was trained yet.",
            value=len(short),
            others=[within(f"  {name}", error) for name, error in short],
        )
    return drawn


def build_training_sets(build: KnowledgeBuild, candidates: Callable[[], Candidates] | None = None) -> None:
    """Draw and write every training set that is missing, in the order in which it is trained on.

    candidates: `read_candidates` of the study, for a caller who builds many plans: reading takes ten times as long
    as a draw. Each plan draws by its rule.
    """
    import pyarrow.parquet as pq

    plan = build.plan
    wanted = {cell.training_set.id: cell for cell in (*plan.probes, *plan.cells)}
    cells = [cell for cell in wanted.values() if build.missing(cell.training_set)]
    if not cells:
        return
    # A strategy of a sweep may set another rule than the study's, such as replay.
    given = read_candidates(build) if candidates is None else replace(candidates(), rule=_rule(build))
    if candidates is None:
        build.progress.say(sizes_text(build))
    for cell, chosen in zip(cells, draw_all(given, cells), strict=True):
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


def drawn_rows(build: KnowledgeBuild, cell: Cell) -> list[DrawnRow]:
    """How many facts of each topic and bucket a training set holds."""
    table = read_table(build.read(cell.training_set, FILE), facts_table([]).schema)
    buckets = buckets_of(build, "train")
    pairs = zip(table["topic"].to_pylist(), table["fact_id"].to_pylist(), strict=True)
    counts = Counter((topic, buckets[fact]) for topic, fact in pairs)
    return [DrawnRow(cell.name, topic, bucket, count) for (topic, bucket), count in sorted(counts.items())]


def drawn_size(build: KnowledgeBuild, cell: Cell) -> int:
    """The facts of a finished training set, replayed ones left out."""
    if isinstance(cell.size, int):
        return cell.size
    facts, rule = trained_facts(build, cell), _rule(build)
    return next(size for size in range(facts, 0, -1) if size + rule.replayed(size) == facts)


def trained_facts(build: KnowledgeBuild, cell: Cell) -> int:
    """The facts of a finished training set, replayed ones included."""
    import pyarrow.parquet as pq

    if isinstance(cell.size, int):
        return cell.size + _rule(build).replayed(cell.size)
    rows: int = pq.read_metadata(build.read(cell.training_set, FILE)).num_rows
    return rows


def _rule(build: KnowledgeBuild) -> DrawRule:
    return build.plan.spec.training_sets.rule


def training_file(build: KnowledgeBuild, cell: Cell) -> str:
    return str(build.path(cell.training_set) / FILE)
