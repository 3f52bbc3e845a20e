"""Does restoring by relative change do more than its controls: other weights, as many or with as much change?"""

from __future__ import annotations

from statistics import fmean

from sftlab.analysis.statistics import BETTER, WORSE
from sftlab.reporting.svg import drawing, inline
from sftlab.reporting.table import Row, Table
from sftlab.reporting.text import count, restored
from sftlab.studies.knowledge.report.figures import percent_axis
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST
from sftlab.studies.knowledge.report.strategies import verdict_entry
from sftlab.studies.knowledge.report.view import View, data_words
from sftlab.studies.knowledge.results.controls import controlled
from sftlab.studies.knowledge.results.rows import CONTROLS, ComparisonRow

# The x axes of the ladders: what is restored as a share of what.
AXES = {
    "weights": "share of the weights restored",
    "l1": "share of the absolute change undone",
    "l2": "share of the squared change undone",
}
_MARKERS, _COLOURS = (
    "os^DvPX*<>",
    ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#555555"),
)


def verdicts(view: View) -> Table | None:
    """The chosen restorations by relative change less each control at the same percentage, in points."""
    rows: dict[tuple[str, str, int, float, str], dict[str, ComparisonRow]] = {}
    for row in view.family(CONTROLS):
        key = (row.variant, row.train_bucket, row.size, row.percent, row.against_variant)
        rows.setdefault(key, {})[row.split] = row
    if not rows:
        return None
    body, block = [], None
    for (variant, bucket, size, at, against), by in rows.items():
        if (variant, bucket, size) != block:
            block = (variant, bucket, size)
            body.append(Row(f"{variant} {restored(at)}, {data_words(bucket, size)}, less"))
        body.append(Row(against, [verdict_entry(by.get(split)) for split in DOMAINS]))
    return Table(
        "Restoring by relative change less its controls, in points",
        "control",
        list(DOMAINS.values()),
        body,
        note="At the percentage that dev chose for the restoration by relative change; on the same questions and "
        "seeds; under each its 95 % interval and the smallest difference that "
        "would have been detected. share_of=l1: equal shares of the absolute change are undone, else equal "
        "shares of the weights are restored.",
    )


def answer(view: View) -> str:
    """One sentence a control: how often the restoration by relative change is better or worse."""
    sentences = []
    for name in dict.fromkeys(row.against_variant for row in view.family(CONTROLS)):
        rows = [row for row in view.family(CONTROLS) if row.against_variant == name]
        better, worse = (sum(row.verdict == word for row in rows) for word in (BETTER, WORSE))
        sentences.append(
            f"Against {name}: better in {better}, worse in {worse} of {count(len(rows), 'test')}."
        )
    return " ".join(["Restoring the largest relative changes is compared with its controls.", *sentences])


def ladders(view: View, axis: str) -> str | None:
    """Accuracy of restorations in domain over what they restore or undo, mean over the groups of training sets."""
    names = dict.fromkeys(
        name for one, others in controlled(view.results.variants).items() for name in (one, *others)
    )
    lines = {name: points for name in names if len(points := _ladder(view, name, axis)) > 1}
    if not lines:
        return None
    with drawing(5.6, 3.6) as (figure, axes):
        for number, (name, points) in enumerate(lines.items()):
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                marker=_MARKERS[number % len(_MARKERS)],
                color=_COLOURS[number % len(_COLOURS)],
                linestyle="--" if "share_of" in name else "-",
                linewidth=1.4,
                ms=4.5,
                label=name,
            )
        percent_axis(axes)
        percent_axis(axes, "x")
        axes.set_xlabel(AXES[axis])
        axes.legend(frameon=False, fontsize=7)
        axes.set_title("Accuracy in domain")
        return inline(figure, f"controls-{axis}", f"Accuracy in domain by {AXES[axis]}")


def _ladder(view: View, name: str, axis: str) -> list[tuple[float, float]]:
    variant = view.view(name)
    found = []
    for at in variant.percents:
        scores = [row.mean for group in variant.groups if (row := view.score(name, group, at, TEST))]
        shares = [getattr(row, axis) for row in variant.variant.undone if row.percent == at]
        if scores and (shares or not at):
            found.append((fmean(shares) if shares else 0.0, fmean(scores)))
    return sorted(found)
