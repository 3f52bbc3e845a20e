"""Look-ups in the results: by variant, by group of training sets, by comparison; the variants as views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sftlab.config.leaves import flat
from sftlab.reporting.text import count
from sftlab.studies.knowledge.report.buckets import LADDERS, bucket_name
from sftlab.studies.knowledge.report.lookup import DOMAINS, Group, VariantView, bucket_order
from sftlab.studies.knowledge.report.published import SIZES
from sftlab.studies.knowledge.results.choice import Metric, metric_of
from sftlab.studies.knowledge.results.rows import (
    CHOSEN,
    PLAIN,
    PLAIN_STRATEGIES,
    ChoiceRow,
    ComparisonRow,
    GroupKey,
    GroupRow,
    fullest,
)
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.sweeps.times import TimeRow


@dataclass(frozen=True)
class View:
    """The results of a study or a sweep, indexed. Look-ups give None for what is not measured."""

    results: Results

    @cached_property
    def variants(self) -> dict[str, Variant]:
        return {variant.name: variant for variant in self.results.variants}

    @cached_property
    def main(self) -> VariantView | None:
        """The variant whose tables are compared with the paper's: the reference, else the first."""
        name = self.results.reference or next(iter(self.variants), None)
        return self.view(name) if name is not None else None

    @cached_property
    def main_name(self) -> str:
        return self.results.reference or next(iter(self.variants), "")

    def view(self, name: str) -> VariantView:
        """A variant's tables with the choices of its groups."""
        number = list(self.variants).index(name)
        mine = [row for row in self.choices("group") if row.variant == name]
        chosen = {Group(*row.group[1:]): row for row in mine}
        common = next((row.percent for row in self.choices("common") if row.variant == name), None)
        prefix, title = ("", "") if name == self.main_name else (f"v{number}-", name)
        return VariantView(self.variants[name], chosen, common, self.results.model, prefix, title)

    @cached_property
    def tuned_otherwise(self) -> list[VariantView]:
        """Variants whose fine-tuning differs from the main one's: at 0 % they have other accuracies.

        Variants of a single group of training sets, as a search makes them, have no curve to show.
        """
        main = _tuned(self.view(self.main_name)) if self.main is not None else {}
        views = [self.view(name) for name in self.variants if name != self.main_name]
        return [view for view in views if len(view.groups) > 1 and _tuned(view) != main]

    @property
    def searched(self) -> bool:
        """Whether most variants have a single group of training sets, as a search leaves them."""
        groups = [len({(c.train_bucket, c.size) for c in v.cells}) for v in self.results.variants]
        return len(groups) > 3 and sum(n == 1 for n in groups) > len(groups) / 2

    @cached_property
    def ladders(self) -> list[VariantView]:
        """Variants other than the main one with more than 0 % on their ladder and more than one group."""
        views = [self.view(name) for name in self.variants if name != self.main_name]
        return [view for view in views if len(view.groups) > 1 and len(view.percents) > 1]

    @cached_property
    def train_buckets(self) -> list[str]:
        buckets = {cell.train_bucket for v in self.results.variants for cell in v.cells}
        return sorted(buckets, key=bucket_order)

    @cached_property
    def _scores(self) -> Mapping[tuple[str, str, int, float, str, int | None], GroupRow]:
        return {
            (r.variant, r.train_bucket, r.size, r.percent, r.split, r.bucket): r for r in self.results.groups
        }

    def score(
        self, variant: str, group: Group, percent: float, split: str, bucket: int | None = None
    ) -> GroupRow | None:
        return self._scores.get((variant, group.train_bucket, group.size, percent, split, bucket))

    def of_choice(self, choice: ChoiceRow, split: str, percent: float | None = None) -> GroupRow | None:
        """Score of a choice on one split, at its percentage or another one."""
        at = choice.percent if percent is None else percent
        return self.score(choice.variant, Group(*choice.group[1:]), at, split)

    def chosen(self, variant: str, group: Group) -> ChoiceRow | None:
        return self._chosen.get(GroupKey(variant, *group))

    @cached_property
    def _chosen(self) -> Mapping[GroupKey, ChoiceRow]:
        return {r.group: r for r in self.choices("group")}

    def choices(self, scope: str) -> list[ChoiceRow]:
        return [row for row in self.results.choice if row.scope == scope]

    @property
    def metric(self) -> Metric:
        """What makes a dev score in this sweep."""
        return metric_of(self.results.metric)

    @property
    def competing_rule(self) -> str:
        """Which groups of training sets compete for the best; '' where all do."""
        groups = self.choices("group")
        competing = fullest(groups)
        if len(competing) == len(groups):
            return ""
        left_out = count(len(groups) - len(competing), "group has", "groups have")
        return (
            "Only groups with as many training sets as the fullest compete for the best of the sweep, of a strategy "
            f"and of a variant, as few make a lucky mean; {left_out} fewer than {competing[0].seeds}."
        )

    @property
    def several(self) -> bool:
        """Whether there is more than one variant to name."""
        return len(self.results.variants) > 1

    @property
    def recommended(self) -> ChoiceRow | None:
        return next(iter(self.choices("recommended")), None)

    def against_plain(self, choice: ChoiceRow, split: str) -> ComparisonRow | None:
        """A choice against plain fine-tuning on the same facts.

        The reference, and strategies that only edit the weights of plain tuned models, have these at 0 %; what is
        compared with its own tuned models is not compared with them again.
        """
        own = self.results.comparison(CHOSEN, choice, split)
        if choice.variant == self.results.reference:
            return own
        found = self.results.comparison(PLAIN, choice, split)
        edits = choice.strategy in LADDERS or self._plain_tuned(choice)
        return own if found is None and edits else found

    def _plain_tuned(self, choice: ChoiceRow) -> bool:
        """Whether a choice's models at 0 % have the reference's scores on the same facts, as far as the tables show."""
        group = Group(*choice.group[1:])
        pairs = [
            (self.of_choice(choice, split, 0.0), self.score(self.results.reference or "", group, 0.0, split))
            for split in DOMAINS
        ]
        known = [(mine, theirs) for mine, theirs in pairs if mine and theirs]
        return bool(known) and all((a.mean, a.sd) == (b.mean, b.sd) for a, b in known)

    def plain_score(self, choice: ChoiceRow, split: str) -> GroupRow | None:
        """Score of plain fine-tuning on the same facts."""
        group = Group(*choice.group[1:])
        found = self.score(self.main_name, group, 0.0, split)
        return self.of_choice(choice, split, 0.0) if found is None and choice.strategy in LADDERS else found

    def is_plain(self, row: ComparisonRow) -> bool:
        """Whether a comparison is against plain fine-tuning."""
        variant = self.variants[row.against_variant]
        known = row.against_variant == self.results.reference or variant.strategy in PLAIN_STRATEGIES
        return known and not row.against_percent

    def family(self, name: str) -> list[ComparisonRow]:
        return [row for row in self.results.comparisons if row.family == name]

    @cached_property
    def times(self) -> dict[str, list[TimeRow]]:
        times: dict[str, list[TimeRow]] = {}
        for row in self.results.times:
            times.setdefault(row.stage, []).append(row)
        return times


def data_words(train_bucket: str, size: int) -> str:
    """'100 facts of bucket 2', '100 facts of mixed buckets'."""
    return f"{size:,} facts of {bucket_name(train_bucket)}"


def share_of(variant: Variant) -> str:
    """What the percentages of a variant's ladder are shares of: weights, l1 or l2."""
    return str((variant.spec.get("restore") or {}).get("share_of") or "weights")


def setting_words(variant: Variant) -> str:
    """'factor 0.5, epochs 2'; '' without settings."""
    return ", ".join(f"{key} {value}" for key, value in flat(variant.settings))


def paper_size(size: int, sizes: list[int]) -> int | None:
    """The published size that a size is compared with: its equal, else 240 by the smallest, 1,920 by the largest.

    Of a single size that is neither, 1,920.
    """
    if set(SIZES) & set(sizes):
        return size if size in SIZES else None
    return {sizes[0]: SIZES[0], sizes[-1]: SIZES[1]}.get(size)


def _tuned(view: VariantView) -> dict[tuple[str, str, int | None], float]:
    return {
        (row.cell, row.split, row.bucket): row.accuracy for row in view.variant.accuracy if row.percent == 0.0
    }
