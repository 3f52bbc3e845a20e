"""How large the updates are: by training bucket and size, layer and module, with the gradients' norms by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from sftlab.analysis.statistics import over_sets
from sftlab.reporting.section import Section, present
from sftlab.reporting.svg import drawing, inline
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import number, percent, plus_minus
from sftlab.studies.knowledge.report.buckets import bucket_colour, bucket_marker, bucket_name, column_name
from sftlab.studies.knowledge.report.figures import percent_axis
from sftlab.studies.knowledge.report.lookup import Group, VariantView, spread
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import UpdateRow

WHOLE = ("all", "all")


def section(view: View) -> Section | None:
    """The section of the main variant; None where no update was measured."""
    main = view.main
    if main is None or not main.variant.updates:
        return None
    size = main.sizes[-1]
    return Section(
        "updates",
        "How large the updates are",
        _words(main, size),
        present(by_depth(main, size), gradients(main, size)),
        present(by_group(main), parts(main, size, "module"), parts(main, size, "layer")),
        data=("updates", "training"),
        legend=True,
    )


def by_group(view: VariantView) -> Table | None:
    """The update of all parameters, and the mean gradient norm, for every group of training sets."""
    columns: dict[str, Callable[[Group], Entry]] = {
        "weights changed": lambda group: _percents([row.changed for row in _rows(view, group)], 2),
        "L1": lambda group: _numbers([row.l1 for row in _rows(view, group)]),
        "L2": lambda group: _numbers([row.l2 for row in _rows(view, group)]),
        "L2 of the base's": lambda group: _percents(
            [row.relative_l2 for row in _rows(view, group) if row.relative_l2 is not None], 3
        ),
        "mean r": lambda group: _numbers([row.relative for row in _rows(view, group)]),
        "gradient norm": lambda group: _numbers(_norms(view, group)),
    }
    rows = []
    for size in view.sizes:
        rows.append(Row(f"{size:,} training facts"))
        for group in view.groups_of(size):
            rows.append(Row(bucket_name(group.train_bucket), [entry(group) for entry in columns.values()]))
    return Table(
        "Size of the update of all parameters",
        "trained on",
        list(columns),
        rows,
        note="With the base weight p and the tuned weight s. L1: sum of |s - p|. L2: root of the sum of "
        "(s - p)\N{SUPERSCRIPT TWO}, and as a share of that of p. r = |s - p| / (|p| + 1e-8). Gradient norm: mean over "
        "the steps, before clipping. Mean over training sets \N{PLUS-MINUS SIGN} one standard deviation.",
    )


def parts(view: VariantView, size: int, kind: str) -> Table | None:
    """Relative L2 norm of the update by layer or module, a column a training bucket."""
    groups = view.groups_of(size)
    names = list(dict.fromkeys(row.name for row in view.variant.updates if row.kind == kind))
    if not names:
        return None
    rows = []
    for name in names:
        found = [_rows(view, group, (kind, name)) for group in groups]
        entries = [
            _percents([row.relative_l2 for row in of if row.relative_l2 is not None], 3) for of in found
        ]
        rows.append(Row(name, entries))
    return Table(
        f"L2 norm of the update as a share of the base's by {kind}, {size:,} training facts",
        kind,
        [column_name(group.train_bucket) for group in groups],
        rows,
        [("trained on bucket", len(groups))],
        folded="" if kind == "module" else f"All {len(names)} layers",
    )


def by_depth(view: VariantView, size: int) -> str | None:
    """Relative L2 norm of the update over the layers, a line a training bucket."""
    names = sorted(
        {row.name for row in view.variant.updates if row.kind == "layer" and row.name.isdecimal()}, key=int
    )
    if not names:
        return None
    from matplotlib.ticker import MaxNLocator

    with drawing() as (figure, axes):
        for group in view.groups_of(size):
            found = [_rows(view, group, ("layer", name)) for name in names]
            values = [
                fmean([row.relative_l2 for row in of if row.relative_l2 is not None]) for of in found if of
            ]
            axes.plot(
                [int(name) for name, of in zip(names, found, strict=True) if of],
                values,
                color=bucket_colour(group.train_bucket),
                marker=bucket_marker(group.train_bucket),
                mew=0,
            )
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        percent_axis(axes)
        axes.set_title(f"||s \N{MINUS SIGN} p|| / ||p|| by layer, {size:,} facts")
        return inline(figure, "updates-layers", "Relative L2 norm of the update by layer")


def gradients(view: VariantView, size: int) -> str | None:
    """Norm of the gradients over the steps, mean over the training sets, a line a training bucket."""
    curves = {group: curve for group in view.groups_of(size) if (curve := _curve(view, group))}
    if not curves:
        return None
    with drawing() as (figure, axes):
        for group, curve in curves.items():
            axes.plot(
                list(curve), list(curve.values()), color=bucket_colour(group.train_bucket), linewidth=1.3
            )
        axes.set_xlabel("optimizer step")
        axes.set_ylim(bottom=0)
        axes.set_title(f"Gradient norm before clipping, {size:,} facts")
        return inline(figure, "updates-gradients", "Norm of the gradients over optimizer steps")


def _words(view: VariantView, size: int) -> str:
    found = {
        group: fmean(values)
        for group in view.groups_of(size)
        if (values := [row.l2 for row in _rows(view, group)])
    }
    (low, smallest), (high, largest) = (
        pick((value, group) for group, value in found.items()) for pick in (min, max)
    )
    text = (
        f"After training on {size:,} facts the L2 norm of the update of all parameters reaches from {number(low, 3)} "
        f"({bucket_name(smallest.train_bucket)}) to {number(high, 3)} ({bucket_name(largest.train_bucket)})."
    )
    ratios = _ratios(view, size)
    if not ratios:
        return text
    text += f" That of bucket 0 is {number(fmean(ratios), 2)} times that of bucket 4"
    if (interval := over_sets(ratios)) is not None:
        ends = f"{number(interval.low, 2)} to {number(interval.high, 2)}"
        text += f" (95 % interval over {len(ratios)} training sets: {ends})"
    return f"{text}."


def _ratios(view: VariantView, size: int) -> list[float]:
    """L2 norm of the update after training on bucket 0 by that on bucket 4, for every seed that both have."""
    norms = []
    for bucket in ("0", "4"):
        seeds = {cell.cell: cell.set_seed for cell in view.groups.get(Group(bucket, size), [])}
        norms.append({seeds[row.cell]: row.l2 for row in _rows(view, Group(bucket, size))})
    unknown, known = norms
    return [unknown[seed] / known[seed] for seed in sorted(unknown.keys() & known.keys()) if known[seed]]


def _rows(view: VariantView, group: Group, of: tuple[str, str] = WHOLE) -> list[UpdateRow]:
    """The rows of a layer, a module or all parameters, one a training set."""
    names = [cell.cell for cell in view.groups.get(group, [])]
    return [view.updates[name, *of] for name in names if (name, *of) in view.updates]


def _norms(view: VariantView, group: Group) -> list[float]:
    """Mean gradient norm over the steps, one a training set."""
    found = [view.gradient_norms.get(cell.cell, {}) for cell in view.groups[group]]
    return [fmean(norms.values()) for norms in found if norms]


def _curve(view: VariantView, group: Group) -> dict[int, float]:
    """Mean gradient norm over the training sets by step, of the steps that all of them have."""
    found = [norms for cell in view.groups[group] if (norms := view.gradient_norms.get(cell.cell))]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    return {step: fmean(norms[step] for norms in found) for step in steps}


def _numbers(values: Sequence[float]) -> Entry:
    found = spread(values)
    if found is None:
        return NOTHING
    digits = 3 if found.mean < 100 else 0
    deviation = None if found.deviation is None else number(found.deviation, digits)
    return Entry(plus_minus(number(found.mean, digits), deviation))


def _percents(values: Sequence[float], digits: int) -> Entry:
    found = spread(values)
    if found is None:
        return NOTHING
    deviation = None if found.deviation is None else percent(found.deviation, digits)
    return Entry(plus_minus(percent(found.mean, digits), deviation))
