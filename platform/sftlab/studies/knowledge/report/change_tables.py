"""Where the change of the weights is, compared with the paper and with the null of shuffled updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import number, percent, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import bucket_name
from sftlab.studies.knowledge.report.evidence import (
    beyond_null,
    distribution,
    is_beyond_null,
    null_distribution,
    weight_shares,
)
from sftlab.studies.knowledge.report.lookup import Group, VariantView
from sftlab.studies.knowledge.report.tables import EVEN, SMALL, beside_words, direction, mean
from sftlab.studies.knowledge.report.view import View, paper_size
from sftlab.studies.knowledge.results.rows import ConcentrationRow

OPEN_BY_NULL = "Open where shuffled updates give the same."


def concentration(view: View) -> Table | None:
    """Share of all relative change held by the most changed weights (Table 3)."""
    main = view.main
    if main is None or not main.variant.concentration:
        return None
    published_table = published.published()["update_concentration"]
    tops = sorted({r.top_percent for r in main.variant.concentration})
    rows = []
    for size in main.sizes:
        rows.append(Row(beside_words(size, main.sizes)))
        beside = paper_size(size, main.sizes)
        for bucket in main.train_buckets:
            names = {cell.cell for cell in main.groups.get(Group(bucket, size), [])}
            known: dict[float, float] = {}
            if beside is not None and bucket.isdecimal():
                shares = published_table["by_train_size"][str(beside)][int(bucket)]
                known = dict(zip(map(float, published_table["top_share_percent"]), shares, strict=True))
            entries = []
            for top in tops:
                found = [r for r in main.variant.concentration if r.cell in names and r.top_percent == top]
                entries.append(_share_entry(found, known.get(top)))
            rows.append(Row(bucket_name(bucket), entries))
    return Table(
        "Share in % of all relative change held by the most changed weights (the paper's Table 3)",
        "trained on",
        [restored(top) for top in tops],
        rows,
        [("top share of weights", len(tops))],
        note=f"Mean over training sets. {SMALL}; then the share with the updates of each matrix shuffled. Mark: more "
        f"or less than half of all change. {OPEN_BY_NULL}",
    )


def _share_entry(found: Sequence[ConcentrationRow], theirs: float | None) -> Entry:
    if not found:
        return NOTHING
    ours, nulls = mean(r.share for r in found), [r.null for r in found if r.null is not None]
    below = [number(theirs)] if theirs is not None else []
    below += [f"shuffled {number(100 * mean(nulls))}"] if nulls else []
    mark = direction(ours - 0.5, ours - 0.5, theirs - 50) if theirs is not None else ""
    return Entry(
        number(100 * ours),
        below=below,
        mark=_or_open(mark, beyond_null([(r.cell, r.share, r.null) for r in found], above=True)),
    )


def _or_open(mark: str, beyond: bool) -> str:
    """A mark on where the change is; it is open where shuffled updates give the same."""
    return mark if beyond or not mark else "open"


def undone(view: View) -> Table | None:
    """Share of the total change that every percentage takes back."""
    main = view.main
    if main is None or not main.variant.undone:
        return None
    rows = []
    for at in sorted({row.percent for row in main.variant.undone if row.percent}):
        found = [row for row in main.variant.undone if row.percent == at]
        kinds = ("weights", "relative", "l1", "l2")
        entries = [Entry(percent(mean(getattr(row, kind) for row in found))) for kind in kinds]
        rows.append(Row(restored(at), [replace(entry, chosen=at == main.common) for entry in entries]))
    return Table(
        "Share of the total change that restoring undoes",
        "restored",
        ["weights", "relative change", "absolute change", "squared change"],
        rows,
        note="Of all weights of the region, mean over the fine-tuned models: sums of r = |s - p| / |p|, of |s - p| and "
        "of (s - p)\N{SUPERSCRIPT TWO}. Ringed: the percentage chosen for all models.",
    )


def layers(view: View) -> Table | None:
    """Restored weights by layer (Table 9), compared with the paper's layers of the same depth."""
    ours = distribution(view.main, "layer") if view.main else []
    if not ours:
        return None
    paper = published.layer_shares()
    nulls = null_distribution(view.main, "layer") if view.main else {}
    rows = []
    for index, (name, share) in enumerate(ours):
        first, last = (round(at * len(paper) / len(ours)) for at in (index, index + 1))
        span = paper[first : max(last, first + 1)]
        even = _even_entry(share, len(ours), mean(span) * len(paper))
        if view.main is not None and name in nulls:
            below = [*even.below, f"shuffled {number(nulls[name] * len(ours), 2)}"]
            beyond = is_beyond_null(view.main, "layer", {name}, above=share * len(ours) > 1)
            even = replace(even, below=below, mark=_or_open(even.mark, beyond))
        else:
            even = replace(even, mark=_or_open(even.mark, beyond=False))
        rows.append(Row(name, [Entry(percent(share, 2)), even]))
    return Table(
        "Restored weights by layer, and as a multiple of an even share (the paper's Table 9)",
        "layer",
        ["share", "of an even share"],
        rows,
        note=f"{SMALL}, mean of the layers of the same depth; then with the updates of each matrix shuffled. Mark: "
        f"more or less than an even share. {OPEN_BY_NULL}",
        folded=f"All {len(ours)} layers" if len(ours) > 12 else "",
    )


def modules(view: View) -> Table | None:
    """Restored weights by kind of module (Table 10)."""
    ours = dict(distribution(view.main, "module")) if view.main else {}
    if not ours:
        return None
    paper, paper_all = published.module_shares(), published.weight_shares()
    ours_all = weight_shares(view.main) if view.main else {}
    nulls = null_distribution(view.main, "module") if view.main else {}
    rows = []
    for name in [*ours, *(name for name in paper if name not in ours)]:
        share, theirs = ours.get(name), paper.get(name)
        below = [percent(theirs)] if theirs is not None else []
        if share is None:
            rows.append(Row(name, [Entry("–", below=below), _of_all(name, ours_all, paper_all)]))
            continue
        mark = ""
        if name in ours_all:
            away = share / ours_all[name] - 1
            known = theirs / paper_all[name] - 1 if theirs is not None else None
            mark = direction(away - EVEN, away + EVEN, known)
        if view.main is not None:
            above = share > ours_all[name] if name in ours_all else None
            mark = _or_open(mark, is_beyond_null(view.main, "module", {name}, above))
        below += [f"shuffled {percent(nulls[name])}"] if name in nulls else []
        entry = Entry(percent(share), below=below, mark=mark)
        rows.append(Row(name, [entry, _of_all(name, ours_all, paper_all)]))
    return Table(
        "Restored weights by kind of module (the paper's Table 10), and the kind's share of all weights",
        "module",
        ["of the restored", "of all"],
        rows,
        note=f"{SMALL}; then with the updates of each matrix shuffled. Mark: more or less than the kind's share of all "
        f"weights. {OPEN_BY_NULL}",
    )


def _of_all(name: str, ours: Mapping[str, float], paper: Mapping[str, float]) -> Entry:
    below = [percent(paper[name])] if name in paper else []
    return Entry(percent(ours[name]) if name in ours else "–", below=below)


def _even_entry(share: float, parts: int, paper: float) -> Entry:
    ratio = share * parts
    mark = direction(ratio - 1 - EVEN, ratio - 1 + EVEN, paper - 1)
    return Entry(number(ratio, 2), below=[number(paper, 2)], mark=mark)


def undone_words(main: VariantView) -> str:
    """What the percentage chosen for all models takes back of the change; '' where it restores nothing."""
    found = [row for row in main.variant.undone if row.percent and row.percent == main.common]
    if not found:
        return ""
    relative, l1, l2 = (
        percent(mean(getattr(row, kind) for row in found)) for kind in ("relative", "l1", "l2")
    )
    return (
        f"Restoring {restored(found[0].percent)}, the percentage chosen for all models, undoes {relative} of the "
        f"relative change, {l1} of the absolute and {l2} of the squared change."
    )
