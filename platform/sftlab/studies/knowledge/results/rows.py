"""The rows of the result tables: of one variant, and of groups of training sets over all variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sftlab.analysis.accuracy import BucketAccuracy, PairedBucket, mean_of_buckets
from sftlab.analysis.fates import Fates
from sftlab.analysis.statistics import BETTER, WORSE

BASE = "base"
SPLITS = ("dev", "dev_ood", "test", "test_ood", "train_set")


@dataclass(frozen=True)
class CellRow:
    """One fine-tuning run: a cell of the grid of training sets. everything: whether it has all facts of its bucket."""

    cell: str
    train_bucket: str  # "0".."4" or "mixed"
    size: int  # training facts
    set_seed: int
    tokens_per_second: float | None = None
    seconds: float | None = None
    everything: bool = False


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy of one model on one split and bucket. The base model: cell "base", no percent, no set.

    `bucket` None is the mean of the non-empty buckets; `questions` and `correct` are then the sums, and
    `empty_buckets` says how many of the five had no question. An empty bucket has no row of its own.
    """

    cell: str
    train_bucket: str | None
    size: int | None
    set_seed: int | None
    percent: float | None  # restored, 0 is the tuned model
    split: str  # one of SPLITS
    bucket: int | None
    questions: int
    correct: int
    accuracy: float  # share in [0, 1]
    empty_buckets: int = 0


@dataclass(frozen=True)
class PairedRow:
    """Answers that a restored model changed against the tuned model (0 %) of its cell."""

    cell: str
    percent: float
    split: str
    bucket: int
    questions: int
    gained: int
    lost: int


@dataclass(frozen=True)
class FateRow:
    """What becomes of the facts of one topic and bucket from the tuned to a restored model of a cell.

    The counts are those of `sftlab.analysis.fates.Fates`; together they are the facts of the topic and bucket.
    """

    cell: str
    percent: float
    split: str  # "test", "test_ood" or "train_set"
    topic: str
    bucket: int
    kept: int
    undone: int
    recovered: int
    lost: int

    @property
    def fates(self) -> Fates:
        return Fates(self.kept, self.undone, self.recovered, self.lost)


@dataclass(frozen=True)
class DivergenceRow:
    """Mean first-token KL(tuned || base) in nats over `facts` bucket-4 test facts."""

    cell: str
    percent: float
    facts: int
    kl: float
    error: float | None = None  # standard error over the facts


@dataclass(frozen=True)
class ConcentrationRow:
    """Share in [0, 1] of all relative change that the top `top_percent` % of the weights hold.

    `null` is the share with the updates of each parameter shuffled; None where it is not measured.
    """

    cell: str
    top_percent: float
    share: float
    null: float | None = None


@dataclass(frozen=True)
class DistributionRow:
    """Share in [0, 1] of the weights restored at `percent` % that are in one layer or module; of all at 100 %.

    `null` is the share with the updates of each parameter shuffled; None where it is not measured, or of all weights.
    """

    cell: str
    percent: float
    kind: str  # "layer" or "module"
    name: str
    share: float
    null: float | None = None


@dataclass(frozen=True)
class UpdateRow:
    """How large the update of a tuned model is, in one layer or module, or in all parameters.

    changed: share of the weights with another value than the base's. l1: sum of |s - p|. l2: square root of the sum of
    (s - p)^2. relative: mean of r = |s - p| / (|p| + 1e-8). relative_l2: l2 by that of p; None where p is zero.
    """

    cell: str
    kind: str  # "layer", "module" or "all"
    name: str  # of the layer or module; "all"
    weights: int
    changed: float
    l1: float
    l2: float
    relative: float
    relative_l2: float | None


@dataclass(frozen=True)
class UndoneRow:
    """Shares in [0, 1] of the region's total change that a restoration takes back.

    `weights` is the share of the weights that it restores; the others are of the sums of the relative change, of
    |s - p| and of (s - p)^2.
    """

    cell: str
    percent: float
    weights: float
    relative: float
    l1: float
    l2: float


@dataclass(frozen=True)
class MasteryRow:
    """Facts of one bucket of a split; bucket None: facts whose mastery could not be scored.

    `errors` counts those of the row that carry an error message.
    """

    split: str
    bucket: int | None
    facts: int
    errors: int = 0


@dataclass(frozen=True)
class CertaintyRow:
    """How sure the mastery of the facts of one split, topic and bucket is; means over the facts.

    half_width: half of the 95 % interval of R. probability: of the bucket, when templates and completions are drawn
    again. redraw: the same with the same templates. sure: share of the facts whose probability is at least 0.9.
    """

    split: str
    topic: str
    bucket: int
    facts: int
    half_width: float
    probability: float
    redraw: float
    sure: float


@dataclass(frozen=True)
class DrawnRow:
    """Facts of one topic and bucket in a training set."""

    cell: str
    topic: str
    bucket: int
    facts: int


@dataclass(frozen=True)
class TrainingRow:
    """One optimizer step of a fine-tuning run. gradient_norm: L2, before clipping; None of runs that lack it."""

    cell: str
    step: int
    loss: float
    learning_rate: float
    gradient_norm: float | None = None


# Families of comparisons: p values are corrected within one.
CHOSEN = "chosen against tuned"
PLAIN = "chosen against plain tuned"
BEST = "recommended against other strategies"
CONTROLS = "restoration against its controls"

PLAIN_STRATEGIES = ("restore", "divided")  # their 0 % models are fine-tuned as in the paper


class GroupKey(NamedTuple):
    """Training sets of one variant, data and size: they differ in their seed alone."""

    variant: str
    train_bucket: str
    size: int


@dataclass(frozen=True)
class GroupRow:
    """Accuracy over the training sets of one variant, data, size and percentage. Shares in [0, 1].

    `questions` were asked of each of the `seeds` models. `low` and `high` are the ends of the 95 % interval over
    questions and training sets. `change` is the difference to 0 % of the same group, paired, with its own interval;
    None at 0 % and on the dev splits, which choose and say nothing about changes.
    """

    variant: str
    train_bucket: str  # "0".."4", "mixed", or a mixture such as "0:0.5+4:0.5"
    size: int
    percent: float
    split: str
    bucket: int | None  # None: mean of the non-empty buckets
    seeds: int
    questions: int
    mean: float
    sd: float | None  # over seeds; None for one
    low: float
    high: float
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None

    @property
    def group(self) -> GroupKey:
        return GroupKey(self.variant, self.train_bucket, self.size)


@dataclass(frozen=True)
class ComparisonRow:
    """Score of one group of models less that of another (`against_*`), on the same questions and seeds.

    `p` is the larger of `p_questions` and `p_sets`, as `test` says. `p_corrected` is Holm's over the rows of `family`
    with several training sets; of one training set it is None, and there is no verdict. `detectable` is the smallest
    true difference that would have been found with 80 % power, within the family. `p_mcnemar` (exact, all pairs
    pooled) is not corrected.
    """

    family: str  # CHOSEN, PLAIN, BEST or CONTROLS
    variant: str
    train_bucket: str
    size: int
    percent: float
    against_variant: str
    against_bucket: str
    against_size: int
    against_percent: float
    split: str
    questions: int
    seeds: int
    difference: float
    low: float
    high: float
    gained: int
    lost: int
    test: str
    p: float
    p_questions: float
    p_sets: float | None
    p_mcnemar: float
    p_corrected: float | None
    detectable: float | None
    verdict: str  # "better", "worse", "no significant difference", or "for this training set" of one

    @property
    def group(self) -> GroupKey:
        return GroupKey(self.variant, self.train_bucket, self.size)

    @property
    def decided(self) -> bool:
        return self.verdict in (BETTER, WORSE)


@dataclass(frozen=True)
class ChoiceRow:
    """A percentage chosen on dev, and what it does on test; means over the training sets that it is about.

    scope "cell": of one run; "common": one percentage for all runs of a variant; "group": of one variant, data and
    size; "variant": the best group of a variant; "strategy": the best of a strategy's variants; "recommended": the
    best of all; each of the last three the best of the `fullest`. `dev` is the score that chose, that of the
    metric; `*_tuned` is the same at 0 %. Shares in [0, 1].
    """

    scope: str
    variant: str
    strategy: str
    train_bucket: str | None  # None: of all runs of the variant
    size: int | None
    percent: float
    seeds: int
    dev: float
    dev_tuned: float
    test: float | None
    test_tuned: float | None
    test_ood: float | None
    test_ood_tuned: float | None
    questions: int  # on test and test_ood together, of each model
    collapse_percent: float | None = None
    cell: str | None = None  # of the scope "cell"

    @property
    def group(self) -> GroupKey:
        """Not of the scope "common"."""
        assert self.train_bucket is not None and self.size is not None
        return GroupKey(self.variant, self.train_bucket, self.size)


def fullest(choices: Sequence[ChoiceRow]) -> list[ChoiceRow]:
    """Those with as many seeds as the one with the most; others do not compete: few seeds make a lucky mean."""
    most = max((row.seeds for row in choices), default=0)
    return [row for row in choices if row.seeds == most]


def accuracy_rows(
    cell: CellRow | None, percent: float | None, split: str, buckets: Sequence[BucketAccuracy]
) -> list[AccuracyRow]:
    """The rows of one model on one split: a row for every bucket with questions, then their mean.

    Args:
        cell: the run whose model answered; None for the base model, whose `percent` is None too.
        percent: share of the weights restored; 0 is the tuned model.
        buckets: as `accuracy_by_bucket` gives them.
    """
    assert split in SPLITS and (cell is None) == (percent is None)
    mean = mean_of_buckets(buckets)

    def row(bucket: int | None, questions: int, correct: int, accuracy: float, empty: int = 0) -> AccuracyRow:
        return AccuracyRow(
            cell=cell.cell if cell else BASE,
            train_bucket=cell.train_bucket if cell else None,
            size=cell.size if cell else None,
            set_seed=cell.set_seed if cell else None,
            percent=percent,
            split=split,
            bucket=bucket,
            questions=questions,
            correct=correct,
            accuracy=accuracy,
            empty_buckets=empty,
        )

    asked = [row(b.bucket, b.questions, b.correct, b.accuracy) for b in buckets if b.accuracy is not None]
    return [*asked, row(None, mean.questions, mean.correct, mean.accuracy, len(mean.empty))]


def paired_rows(cell: str, percent: float, split: str, buckets: Sequence[PairedBucket]) -> list[PairedRow]:
    """The rows of one restored model on one split, from `paired_by_bucket(tuned, restored, ...)`."""
    return [PairedRow(cell, percent, split, b.bucket, b.questions, b.gained, b.lost) for b in buckets]
