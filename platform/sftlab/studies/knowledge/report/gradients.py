"""Why some facts do more harm: gradients of facts at the base model, and what they predict of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from sftlab.analysis.accuracy import Interval
from sftlab.analysis.statistics import over_sets
from sftlab.facts.mastery import BUCKETS
from sftlab.reporting.section import Section, present
from sftlab.reporting.svg import FAINT, drawing, inline
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import between, number, percent, plus_minus, restored
from sftlab.studies.knowledge.report.buckets import bucket_colour, bucket_marker, bucket_name
from sftlab.studies.knowledge.report.lookup import DOMAINS, Group, VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.gradient_rows import PREDICTORS, ForgettingRow, GradientRow

WHOLE = ("all", "all")
PREDICTOR_NAMES = {
    "update": "true update",
    "training": "training gradients",
    "shuffled": "update shuffled",
    "loss": "loss before",
    "norm": "gradient norm",
}


def section(view: View) -> Section | None:
    """The section of the main variant; None where no gradient was measured."""
    main = view.main
    if main is None or not main.variant.gradients:
        return None
    size = main.sizes[-1]
    return Section(
        "gradients",
        "Why some facts do more harm: gradients at the base model",
        _words(main, size),
        present(by_layer(main), separation(main, size)),
        present(by_bucket(main), forgetting(main), on_restored(main), cosines_by(main, "module")),
        data=("gradients", "restored_gradients", "forgetting"),
        legend=True,
    )


def by_bucket(view: VariantView) -> Table:
    """Norm and cosine of the whole gradient, by bucket of the fact."""
    rows = [
        Row(
            bucket_name(str(row.bucket)),
            [
                Entry(f"{row.facts:,}"),
                _with_error(row.norm, row.norm_error, 1),
                NOTHING if row.cosine is None else _with_error(row.cosine, row.cosine_error, 3),
            ],
        )
        for row in _of(view, WHOLE)
    ]
    return Table(
        "Gradients of test facts in domain at the base model",
        "facts of",
        ["facts", "L2 norm", "cosine with well-mastered facts"],
        rows,
        note="Gradient of the summed cross-entropy of the answer, over all parameters. Cosine: with the mean gradient "
        "of the facts of bucket 4, without the fact itself. Mean over facts \N{PLUS-MINUS SIGN} one standard error.",
    )


def cosines_by(view: VariantView, kind: str) -> Table:
    """The cosine by layer or module, a column a bucket."""
    names = list(dict.fromkeys(row.name for row in view.variant.gradients if row.kind == kind))
    rows = []
    for name in names:
        found = {row.bucket: row for row in _of(view, (kind, name))}
        entries = [
            NOTHING
            if (row := found.get(bucket)) is None or row.cosine is None
            else Entry(number(row.cosine, 3))
            for bucket in BUCKETS
        ]
        rows.append(Row(name, entries))
    return Table(
        f"Cosine with the mean gradient of well-mastered facts by {kind}",
        kind,
        [str(bucket) for bucket in BUCKETS],
        rows,
        [("facts of bucket", len(BUCKETS))],
        folded=f"By {kind}",
    )


def on_restored(view: VariantView) -> Table | None:
    """Share of the squared gradient on restored weights, a row a group of training sets, a column a bucket of facts."""
    whole = [row for row in view.variant.restored_gradients if (row.kind, row.name) == WHOLE]
    if not whole:
        return None
    rows = []
    for group, cells in view.groups.items():
        names = {cell.cell for cell in cells}
        mine = [row for row in whole if row.cell in names]
        entries = [
            _share([row.share for row in mine if row.bucket == bucket and row.share is not None])
            for bucket in BUCKETS
        ]
        rows.append(
            Row(_name(group), [*entries, _share(list({row.cell: row.weights for row in mine}.values()))])
        )
    return Table(
        f"Share of the squared gradient of test facts on weights that restoring {restored(whole[0].percent)} resets",
        "trained on",
        [*map(str, BUCKETS), "of the weights"],
        rows,
        [("facts of bucket", len(BUCKETS)), ("", 1)],
        note="The last column is the share of the weights that is reset: what weights at random would hold. Mean over "
        "facts and training sets.",
    )


def forgetting(view: VariantView) -> Table | None:
    """AUC of every predictor by group of training sets, in domain and out of domain."""
    if not view.variant.forgetting:
        return None
    rows = []
    for split, domain in DOMAINS.items():
        found = [row for row in view.variant.forgetting if row.split == split]
        if not found:
            continue
        rows.append(Row(domain))
        for group in view.groups:
            mine = _rows(view, group, split)
            forgotten = _rows(view, group, split)["update"]
            share = [row.forgotten / row.facts for row in forgotten if row.facts]
            entries = [_area(mine[name]) for name in PREDICTORS]
            rows.append(Row(_name(group), [_share(share), *entries]))
    return Table(
        "Which well-mastered test facts are forgotten: area under the ROC curve of first-order predictions",
        "trained on",
        ["forgotten", *(PREDICTOR_NAMES[name] for name in PREDICTORS)],
        rows,
        note="A well-mastered fact (bucket 4) is forgotten if the tuned model answers it wrong. True update: the "
        "gradient of the fact times s - p. Training gradients: the gradient of the fact times those of the training "
        "set, with the learning rates (TracIn at the base model). Null: the update shuffled within each tensor. 0.5 is "
        "chance. Small print: 95 % interval over training sets, of a single set over facts.",
    )


def by_layer(view: VariantView) -> str | None:
    """The cosine with well-mastered facts over the layers, a line a bucket of facts."""
    names = sorted(
        {row.name for row in view.variant.gradients if row.kind == "layer" and row.name.isdecimal()}, key=int
    )
    if not names:
        return None
    from matplotlib.ticker import MaxNLocator

    with drawing() as (figure, axes):
        for bucket in map(str, BUCKETS):
            found = {
                int(name): row.cosine
                for name in names
                for row in _of(view, ("layer", name))
                if str(row.bucket) == bucket and row.cosine is not None
            }
            axes.plot(
                list(found),
                list(found.values()),
                color=bucket_colour(bucket),
                marker=bucket_marker(bucket),
                mew=0,
            )
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title("Cosine with the gradient of well-mastered facts")
        return inline(figure, "gradients-layers", "Cosine of gradients with well-mastered facts by layer")


def separation(view: VariantView, size: int) -> str | None:
    """AUC of the true update (filled) and of its null (hollow) by training bucket, in domain."""
    groups = view.groups_of(size)
    found = [
        (at, group, name, interval)
        for at, group in enumerate(groups)
        for name in ("update", "shuffled")
        if (interval := _interval(_rows(view, group, "test")[name])) is not None
    ]
    if not found:
        return None
    with drawing() as (figure, axes):
        axes.axhline(0.5, color=FAINT, linewidth=1, linestyle=":")
        for at, group, name, (value, low, high) in found:
            x = at if name == "update" else at + 0.22
            colour = bucket_colour(group.train_bucket)
            axes.plot([x, x], [low, high], color=colour, linewidth=1)
            axes.plot(
                [x],
                [value],
                color=colour,
                marker=bucket_marker(group.train_bucket),
                mew=1.2,
                mfc=colour if name == "update" else "none",
            )
        axes.set_xticks(range(len(groups)), [group.train_bucket for group in groups])
        axes.set_xlabel("trained on bucket")
        axes.set_ylim(0, 1)
        axes.set_title(f"AUC of forgotten facts, {size:,} facts; hollow: shuffled")
        return inline(figure, "gradients-forgetting", "Area under the ROC curve of predicted forgetting")


def _words(view: VariantView, size: int) -> str:
    whole = {row.bucket: row for row in _of(view, WHOLE)}
    unknown, known = whole.get(0), whole.get(4)
    text = ""
    if unknown is not None and known is not None and known.norm:
        text = (
            f"The gradients of facts of bucket 0 are {number(unknown.norm / known.norm, 2)} times as long as those of "
            "bucket 4."
        )
        if unknown.cosine is not None and known.cosine is not None:
            text += (
                f" Their cosine with the mean gradient of well-mastered facts is {number(unknown.cosine, 2)} "
                f"(standard error {number(unknown.cosine_error or 0.0, 2)}), that of other well-mastered facts "
                f"{number(known.cosine, 2)} ({number(known.cosine_error or 0.0, 2)})."
            )
    areas = [
        tuple(row.auc for row in (mine["update"][at], mine["shuffled"][at]))
        for group in view.groups_of(size)
        for mine in (_rows(view, group, "test"),)
        for at in range(min(len(mine["update"]), len(mine["shuffled"])))
    ]
    pairs = [(real, null) for real, null in areas if real is not None and null is not None]
    if pairs:
        real, null = (fmean(values) for values in zip(*pairs, strict=True))
        text += (
            f" After training on {size:,} facts the true update predicts to first order which well-mastered test facts "
            f"are forgotten, with an area under the curve of {number(real, 2)} (mean over {len(pairs)} models; "
            f"shuffled updates {number(null, 2)}, chance 0.50)."
        )
    return text.strip()


def _of(view: VariantView, part: tuple[str, str]) -> list[GradientRow]:
    found = [row for row in view.variant.gradients if (row.kind, row.name) == part]
    return sorted(found, key=lambda row: row.bucket)


def _rows(view: VariantView, group: Group, split: str) -> Mapping[str, list[ForgettingRow]]:
    """The rows of a group's training sets, by predictor."""
    names = {cell.cell for cell in view.groups[group]}
    mine = [row for row in view.variant.forgetting if row.cell in names and row.split == split]
    return {name: [row for row in mine if row.predictor == name] for name in PREDICTORS}


def _interval(rows: Sequence[ForgettingRow]) -> Interval | None:
    """Mean AUC with its interval over training sets; of a single one that over facts."""
    values = [row.auc for row in rows if row.auc is not None]
    if not values:
        return None
    sets = over_sets(values)
    if sets is not None:
        return Interval(sets.mean, max(0.0, sets.low), min(1.0, sets.high))
    row = next(row for row in rows if row.auc is not None)
    low, high = (values[0] if end is None else end for end in (row.low, row.high))
    return Interval(values[0], low, high)


def _area(rows: Sequence[ForgettingRow]) -> Entry:
    found = _interval(rows)
    if found is None:
        return NOTHING
    value, low, high = found
    return Entry(number(value, 2), note=between(number(low, 2), number(high, 2)))


def _share(values: Sequence[float]) -> Entry:
    return Entry(percent(fmean(values))) if values else NOTHING


def _with_error(value: float, error: float | None, digits: int) -> Entry:
    return Entry(plus_minus(number(value, digits), None if error is None else number(error, digits)))


def _name(group: Group) -> str:
    return f"{bucket_name(group.train_bucket)}, {group.size:,} facts"
