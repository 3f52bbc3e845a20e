"""The report's tables as plain data: rows of entries that the page's template lays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sftlab.reporting.table import FULL_TONE, NOTHING, Entry, Row, Table
from sftlab.reporting.text import number, percent, plus_minus, points, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import bucket_name, column_name
from sftlab.studies.knowledge.report.evidence import distribution, weight_shares
from sftlab.studies.knowledge.report.figures import SPLIT_NAMES, mastery_facts
from sftlab.studies.knowledge.report.lookup import DOMAINS, Group, Spread, View


def mastery(view: View) -> Table | None:
    rows = []
    for split in SPLIT_NAMES:
        facts = [mastery_facts(view, split, bucket) for bucket in range(5)]
        if not any(r.split == split for r in view.results.mastery):
            continue
        total = sum(facts)
        shares = [Entry(f"{n:,}", percent(n / total, 0) if total else "") for n in facts]
        unscored = mastery_facts(view, split, None)
        rows.append(Row(SPLIT_NAMES[split], [*shares, Entry(f"{total:,}"), Entry(f"{unscored:,}")]))
    if not rows:
        return None
    for split in ("train", "test", "test_ood"):
        shares = [Entry("", percent(share, 0)) for share in published.mastery_shares(split)]
        rows.append(Row(f"paper: {SPLIT_NAMES[split]}", [*shares, NOTHING, NOTHING], quiet=True))
    columns = ["0", "1", "2", "3", "4", "scored", "not scored"]
    caption = f"Facts by mastery bucket; the paper's shares are those of {published.PAPER_MODEL}"
    return Table(caption, "split", columns, rows, groups=[("bucket", 5), ("facts", 2)])


def accuracy(view: View) -> Table | None:
    """Accuracy of the tuned models on every bucket and its mean (the paper's Table 2)."""
    splits = [s for s in DOMAINS if view.questions(s)]
    columns: list[int | None] = [0, 1, 2, 3, 4, None]
    if not splits:
        return None
    base = [view.base(split, bucket) for split in splits for bucket in columns]
    rows = [Row("base model, not tuned", [_share(value) for value in base], quiet=True)]
    for size in view.sizes:
        rows.append(Row(f"{size:,} training facts"))
        groups = [g for g in view.groups if g.size == size]
        grid = [[view.accuracy(g, 0.0, s, b) for s in splits for b in columns] for g in groups]
        means = [[v.mean for v in column if v] for column in zip(*grid, strict=True)]
        best = [max(column) if len(set(column)) > 1 else None for column in means]
        for group, values in zip(groups, grid, strict=True):
            cells = [
                _spread(value, top, noted=column is None)
                for value, top, column in zip(values, best, columns * len(splits), strict=True)
            ]
            rows.append(Row(bucket_name(group.train_bucket), cells))
    names = ["0", "1", "2", "3", "4", "mean"] * len(splits)
    heads = [(f"{DOMAINS[s]}, test bucket", 6) for s in splits]
    note = "Accuracy in %. Bold: best of its size."
    if any(len(cells) > 1 for cells in view.groups.values()):
        note += " Small: standard deviation over training sets."
    return Table("Accuracy of the tuned models by test bucket", "trained on", names, rows, heads, note)


def ladder(view: View, split: str) -> Table | None:
    """Accuracy by restored percentage and train bucket (the paper's Tables 4 and 6)."""

    def entry(group: Group, at: float) -> Entry:
        value, tuned = view.accuracy(group, at, split), view.accuracy(group, 0.0, split)
        if value is None or tuned is None:
            return NOTHING
        change = value.mean - tuned.mean
        chosen = any(c.percent == at for cell in view.groups[group] if (c := view.chosen(cell.cell)))
        text = mean_and_deviation(value)
        if at == 0:
            return Entry(text, chosen=chosen)
        tone = max(-1.0, min(1.0, change / FULL_TONE))
        return Entry(text, points(change), tone=tone, chosen=chosen)

    where = DOMAINS.get(split, "on the training facts")
    caption = f"Accuracy in %, {where}, and its change in points against the tuned model (0 %)"
    return _by_percent(view, caption, entry)


def divergence(view: View) -> Table | None:
    def entry(group: Group, at: float) -> Entry:
        value = view.kl(group, at)
        return Entry(mean_and_deviation(value, 3, 1)) if value else NOTHING

    facts = max((row.facts for row in view.results.divergence), default=0)
    caption = f"Mean KL(tuned || base) in nats over at most {facts:,} bucket-4 test facts"
    return _by_percent(view, caption, entry, folded="KL of every model")


def _by_percent(
    view: View, caption: str, entry: Callable[[Group, float], Entry], folded: str = ""
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


def concentration(view: View) -> Table | None:
    rows = view.results.concentration
    if not rows:
        return None
    paper = published.concentration_range()
    tops = sorted({r.top_percent for r in rows})
    ranges = [paper.get(top) for top in tops]
    body = [Row("paper", [Entry(_range(*pair)) if pair else NOTHING for pair in ranges], quiet=True)]
    ours = [[r.share for r in rows if r.top_percent == top] for top in tops]
    body.append(Row("this study", [Entry(_range(min(column), max(column)), strong=True) for column in ours]))
    for group, cells in view.groups.items():
        names = {cell.cell for cell in cells}
        shares = [[r.share for r in rows if r.cell in names and r.top_percent == top] for top in tops]
        if any(shares):
            entries = [Entry(number(100 * sum(s) / len(s))) if s else NOTHING for s in shares]
            body.append(Row(f"{bucket_name(group.train_bucket)}, {group.size:,} facts", entries))
    caption = "Share of all relative change, in %, held by the most changed weights (the paper's Table 3)"
    heads = [("top share of weights", len(tops))]
    return Table(caption, "", [restored(top) for top in tops], body, heads)


def layers(view: View) -> Table | None:
    ours = distribution(view, "layer")
    if not ours:
        return None
    rows = [
        Row(name, [Entry(percent(share, 2)), Entry(number(share * len(ours), 2))]) for name, share in ours
    ]
    columns = ["share", "of an even share"]
    caption = "Restored weights by layer (the paper's Table 9)"
    return Table(caption, "layer", columns, rows, folded=f"All {len(ours)} layers" if len(ours) > 12 else "")


def modules(view: View) -> Table | None:
    ours, paper = dict(distribution(view, "module")), published.module_shares()
    if not ours:
        return None
    tables = (ours, weight_shares(view), paper, published.weight_shares())
    rows = []
    for name in [*ours, *(name for name in paper if name not in ours)]:
        shares = [table.get(name) for table in tables]
        rows.append(Row(name, [Entry(percent(share)) if share is not None else NOTHING for share in shares]))
    return Table(
        "Restored weights by kind of module (the paper's Table 10), and the kind's share of all weights",
        "module",
        ["here", "of all", "paper", "of all"],
        rows,
    )


def training(view: View) -> Table | None:
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


def _range(low: float, high: float) -> str:
    ends = [number(100 * end) for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else "–".join(ends)


def _share(value: float | None) -> Entry:
    return NOTHING if value is None else Entry(number(100 * value))


def _spread(value: Spread | None, best: float | None, noted: bool) -> Entry:
    if value is None:
        return NOTHING
    note = number(100 * value.deviation) if noted and value.deviation is not None else ""
    return Entry(number(100 * value.mean), note, strong=value.mean == best)
