"""Tables of one variant without a published counterpart in every entry: mastery, KL, fine-tuning runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sftlab.analysis.correlation import correlate
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import number, percent, plus_minus, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import column_name
from sftlab.studies.knowledge.report.figures import SPLIT_NAMES, mastery_facts
from sftlab.studies.knowledge.report.lookup import Group, Spread, VariantView
from sftlab.studies.knowledge.report.strategy_figures import Moved


def mastery(view: VariantView) -> Table | None:
    rows = []
    for split in SPLIT_NAMES:
        facts = [mastery_facts(view, split, bucket) for bucket in range(5)]
        if not any(r.split == split for r in view.variant.mastery):
            continue
        total = sum(facts)
        shares = [Entry(f"{n:,}", percent(n / total, 0) if total else "") for n in facts]
        unscored = mastery_facts(view, split, None)
        rows.append(Row(SPLIT_NAMES[split], [*shares, Entry(f"{total:,}"), Entry(f"{unscored:,}")]))
    if not rows:
        return None
    paper = published.model_of(view.base_name) or published.PAPER_MODEL
    for split in ("train", "test", "test_ood"):
        shares = [Entry("", percent(share, 0)) for share in published.mastery_shares(split, paper)]
        rows.append(Row(f"paper: {SPLIT_NAMES[split]}", [*shares, NOTHING, NOTHING], quiet=True))
    columns = ["0", "1", "2", "3", "4", "scored", "not scored"]
    caption = f"Facts by mastery bucket; the paper's shares are those of {paper}"
    return Table(caption, "split", columns, rows, groups=[("bucket", 5), ("facts", 2)])


def divergence(view: VariantView) -> Table | None:
    def entry(group: Group, at: float) -> Entry:
        value, ends = view.kl(group, at), view.kl_interval(group, at)
        below = [f"{number(ends.low, 3)} to {number(ends.high, 3)}"] if ends else []
        return Entry(mean_and_deviation(value, 3, 1), below=below) if value else NOTHING

    facts = max((row.facts for row in view.variant.divergence), default=0)
    caption = (
        f"Mean KL(tuned || base) in nats over at most {facts:,} bucket-4 test facts; small: 95 % interval over facts "
        "and training sets"
    )
    return _by_percent(view, caption, entry, folded="KL of every model")


def _by_percent(
    view: VariantView, caption: str, entry: Callable[[Group, float], Entry], folded: str = ""
) -> Table | None:
    """Rows: percentages within sizes; columns: train buckets. None where no entry holds a number."""
    rows, found = [], False
    for size in view.sizes:
        block = []
        for at in view.percents:
            entries = [entry(Group(bucket, size), at) for bucket in view.train_buckets]
            if any(e is not NOTHING for e in entries):
                block.append(Row(restored(at), entries, quiet=at == 0))
        if block:
            found = True
            rows += [Row(f"{size:,} training facts"), *block]
    groups = [("trained on bucket", len(view.train_buckets))]
    columns = [column_name(bucket) for bucket in view.train_buckets]
    return Table(caption, "restored", columns, rows, groups, folded=folded) if found else None


def training(view: VariantView) -> Table | None:
    rows = []
    for cells in view.groups.values():
        for cell in cells:
            losses = [loss for _, loss in view.curves.get(cell.cell, [])]
            numbers = [
                Entry(f"{len(losses):,}") if losses else NOTHING,
                Entry(number(_tenth(losses), 3)) if losses else NOTHING,
                Entry(number(_tenth(losses[::-1]), 3)) if losses else NOTHING,
                Entry(f"{cell.tokens_per_second:,.0f}") if cell.tokens_per_second is not None else NOTHING,
                Entry(number(cell.seconds)) if cell.seconds is not None else NOTHING,
            ]
            rows.append(Row(cell.cell, numbers))
    columns = ["logged steps", "loss, first tenth", "loss, last tenth", "tokens/s", "seconds"]
    return Table("Fine-tuning runs", "run", columns, rows, folded="All fine-tuning runs") if rows else None


def mean_and_deviation(value: Spread, digits: int = 1, factor: float = 100) -> str:
    """'58.3 ± 0.4' over training sets, '58.3' of one; shares are written in percent."""
    deviation = None if value.deviation is None else number(factor * value.deviation, digits)
    return plus_minus(number(factor * value.mean, digits), deviation)


def _tenth(losses: Sequence[float]) -> float:
    part = losses[: max(1, len(losses) // 10)]
    return sum(part) / len(part)


def correlation(groups: Sequence[Moved]) -> Table | None:
    """Correlation of KL with accuracy on bucket-4 test facts, over groups of training sets: pooled, within and by size.

    Seeds of one group are not independent, so that a group is one point: the mean over its models.
    """
    rows = []
    names = list(dict.fromkeys(point.variant for point in groups))
    sizes = sorted({point.group.size for point in groups})
    for name in ["all", *names] if len(names) > 1 else names:
        mine = [p for p in groups if name in ("all", p.variant)]
        rows.append(_correlation(name, mine))
        if len(sizes) > 1:
            rows.append(_correlation(f"{name}, within a size", mine, [p.group.size for p in mine]))
            of_size = ((size, [p for p in mine if p.group.size == size]) for size in sizes)
            rows += [_correlation(f"{name}, {size:,} facts", points) for size, points in of_size]
    shown = [row for row in rows if row is not None]
    if not shown:
        return None
    return Table(
        "Correlation of KL with the accuracy on bucket-4 test facts",
        "tuned models",
        ["Pearson's r", "Spearman's rho", "groups"],
        shown,
        note="A group of training sets is one point. Small: 95 % interval, bootstrap over groups. Within a size: both "
        "are ranked or centred within the size first, so that differences between sizes do not count.",
    )


def _correlation(name: str, points: Sequence[Moved], within: Sequence[int] | None = None) -> Row | None:
    kls, accuracies = [p.kl for p in points], [p.accuracy for p in points]
    found = [correlate(kls, accuracies, within, ranks=ranks) for ranks in (False, True)]
    entries = [
        Entry(number(c.value, 2), below=[f"{number(c.low, 2)} to {number(c.high, 2)}"]) for c in found if c
    ]
    return Row(name, [*entries, Entry(f"{len(points)}")]) if len(entries) == 2 else None
