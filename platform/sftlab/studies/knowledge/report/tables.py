"""The main study's tables as measured here, each number beside the published one with the agreement of direction.

In every table the entry is the number here, the small print under it the published one of the same row and
column, and the mark says whether the two point the same way; what "the same way" compares is in the table's note.
A direction is open where the 95 % interval holds zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sftlab.reporting.table import FULL_TONE, NOTHING, Entry, Row, Table
from sftlab.reporting.text import number, plus_minus, points, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import bucket_name, column_name
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, Group
from sftlab.studies.knowledge.report.view import View, paper_size
from sftlab.studies.knowledge.results.choice import collapse_percent
from sftlab.studies.knowledge.results.rows import GroupRow

SMALL = "Small: published"
TRAIN_SET = "train_set"
EVEN = 0.01  # a share within 1 % of an even one has no direction


def marks_of(view: View) -> str:
    """What the marks say where there is one training set; '' where there are several."""
    main = view.main
    if main is None or any(len(cells) > 1 for cells in main.groups.values()):
        return ""
    return "There is one training set: the marks are for it alone. "


def direction(low: float, high: float, paper: float | None) -> str:
    """The mark of a change with the ends of its interval beside the published change; '' without one."""
    if not paper:
        return ""
    if low <= 0 <= high:
        return "open"
    return "agrees" if (low > 0) == (paper > 0) else "differs"


def ladder(view: View, split: str) -> Table | None:
    """Accuracy by restored percentage (Table 4; on the training set Table 6)."""
    main = view.main
    if main is None:
        return None
    rows: list[Row] = []
    for size in main.sizes:
        groups = [Group(bucket, size) for bucket in main.train_buckets]
        known = any(group.train_bucket.isdecimal() for group in groups)
        paper = _published_ladder(split, paper_size(size, main.sizes) if known else None)
        measured = {
            at for at in main.percents for group in groups if view.score(view.main_name, group, at, split)
        }
        block = [
            Row(restored(at), [_rung(view, group, at, split, paper) for group in groups], quiet=at == 0)
            for at in sorted(measured | paper.keys())
        ]
        if measured:
            rows += [Row(beside_words(size, main.sizes)), *block]
    if not rows:
        return None
    where, table = (DOMAINS[split], 4) if split in DOMAINS else ("on the training facts", 6)
    contradiction = published.LADDER_NOTE if table == 4 else published.ONE_SET_NOTE
    return Table(
        f"Accuracy in %, {where}, by restored percentage (the paper's Table {table})",
        "restored",
        [column_name(bucket) for bucket in main.train_buckets],
        rows,
        [("trained on bucket", len(main.train_buckets))],
        note=f"Mean ± standard deviation over training sets. {SMALL}, of {published.PAPER_MODEL}. "
        f"Small, beside: the change in points against 0 % restored; mark: its direction. "
        f"{marks_of(view)}{contradiction}",
    )


def _published_ladder(split: str, size: int | None) -> dict[float, list[float]]:
    if size is None:
        return {}
    return published.training_set(size) if split == TRAIN_SET else published.ladder(split, size)


def _rung(view: View, group: Group, at: float, split: str, paper: dict[float, list[float]]) -> Entry:
    known = paper.get(at) if group.train_bucket.isdecimal() else None
    theirs = known[int(group.train_bucket)] if known else None
    below = [number(100 * theirs)] if theirs is not None else []
    score = view.score(view.main_name, group, at, split)
    if score is None:
        return Entry("–", below=below)
    chosen = view.chosen(view.main_name, group)
    mark, tone = "", None
    if score.change is not None and score.change_low is not None and score.change_high is not None:
        tone = max(-1.0, min(1.0, score.change / FULL_TONE))
        change = theirs - paper[0.0][int(group.train_bucket)] if theirs is not None else None
        mark = direction(score.change_low, score.change_high, change)
    ringed = chosen is not None and chosen.percent == at
    note = points(score.change) if score.change is not None else ""
    return Entry(accuracy_text(score), note, tone, chosen=ringed, below=below, mark=mark)


def more_data(view: View) -> Table | None:
    """Change of the tuned models' accuracy from the smallest to the largest training sets (Phenomenon 1)."""
    main = view.main
    if main is None or len(main.sizes) < 2:
        return None
    small, large = main.sizes[0], main.sizes[-1]
    if set(published.SIZES) <= set(main.sizes):
        small, large = published.SIZES
    rows = []
    for split, name in DOMAINS.items():
        before, after = (published.ladder(split, size)[0.0] for size in published.SIZES)
        entries = []
        for bucket in main.train_buckets:
            ends = [view.score(view.main_name, Group(bucket, size), 0.0, split) for size in (small, large)]
            change = after[int(bucket)] - before[int(bucket)] if bucket.isdecimal() else None
            entries.append(_difference(ends[0], ends[1], change))
        if any(entry is not NOTHING for entry in entries):
            rows.append(Row(name, entries))
    if not rows:
        return None
    return Table(
        f"Change of the tuned models' accuracy in points from {small:,} to {large:,} training facts",
        "",
        [column_name(bucket) for bucket in main.train_buckets],
        rows,
        [("trained on bucket", len(main.train_buckets))],
        note=f"{SMALL}, from 240 to 1,920 facts. Mark: does more data help or hurt? Open: within the noise "
        "(both scores' intervals, taken as independent).",
    )


def everything(view: View) -> Table | None:
    """Accuracy of the models that are trained on all facts of a bucket; None where there is none."""
    main = view.main
    if main is None or not main.everything:
        return None
    rows = []
    for bucket in main.train_buckets:
        if bucket not in main.everything:
            continue
        group = main.everything[bucket]
        choice = main.choices.get(group)
        entries = [Entry(f"{group.size:,}"), Entry(restored(choice.percent)) if choice else NOTHING]
        for split in DOMAINS:
            for at in (0.0, choice.percent if choice else None):
                score = None if at is None else view.score(view.main_name, group, at, split)
                entries.append(Entry(accuracy_text(score)) if score else NOTHING)
        rows.append(Row(bucket_name(bucket), entries))
    return Table(
        "Accuracy in % after training on all facts of a bucket",
        "trained on",
        ["facts", "chosen", *["tuned", "restored"] * len(DOMAINS)],
        rows,
        [("", 2), *((name, 2) for name in DOMAINS.values())],
        note="Restored: at the percentage chosen on dev. The other tables have the listed sizes.",
    )


def collapse(view: View) -> Table | None:
    """From which percentage on accuracy stays below half of the tuned models' (from Table 4)."""
    main = view.main
    if main is None or len(main.percents) < 2:
        return None
    rows = []
    for size in main.sizes:
        beside = paper_size(size, main.sizes)
        entries = []
        for bucket in main.train_buckets:
            group = Group(bucket, size)
            scores = [(at, view.score(view.main_name, group, at, TEST)) for at in main.percents]
            known = [(at, score.mean) for at, score in scores if score]
            ours = _collapse(known)
            paper = _published_ladder(TEST, beside) if bucket.isdecimal() else {}
            theirs = _collapse([(at, row[int(bucket)]) for at, row in paper.items()])
            below = [_from(theirs)] if paper else []
            mark = ("agrees" if (ours is None) == (theirs is None) else "differs") if paper else ""
            if not known:
                entries.append(NOTHING)
            elif known[0] == (0.0, 0.0):  # there is nothing left to lose
                entries.append(Entry("n/a", below=below))
            else:
                entries.append(Entry(_from(ours), below=below, mark=mark))
        rows.append(Row(f"{size:,} training facts", entries))
    return Table(
        "Collapse in domain: from which percentage on less than half of the tuned accuracy is left",
        "",
        [column_name(bucket) for bucket in main.train_buckets],
        rows,
        [("trained on bucket", len(main.train_buckets))],
        note=f"{SMALL}. Mark: does the ladder end in a collapse? The ladder here goes to "
        f"{restored(main.percents[-1])}, the paper's to 60 %. n/a: the tuned models answer nothing right.",
    )


def _collapse(scores: Sequence[tuple[float, float]]) -> float | None:
    return collapse_percent(dict(scores)) if scores and scores[0][0] == 0.0 else None


def _from(at: float | None) -> str:
    return "none" if at is None else f"from {restored(at)}"


def by_test_bucket(view: View) -> Table | None:
    """Accuracy of the tuned models on every test bucket (Table 2)."""
    main = view.main
    columns = [(split, bucket) for split in DOMAINS for bucket in (0, 1, 2, 3, 4, None)]
    if main is None or not any(main.accuracy(group, 0.0, TEST) for group in main.groups):
        return None
    model, table_2 = published.by_test_bucket(published.model_of(view.results.model))
    base = [main.base(split, bucket) for split, bucket in columns]
    shown = [Entry(number(100 * value)) if value is not None else NOTHING for value in base]
    rows = [Row("base model, not tuned", shown, quiet=True)]
    for size in main.sizes:
        trained = [bucket for bucket in main.train_buckets if Group(bucket, size) in main.groups]
        known = paper_size(size, main.sizes) == published.SIZES[1]
        table = table_2 if known else []
        grid = [
            [view.score(view.main_name, Group(train, size), 0.0, split, bucket) for split, bucket in columns]
            for train in trained
        ]
        rows.append(Row(beside_words(size, main.sizes) if known else f"{size:,} training facts"))
        for train, scores in zip(trained, grid, strict=True):
            entries = []
            for column, score in enumerate(scores):
                ours = [row[column] for row in grid]
                paper = {b: table[int(b)][column] for b in trained if b.isdecimal()} if table else {}
                entries.append(_of_column(train, score, ours, paper))
            rows.append(Row(bucket_name(train), entries))
    return Table(
        "Accuracy in % of the tuned models by test bucket (the paper's Table 2)",
        "trained on",
        ["0", "1", "2", "3", "4", "mean"] * 2,
        rows,
        [(f"{name}, test bucket", 6) for name in DOMAINS.values()],
        note=f"Mean ± standard deviation over training sets; bold: best of its size. {SMALL}, of {model}, 1,920 facts. "
        f"Mark: above or below the column's mean over these train buckets. {marks_of(view)}".rstrip(),
    )


def _of_column(
    train: str, score: GroupRow | None, ours: Sequence[GroupRow | None], paper: Mapping[str, Sequence[float]]
) -> Entry:
    if score is None:
        return NOTHING
    means = {other.mean for other in ours if other}
    best = len(means) > 1 and score.mean == max(means)
    if train not in paper:
        return Entry(accuracy_text(score), strong=best)
    theirs, spread = paper[train]
    away = theirs - mean(pair[0] for pair in paper.values())
    here = score.mean - mean(other.mean for other in ours if other)
    # One bucket's own interval may have no width (nothing right): the column's mean half width is used for all.
    half = mean((other.high - other.low) / 2 for other in ours if other)
    below = [plus_minus(number(theirs), number(spread))]
    mark = direction(here - half, here + half, away)
    return Entry(accuracy_text(score), below=below, mark=mark, strong=best)


def _difference(before: GroupRow | None, after: GroupRow | None, paper: float | None) -> Entry:
    """Change between two scores in points, with the published change of shares."""
    if before is None or after is None:
        return NOTHING
    change, low, high = difference_of(after, before)
    below = [points(paper)] if paper is not None else []
    tone = max(-1.0, min(1.0, change / FULL_TONE))
    return Entry(points(change), tone=tone, below=below, mark=direction(low, high, paper))


def accuracy_text(score: GroupRow) -> str:
    """'58.3 ± 0.4' in percent."""
    deviation = None if score.sd is None else number(100 * score.sd)
    return plus_minus(number(100 * score.mean), deviation)


def difference_of(first: GroupRow, second: GroupRow) -> tuple[float, float, float]:
    """First score less the second with the ends of its interval, both taken as independent (Newcombe 1998)."""
    change = first.mean - second.mean
    below = math.hypot(first.mean - first.low, second.high - second.mean)
    above = math.hypot(first.high - first.mean, second.mean - second.low)
    return change, change - below, change + above


def beside_words(size: int, sizes: list[int]) -> str:
    beside = paper_size(size, sizes)
    if beside is None or beside == size:
        return f"{size:,} training facts"
    return f"{size:,} training facts; published: {beside:,}"


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
