"""The ceiling of the base model: how many answers it gives where examples show it the form of an answer."""

from __future__ import annotations

from statistics import fmean

from sftlab.reporting.section import Section, present
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, percent
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, VariantView
from sftlab.studies.knowledge.report.view import View

COLUMNS = (0, 1, 2, 3, 4, None)  # buckets, and their mean


def section(view: View) -> Section | None:
    """The section of the main variant; None where the base model was not asked with examples."""
    main = view.main
    if main is None or not main.variant.few_shot:
        return None
    return Section(
        "few-shot",
        "What the base model answers after examples",
        _words(main),
        tables=present(*(by_bucket(main, split) for split in DOMAINS)),
        data=("few_shot",),
    )


def by_bucket(view: VariantView, split: str) -> Table | None:
    """Accuracy of the base model alone and after examples, and of the tuned models of every size."""
    shots = [row for row in view.variant.few_shot if row.split == split]
    if not shots:
        return None
    after = {row.bucket: row.accuracy for row in shots}
    rows = [
        Row("base model, question alone", [_entry(view.base(split, bucket)) for bucket in COLUMNS]),
        Row(
            f"base model, after {count(shots[0].shots, 'example')}",
            [_entry(after.get(bucket)) for bucket in COLUMNS],
        ),
    ]
    for size in view.sizes:
        found = [_tuned(view, size, split, bucket) for bucket in COLUMNS]
        rows.append(Row(f"tuned on {size:,} facts, all models", list(map(_entry, found))))
    asked = next(row.questions for row in shots if row.bucket is None)
    return Table(
        f"Accuracy of the base model with and without examples, {DOMAINS[split]}",
        "model",
        [*(f"bucket {bucket}" for bucket in COLUMNS if bucket is not None), "mean"],
        rows,
        note=f"{asked:,} questions after examples: those of topics that have enough other facts. Nothing is restored.",
    )


def _words(view: VariantView) -> str:
    means = {row.split: row for row in view.variant.few_shot if row.bucket is None}
    row = means.get(TEST) or next(iter(means.values()))
    alone = view.base(row.split)
    words = (
        f"With {count(row.shots, 'solved question')} of the topic before each question, the base model answers "
        f"{percent(row.accuracy)} right {DOMAINS[row.split]}"
    )
    words += f", and {percent(alone)} without." if alone is not None else "."
    return (
        f"{words} Nothing was trained, so this is what the base model can express of its knowledge in this form: a "
        "tuned model below it has lost answers."
    )


def _tuned(view: VariantView, size: int, split: str, bucket: int | None) -> float | None:
    found = [
        row.accuracy
        for group in view.groups_of(size)
        for cell in view.groups[group]
        if (row := view.row(cell.cell, 0.0, split, bucket)) is not None
    ]
    return fmean(found) if found else None


def _entry(value: float | None) -> Entry:
    return NOTHING if value is None else Entry(percent(value))
