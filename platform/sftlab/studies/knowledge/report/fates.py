"""What becomes of each fact: kept, undone, recovered or lost, from the tuned to the restored models."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from statistics import fmean

from sftlab.analysis.fates import Fates, together
from sftlab.analysis.statistics import over_sets
from sftlab.reporting.section import Section, present
from sftlab.reporting.svg import FAINT, INK, drawing, inline
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, percent, restored
from sftlab.studies.knowledge.report.buckets import bucket_name, column_name
from sftlab.studies.knowledge.report.figures import percent_axis
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, Group, VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import FateRow

KNOWN, UNKNOWN = (1, 2, 3, 4), (0,)  # buckets of facts that the base model completes at least once, and never
COLOURS = {"kept": "#0072B2", "recovered": "#56B4E9", "undone": "#E69F00", "lost": "#D55E00"}
WORDS = (
    "Kept: right after tuning and after restoring. Recovered: wrong after tuning, right after restoring. Undone: right "
    "after tuning alone. Lost: wrong after both. Learned: facts of bucket 0 that are right after both."
)


def section(view: View) -> Section | None:
    """The section of the main variant; None where no restored model was compared with its tuned one."""
    main = view.main
    if main is None or not main.variant.fates:
        return None
    size = main.sizes[-1]
    return Section(
        "fates",
        "What becomes of each fact",
        _words(main, size),
        present(figure(main, size)),
        present(by_group(main), recovery(main, size), by_topic(main, size)),
        data=("fates",),
    )


def shown_rows(view: VariantView) -> list[FateRow]:
    """The rows of every group at its percentage of `shown_percents`."""
    return [row for row in view.variant.fates if view.shows(row.cell, row.percent)]


def by_group(view: VariantView) -> Table | None:
    """Shares of test facts by their fate, for every group of training sets."""
    rows = []
    for size in view.sizes:
        rows.append(Row(f"{size:,} training facts"))
        for group in view.groups_of(size):
            entries = [
                _share(view, group, split, name, buckets)
                for split in DOMAINS
                for name, buckets in (*((name, KNOWN) for name in COLOURS), ("kept", UNKNOWN))
            ]
            at = view.shown_percents[group]
            note = "" if at is None else f", {restored(at)} restored"
            rows.append(Row(f"{bucket_name(group.train_bucket)}{note}", entries))
    return Table(
        "Test facts by what becomes of them",
        "trained on",
        [*COLOURS, "learned"] * len(DOMAINS),
        rows,
        [
            (f"{name}: {part}", span)
            for name in DOMAINS.values()
            for part, span in (("facts of buckets 1 to 4", 4), ("bucket 0", 1))
        ],
        note=f"{WORDS} Mean over training sets; small: its 95 % interval over the sets (t). The percentage is the one "
        "chosen on dev, or the one next to 20 % where dev chose to restore nothing.",
    )


def recovery(view: VariantView, size: int) -> Table | None:
    """Of the facts that tuning lost, the share that restoring recovers; of those it did not, the share undone."""
    groups = view.groups_of(size)
    rows = []
    for group in groups:
        entries = []
        for first, second in (("recovered", "lost"), ("undone", "kept")):
            for bucket in range(5):
                found = _fates(view, group, TEST, (bucket,))
                part, whole = getattr(found, first), getattr(found, first) + getattr(found, second)
                entries.append(Entry(percent(part / whole, 0), below=[f"of {whole:,}"]) if whole else NOTHING)
        rows.append(Row(bucket_name(group.train_bucket), entries))
    if not rows:
        return None
    return Table(
        f"Right and wrong answers that restoring turns over, in domain, {size:,} training facts",
        "trained on",
        [str(bucket) for bucket in range(5)] * 2,
        rows,
        [("wrong after tuning, now right; bucket", 5), ("right after tuning, now wrong; bucket", 5)],
        note="Small: the number of test facts of the bucket that were wrong (or right) after tuning, all training sets "
        "together.",
    )


def by_topic(view: VariantView, size: int) -> Table | None:
    """Fates of the test facts of every topic, all models of one size together."""
    shown = [row for row in shown_rows(view) if row.cell in _cells(view, size)]
    rows = []
    for split, domain in DOMAINS.items():
        topics = sorted({row.topic for row in shown if row.split == split})
        if topics:
            rows.append(Row(domain))
        for topic in topics:
            of = [row for row in shown if (row.split, row.topic) == (split, topic)]
            known, unknown = (_sum(of, buckets) for buckets in (KNOWN, UNKNOWN))
            shares = [_of(getattr(known, name), known.facts) for name in COLOURS]
            rows.append(Row(topic, [*shares, _of(unknown.kept, unknown.facts)]))
    return Table(
        f"Test facts by topic, all models of {size:,} training facts",
        "topic",
        [*COLOURS, "learned"],
        rows,
        [("facts of buckets 1 to 4", 4), ("bucket 0", 1)],
        note="Shares of the answers of all these models together.",
        folded="By topic",
    )


def figure(view: VariantView, size: int) -> str | None:
    """Stacked bars of the fates of in-domain test facts: a block a bucket of the facts, a bar a training bucket."""
    groups = view.groups_of(size)
    bars = {
        (bucket, number): found
        for bucket in range(5)
        for number, group in enumerate(groups)
        if (found := _fates(view, group, TEST, (bucket,))).facts
    }
    if not bars:
        return None
    step = len(groups) + 1
    with drawing(7.4, 3.3) as (drawn, axes):
        for name, colour in COLOURS.items():
            order = list(COLOURS)[: list(COLOURS).index(name)]
            below = [sum(getattr(f, other) for other in order) / f.facts for f in bars.values()]
            heights = [getattr(f, name) / f.facts for f in bars.values()]
            places = [bucket * step + number for bucket, number in bars]
            axes.bar(places, heights, bottom=below, width=0.9, color=colour, label=name)
        axes.set_xticks(
            [bucket * step + number for bucket, number in bars],
            [column_name(groups[number].train_bucket) for _, number in bars],
            fontsize=7,
        )
        for bucket in sorted({bucket for bucket, _ in bars}):
            middle = bucket * step + (len(groups) - 1) / 2
            axes.text(middle, 1.02, f"facts of bucket {bucket}", ha="center", fontsize=8.5, color=INK)
        axes.set_ylim(0, 1.08)
        axes.set_xlabel("trained on bucket", color=FAINT)
        percent_axis(axes)
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        return inline(
            drawn, f"{view.prefix}fates", f"Test facts in domain by what becomes of them, {size:,} facts"
        )


def _words(view: VariantView, size: int) -> str:
    shown = [row for row in shown_rows(view) if row.cell in _cells(view, size) and row.split == TEST]
    known, unknown = (_sum(shown, buckets) for buckets in (KNOWN, UNKNOWN))
    if not known.facts:
        return "No test fact of buckets 1 to 4 was asked."
    turned = known.recovered + known.lost
    text = (
        f"Of the in-domain test facts that the base model completes at least once, {percent(turned / known.facts)} are "
        f"wrong after tuning on {size:,} facts"
    )
    text += f"; restoring recovers {percent(known.recovered / turned)} of these" if turned else ""
    text += f", and undoes {percent(known.undone / known.facts)} of all."
    if unknown.facts:
        text += f" Of the facts of bucket 0, {percent(unknown.kept / unknown.facts)} are learned."
    models = len({row.cell for row in shown})
    return f"{text} {count(models, 'model')} of this size together."


def _share(view: VariantView, group: Group, split: str, name: str, buckets: Collection[int]) -> Entry:
    """Mean over the training sets of the share with one fate, with its t interval over them."""
    parts = [_fates(view, group, split, buckets, cell.cell) for cell in view.groups[group]]
    shares = [getattr(found, name) / found.facts for found in parts if found.facts]
    if not shares:
        return NOTHING
    found = over_sets(shares)
    below = [f"{percent(max(0.0, found.low))} to {percent(min(1.0, found.high))}"] if found else []
    return Entry(percent(fmean(shares)), below=below)


def _fates(
    view: VariantView, group: Group, split: str, buckets: Collection[int], cell: str | None = None
) -> Fates:
    """The fates at the group's percentage of `shown_percents`, of one cell or of all."""
    names = [cell] if cell is not None else [found.cell for found in view.groups[group]]
    at = view.shown_percents[group]
    if at is None:
        return together([])
    keys = ((name, at, split, bucket) for name in names for bucket in buckets)
    return together([view.fates[key] for key in keys if key in view.fates])


def _sum(rows: Iterable[FateRow], buckets: Collection[int]) -> Fates:
    return together([row.fates for row in rows if row.bucket in buckets])


def _of(part: int, whole: int) -> Entry:
    return Entry(percent(part / whole), below=[f"of {whole:,}"]) if whole else NOTHING


def _cells(view: VariantView, size: int) -> set[str]:
    return {cell.cell for group in view.groups_of(size) for cell in view.groups[group]}
