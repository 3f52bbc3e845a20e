"""Mastery after tuning and restoring: wrong answers to facts that a model still completes, and to facts it does not."""

from __future__ import annotations

from collections.abc import Sequence

from sftlab.reporting.section import Section, present
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import number, percent, restored
from sftlab.studies.knowledge.report.buckets import bucket_name
from sftlab.studies.knowledge.report.figures import LadderBlocks, ladder_blocks
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, Group, VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import MasteryAfterRow

KNOWN = (1, 2, 3, 4)  # buckets of facts that the base model completes at least once
PARTS = {
    "right": ("right", "#0072B2"),
    "wrong_known": ("wrong, still completed", "#E69F00"),
    "wrong_unknown": ("wrong, never completed", "#D55E00"),
}


def section(view: View) -> Section | None:
    """The section of the main variant; None where no mastery was scored after tuning."""
    main = view.main
    if main is None or not main.variant.mastery_after:
        return None
    size = max((size for size in main.sizes if _percents(main, size)), default=main.sizes[-1])
    return Section(
        "mastery-after",
        "Mastery after tuning",
        _words(main, size),
        present(figure(main, size)),
        present(by_group(main), by_bucket(main, size)),
        data=("mastery_after",),
    )


def by_group(view: VariantView) -> Table | None:
    """Facts that the base model completes, by what became of them: for every group, percentage and domain."""
    rows = []
    for size in view.sizes:
        found = []
        for group in view.groups_of(size):
            for at in _percents(view, size):
                entries = [entry for split in DOMAINS for entry in _entries(_rows(view, [group], at, split))]
                if any(entry is not NOTHING for entry in entries):
                    name = "tuned" if not at else f"{restored(at)} restored"
                    found.append(Row(f"{bucket_name(group.train_bucket)}, {name}", entries))
        rows += [Row(f"{size:,} training facts"), *found] if found else []
    if not rows:
        return None
    return Table(
        "Test facts that the base model completes at least once, after tuning",
        "trained on",
        ["base R", "R", *(name for name, _ in PARTS.values()), "lower bucket"] * len(DOMAINS),
        rows,
        [(name, len(PARTS) + 3) for name in DOMAINS.values()],
        note="Mastery is scored with the mapping templates, which need no form of answers. Wrong, still completed: the "
        "question is answered wrong, and at least one completion of the same model holds the answer, so the fact is "
        "not lost entirely. Such a completion can also be a guess where a topic has few answers. Wrong, never "
        "completed: the fact is not found by this measure; a fact of bucket 1 can be without a hit by chance. Shares "
        "over all training sets.",
    )


def by_bucket(view: VariantView, size: int) -> Table | None:
    """The same in domain by bucket, all models of one size together; of bucket 0 it shows what is learned."""
    groups = view.groups_of(size)
    rows = []
    for at in _percents(view, size):
        rows.append(Row("tuned" if not at else f"{restored(at)} restored"))
        for bucket in range(5):
            found = _rows(view, groups, at, TEST, (bucket,))
            if found:
                facts = sum(row.facts for row in found)
                rows.append(Row(f"facts of bucket {bucket}", [Entry(f"{facts:,}"), *_entries(found)]))
    if not rows:
        return None
    return Table(
        f"By bucket of the fact, in domain, all models of {size:,} training facts",
        "bucket",
        ["facts", "base R", "R", *(name for name, _ in PARTS.values()), "lower bucket"],
        rows,
        folded="By bucket",
    )


def figure(view: VariantView, size: int) -> str | None:
    """Stacked bars of what became of known in-domain facts: a block a group, a bar a percentage."""
    groups, steps = view.groups_of(size), _percents(view, size)
    bars = {
        (number, place): found
        for number, group in enumerate(groups)
        for place, at in enumerate(steps)
        if (found := _rows(view, [group], at, TEST))
    }
    if not bars:
        return None
    shares = {
        label: (colour, [_share(found, name) for found in bars.values()])
        for name, (label, colour) in PARTS.items()
    }
    blocks = LadderBlocks([bucket_name(group.train_bucket) for group in groups], steps, list(bars), shares)
    return ladder_blocks(
        blocks, f"{view.prefix}mastery-after", f"Known facts after tuning, {size:,} training facts"
    )


def _words(view: VariantView, size: int) -> str:
    groups = view.groups_of(size)
    at = min(_percents(view, size), default=0.0)
    found = _rows(view, groups, at, TEST)
    if not found:
        return "No in-domain test fact that the base model completes was scored again."
    wrong = _share(found, "wrong_known") + _share(found, "wrong_unknown")
    state = "tuning" if not at else f"restoring {restored(at)}"
    text = (
        f"Of the in-domain test facts that the base model completes at least once, {percent(wrong)} are answered "
        f"wrong after {state} on {size:,} facts."
    )
    if wrong:
        text += (
            f" Of these, the same models still complete {percent(_share(found, 'wrong_known') / wrong)} at least once "
            "with a mapping template, so these facts are not lost entirely."
        )
    return f"{text} Their mean R goes from {number(_mean(found, 'base_r'), 3)} to {number(_mean(found, 'r'), 3)}."


def _entries(rows: Sequence[MasteryAfterRow]) -> list[Entry]:
    if not rows:
        return [NOTHING] * (len(PARTS) + 3)
    shares = [_share(rows, name) for name in (*PARTS, "lower")]
    means = [Entry(number(_mean(rows, kind), 3)) for kind in ("base_r", "r")]
    return [*means, *(Entry(percent(share)) for share in shares)]


def _rows(
    view: VariantView, groups: Sequence[Group], at: float, split: str, buckets: Sequence[int] = KNOWN
) -> list[MasteryAfterRow]:
    cells = {cell.cell for group in groups for cell in view.groups[group]}
    return [
        row
        for row in view.variant.mastery_after
        if row.cell in cells and (row.percent, row.split) == (at, split) and row.bucket in buckets
    ]


def _percents(view: VariantView, size: int) -> list[float]:
    """The percentages of the models of one size that are scored; runs may have chosen others."""
    cells = {cell.cell for cell in view.variant.cells if cell.size == size}
    return sorted({row.percent for row in view.variant.mastery_after if row.cell in cells})


def _share(rows: Sequence[MasteryAfterRow], name: str) -> float:
    """Of the facts, those of one of PARTS, or in a lower bucket."""
    parts = {"right": ("right_known", "right_unknown")}.get(name, (name,))
    found: int = sum(getattr(row, part) for row in rows for part in parts)
    facts: int = sum(row.facts for row in rows)
    return found / facts


def _mean(rows: Sequence[MasteryAfterRow], kind: str) -> float:
    """Over the facts."""
    total: float = sum(row.facts * getattr(row, kind) for row in rows)
    return total / sum(row.facts for row in rows)
