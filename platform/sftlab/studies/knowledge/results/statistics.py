"""From the answers of all models to the result tables: scores, choices made on dev, tests made on test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sftlab.analysis.statistics import (
    ONE_SET,
    Difference,
    bucket_changes,
    bucket_scores,
    holm,
    paired_difference,
    seed_of,
    verdict,
)
from sftlab.errors import UserError
from sftlab.studies.knowledge.results.choice import DEV_SPLITS, TEST_SPLITS, Members, choose, choose_by_cell
from sftlab.studies.knowledge.results.controls import controlled
from sftlab.studies.knowledge.results.rows import (
    BEST,
    CHOSEN,
    CONTROLS,
    PLAIN,
    PLAIN_STRATEGIES,
    SPLITS,
    CellRow,
    ChoiceRow,
    ComparisonRow,
    GroupRow,
    fullest,
)
from sftlab.studies.knowledge.results.tables import Results, Variant

TRAIN_SET = "train_set"
TEST_NAME = "the larger p of a paired randomisation over questions and a paired t over training sets"

# (variant, cell, percent, split) -> correct: bool [questions], buckets: int [questions]. A bucket below 0 marks a fact
# without one. Models must answer the questions of a split in the same order.
Answers = Callable[[str, str, float, str], tuple[npt.ArrayLike, npt.ArrayLike]]
Verdicts = npt.NDArray[np.bool_]
Buckets = npt.NDArray[np.int64]


class Models(NamedTuple):
    """The models of one variant, data, size and percentage: one a seed."""

    variant: str
    train_bucket: str
    size: int
    percent: float


@dataclass(frozen=True)
class Asked:
    """Cells of a variant that differ in the training set's seed alone, and which models answered what."""

    variant: Variant
    train_bucket: str
    size: int
    cells: Sequence[CellRow]
    asked: Mapping[tuple[float, str], Sequence[CellRow]]  # by percentage and split

    @property
    def members(self) -> Members:
        names = [cell.cell for cell in self.cells]
        return Members(self.variant.name, self.variant.strategy, self.train_bucket, self.size, names)

    def models(self, percent: float) -> Models:
        return Models(self.variant.name, self.train_bucket, self.size, percent)


def fill_tables(measured: Results, answers: Answers) -> Results:
    """The results with all tables filled: scores with their intervals, choices on dev, verdicts on test.

    Args:
        measured: results with their variants, and where nothing else is said about these a `reference`: by default
            the first variant of the strategies PLAIN_STRATEGIES.
        answers: called once for every cell, percentage and split that the variants' accuracy tables name, and again for
            the compared ones; the splits of one model are asked for one after another.

    Raises UserError where two variants share a name, `reference` names none, a group lacks what the metric takes, or
    models that are compared did not answer the same questions.
    """
    names = [variant.name for variant in measured.variants]
    if len(set(names)) != len(names):
        raise UserError(
            f"two variants of the sweep share a name: {', '.join(sorted(names))}", value=sorted(names)
        )
    reference = measured.reference
    if reference is not None and reference not in names:
        raise UserError(
            f"there is no variant {reference!r}",
            place="reference",
            value=reference,
            expected=f"one of {', '.join(names)}",
        )
    plains = [variant for variant in measured.variants if variant.strategy in PLAIN_STRATEGIES]
    plains.sort(key=lambda variant: variant.left_out is not None)  # those that train on all topics come first
    plain = reference or next((variant.name for variant in plains), None)
    groups = [group for variant in measured.variants for group in groups_of(variant)]
    scores = [row for group in groups for row in group_rows(group, answers)]
    choice = choose([group.members for group in groups], scores, measured.metric)
    return replace(
        measured,
        groups=tuple(scores),
        comparisons=tuple(comparisons(groups, choice, plain, answers)),
        choice=(*choices_by_cell(measured), *choice),
        reference=plain,
    )


def choices_by_cell(results: Results) -> list[ChoiceRow]:
    """The choices of single runs, and the common one of every variant."""
    return [
        row
        for variant in results.variants
        for row in choose_by_cell(variant.name, variant.strategy, variant.accuracy, results.metric)
    ]


def groups_of(variant: Variant) -> list[Asked]:
    """The groups of a variant, by data and size; seeds in ascending order."""
    cells: dict[tuple[str, int], list[CellRow]] = defaultdict(list)
    for cell in sorted(variant.cells, key=lambda c: (c.train_bucket, c.size, c.set_seed)):
        cells[cell.train_bucket, cell.size].append(cell)
    asked = {
        (row.cell, row.percent, row.split)
        for row in variant.accuracy
        if row.bucket is None and row.percent is not None
    }
    groups = []
    for (bucket, size), members in cells.items():
        found: dict[tuple[float, str], list[CellRow]] = {}
        percents = sorted({percent for name, percent, _ in asked if name in {c.cell for c in members}})
        for percent in percents:
            for split in SPLITS:
                having = [cell for cell in members if (cell.cell, percent, split) in asked]
                if having:
                    found[percent, split] = having
        groups.append(Asked(variant, bucket, size, members, found))
    return groups


def group_rows(group: Asked, answers: Answers) -> list[GroupRow]:
    """Scores of a group, in every bucket and their mean, for every percentage and split; the change from 0 %."""
    rows: list[GroupRow] = []
    tuned: dict[str, tuple[Sequence[CellRow], Verdicts]] = {}
    for (percent, split), cells in group.asked.items():
        models = group.models(percent)
        correct, buckets = stacked(answers, models, cells, split)
        if percent == 0.0:
            tuned[split] = cells, correct
        seed = seed_of("score", *models, split)
        scores = bucket_scores(correct, buckets, seed)
        compared = percent > 0.0 and split not in DEV_SPLITS and split in tuned and tuned[split][0] == cells
        changes = bucket_changes(correct, tuned[split][1], buckets, seed) if compared else {}
        for bucket, score in scores.items():
            change = changes.get(bucket)
            rows.append(
                GroupRow(
                    *models,
                    split=split,
                    bucket=bucket,
                    seeds=len(cells),
                    questions=int((buckets == bucket).sum()) if bucket is not None else buckets.size,
                    mean=score.mean,
                    sd=score.deviation,
                    low=score.low,
                    high=score.high,
                    change=change.mean if change else None,
                    change_low=change.low if change else None,
                    change_high=change.high if change else None,
                )
            )
    return rows


def stacked(
    answers: Answers, models: Models, cells: Iterable[CellRow], split: str
) -> tuple[Verdicts, Buckets]:
    """Verdicts of the models of several seeds: bool [seeds, questions], and the buckets, int [questions].

    Training sets differ from seed to seed, so that their questions share a column only by bucket and position;
    the resampling of both is then over all seeds' questions in a column together.

    Raises UserError where the models did not answer the same questions.
    """
    verdicts, strata = [], []
    for cell in cells:
        correct, buckets = answers(models.variant, cell.cell, models.percent, split)
        right, in_bucket = np.asarray(correct, dtype=np.bool_), np.asarray(buckets, dtype=np.int64)
        known = in_bucket >= 0
        right, in_bucket = right[known], in_bucket[known]
        if split == TRAIN_SET:
            order = np.argsort(in_bucket, kind="stable")
            right, in_bucket = right[order], in_bucket[order]
        verdicts.append(right)
        strata.append(in_bucket)
    if any(not np.array_equal(other, strata[0]) for other in strata[1:]):
        raise _unlike(models, split)
    return np.stack(verdicts), strata[0]


def comparisons(
    groups: Sequence[Asked], choice: Sequence[ChoiceRow], plain: str | None, answers: Answers
) -> list[ComparisonRow]:
    """All tests on the test splits, corrected within their family.

    CHOSEN: every group's chosen percentage against its own tuned models. PLAIN: every other variant's choice
    against the plain tuned models of the same data and size, where these are not its own tuned models, with which
    CHOSEN compares it. BEST: the recommended models against the best of every other strategy, and against the plain
    tuned models with the best dev score, of any variant that has them; these too are the best of the `fullest`.
    CONTROLS: every group's choice of a restoration by relative change, where it restores anything, against its
    controls at the same percentage (`controlled`). Groups that share no seed are not compared.
    """
    known = {(g.variant.name, g.train_bucket, g.size): g for g in groups}
    of_group = [row for row in choice if row.scope == "group"]
    pairs: list[tuple[str, Models, Models]] = []
    for chosen in of_group:
        mine = _models(chosen)
        if chosen.percent > 0.0:
            pairs.append((CHOSEN, mine, mine._replace(percent=0.0)))
        if plain is not None and chosen.variant != plain:
            theirs = mine._replace(variant=plain, percent=0.0)
            if theirs[:3] in known and not _same_tuned(known[mine[:3]], known[theirs[:3]], answers):
                pairs.append((PLAIN, mine, theirs))
    controls = controlled(list({group.variant.name: group.variant for group in groups}.values()))
    for chosen in of_group:
        if chosen.percent > 0.0:
            mine = _models(chosen)
            pairs += [
                (CONTROLS, mine, mine._replace(variant=name)) for name in controls.get(mine.variant, ())
            ]
    recommended = next((row for row in choice if row.scope == "recommended"), None)
    if recommended is not None:
        others = [_models(r) for r in choice if r.scope == "strategy" and r.strategy != recommended.strategy]
        tuned = [row for row in of_group if row.variant == plain or row.strategy in PLAIN_STRATEGIES]
        if tuned:
            best = max(fullest(tuned), key=lambda row: row.dev_tuned)
            others.append(_models(best)._replace(percent=0.0))
        mine = _models(recommended)
        pairs += [(BEST, mine, other) for other in dict.fromkeys(others) if other != mine]
    rows = [
        row
        for family, first, second in pairs
        if second[:3] in known
        for split in TEST_SPLITS
        if (row := _compare(family, first, second, split, known, answers))
    ]
    return [corrected for family in (CHOSEN, PLAIN, BEST, CONTROLS) for corrected in _corrected(rows, family)]


def _models(row: ChoiceRow) -> Models:
    assert row.train_bucket is not None and row.size is not None
    return Models(row.variant, row.train_bucket, row.size, row.percent)


def _same_tuned(first: Asked, second: Asked, answers: Answers) -> bool:
    """Whether the models at 0 % are the same ones: of the seeds that both have they answer all of test alike."""
    shared = 0
    for split in TEST_SPLITS:
        a, b = ({cell.set_seed: cell for cell in g.asked.get((0.0, split), ())} for g in (first, second))
        for seed in a.keys() & b.keys():
            one, _ = answers(first.variant.name, a[seed].cell, 0.0, split)
            two, _ = answers(second.variant.name, b[seed].cell, 0.0, split)
            if not np.array_equal(one, two):
                return False
            shared += 1
    return shared > 0


def _compare(
    family: str,
    first: Models,
    second: Models,
    split: str,
    known: Mapping[tuple[str, str, int], Asked],
    answers: Answers,
) -> tuple[ComparisonRow, Difference] | None:
    """The models of the seeds that both groups have; None without any. The verdict comes with the correction."""
    a = {cell.set_seed: cell for cell in known[first[:3]].asked.get((first.percent, split), ())}
    b = {cell.set_seed: cell for cell in known[second[:3]].asked.get((second.percent, split), ())}
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return None
    one, buckets = stacked(answers, first, [a[seed] for seed in shared], split)
    two, others = stacked(answers, second, [b[seed] for seed in shared], split)
    if not np.array_equal(buckets, others):
        raise _unlike(first, split, second)
    found = paired_difference(one, two, buckets, seed_of("difference", *first, *second, split))
    row = ComparisonRow(
        family,
        *first,
        *second,
        split=split,
        questions=buckets.size,
        seeds=len(shared),
        difference=found.difference,
        low=found.low,
        high=found.high,
        gained=found.gained,
        lost=found.lost,
        test=TEST_NAME,
        p=found.p,
        p_questions=found.p_questions,
        p_sets=found.p_sets,
        p_mcnemar=found.p_mcnemar,
        p_corrected=None,
        detectable=None,
        verdict=ONE_SET,
    )
    return row, found


def _corrected(rows: Sequence[tuple[ComparisonRow, Difference]], family: str) -> list[ComparisonRow]:
    """The rows of a family with their verdicts; those of one training set take no part in the correction."""
    members = [(row, found) for row, found in rows if row.family == family]
    corrected = iter(holm([row.p for row, _ in members if row.seeds > 1]))
    judged = sum(row.seeds > 1 for row, _ in members)
    done = []
    for row, found in members:
        if row.seeds > 1:
            p, seen = next(corrected), found.detectable(row.seeds, judged)
            word = verdict(row.difference, p)
            row = replace(row, p_corrected=p, detectable=seen, verdict=word)
        done.append(row)
    return done


def _unlike(models: Models, split: str, other: Models | None = None) -> UserError:
    against = f" and {other.variant}, data {other.train_bucket}" if other else ""
    return UserError(
        f"the models did not answer the same questions of {split}, so they cannot be compared",
        place=f"{models.variant}, data {models.train_bucket}, {models.size} facts, {models.percent:g} %{against}",
        advice="evaluate them again.",
    )
