"""Figures over all variants: strategies side by side, and KL against accuracy over all tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Literal, NamedTuple

from sftlab.reporting.svg import FAINT, INK, drawing, inline
from sftlab.studies.knowledge.report.buckets import BUCKET_COLOURS, bucket_colour, bucket_marker
from sftlab.studies.knowledge.report.figures import percent_axis, size_axis, titled
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, Group, VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import ChoiceRow

if TYPE_CHECKING:
    from matplotlib.ticker import MaxNLocator

CHOSEN_COLOUR, TUNED_COLOUR = BUCKET_COLOURS["4"], "#8894a0"


def strategies(
    view: View, rows: Sequence[ChoiceRow], scope: Literal["variant", "strategy"], split: str
) -> str | None:
    """Every variant's or strategy's best setting with its interval; hollow: plain fine-tuning on the same data."""
    found = [(row, score) for row in rows if (score := view.of_choice(row, split))]
    if not found:
        return None
    names = [fill(getattr(row, scope), 20, break_long_words=False) for row, _ in found]
    heights = [max(1.0, 0.5 * len(name.splitlines())) for name in names]  # two lines fit in a row
    ends = list(accumulate(heights))
    places = [(above + below) / 2 - 0.5 for above, below in pairwise([0.0, *ends])]
    with drawing(4.7, 0.85 + 0.36 * ends[-1]) as (figure, axes):
        for y, (row, score) in zip(places, found, strict=True):
            plain = view.plain_score(row, split)
            if plain is not None:
                axes.plot([plain.low, plain.high], [y + 0.16] * 2, color=TUNED_COLOUR, linewidth=1.2)
                axes.plot([plain.mean], [y + 0.16], "o", mfc="white", mec=TUNED_COLOUR, ms=5.5)
            axes.plot([score.low, score.high], [y - 0.1] * 2, color=CHOSEN_COLOUR, linewidth=2)
            axes.plot([score.mean], [y - 0.1], "o", color=CHOSEN_COLOUR, ms=7)
        axes.set_yticks(places, names, color=INK)
        axes.set_ylim(ends[-1] - 0.5, -0.6)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_locator(_whole_steps())
        percent_axis(axes, "x")
        axes.set_title(DOMAINS[split].capitalize())
        return inline(figure, f"strategies-{split}", f"Test accuracy by strategy, {DOMAINS[split]}")


def tried(view: View) -> str | None:
    """Dev score of every setting against its percentage: what a search has seen."""
    scores: dict[tuple[str, str, int, float], list[float]] = {}
    for row in view.results.groups:
        if row.bucket is None and row.split in view.metric.splits:
            scores.setdefault((row.variant, row.train_bucket, row.size, row.percent), []).append(row.mean)
    if not scores:
        return None
    with drawing(5.6, 3.4) as (figure, axes):
        for (_, bucket, _, at), values in scores.items():
            score = sum(values) / len(values)
            axes.plot([at], [score], bucket_marker(bucket), color=bucket_colour(bucket), mew=0, alpha=0.85)
        axes.yaxis.set_major_locator(_whole_steps())
        percent_axis(axes)
        axes.set_xlabel("percentage of the ladder")
        axes.set_title("Dev score of every setting")
        return inline(figure, "tried", "Dev score of every setting against its percentage")


def well_known_by_size(view: VariantView) -> str | None:
    """Accuracy on bucket-4 test facts over training size, a line a train bucket (the paper's Figure 4)."""
    if not any(view.accuracy(group, 0.0, TEST, 4) for group in view.groups):
        return None
    with drawing() as (figure, axes):
        for bucket in view.train_buckets:
            places = [(x, of[bucket]) for x, (_, of) in enumerate(view.by_size) if bucket in of]
            found = [(x, view.accuracy(group, 0.0, TEST, 4)) for x, group in places]
            known = [(x, value) for x, value in found if value is not None]
            axes.plot(
                [x for x, _ in known],
                [value.mean for _, value in known],
                color=bucket_colour(bucket),
                marker=bucket_marker(bucket),
                mew=0,
            )
            for x, value in known:
                if value.deviation is not None:
                    ends = [value.mean - value.deviation, min(1.0, value.mean + value.deviation)]
                    axes.plot([x, x], ends, color=bucket_colour(bucket), linewidth=1, alpha=0.55)
        size_axis(axes, view)
        axes.yaxis.set_major_locator(_whole_steps())
        percent_axis(axes)
        axes.set_title(titled(view, "Accuracy on bucket-4 test facts"))
        return inline(figure, f"{view.prefix}well-known", "Accuracy on bucket-4 test facts by training size")


def _whole_steps() -> MaxNLocator:
    """Ticks that are whole percents, so that their labels are not rounded."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, steps=[1, 2, 5, 10])


class Moved(NamedTuple):
    """A tuned model: how far it moved (nats), and its accuracy on bucket-4 test facts."""

    variant: str
    group: Group
    kl: float
    accuracy: float


def moved(view: VariantView, name: str, seeds: bool) -> list[Moved]:
    """The tuned models of a variant, each alone (`seeds`) or as means over the training sets of a group."""
    found = []
    for group, cells in view.groups.items():
        if seeds:
            kls = {r.cell: r.kl for r in view.variant.divergence if r.percent == 0.0}
            for cell in cells:
                row = view.row(cell.cell, 0.0, TEST, 4)
                if row is not None and cell.cell in kls:
                    found.append(Moved(name, group, kls[cell.cell], row.accuracy))
        else:
            kl, accuracy = view.kl(group), view.accuracy(group, 0.0, TEST, 4)
            if kl is not None and accuracy is not None:
                found.append(Moved(name, group, kl.mean, accuracy.mean))
    return found


def kl_against_accuracy(points: Sequence[Moved], names: Sequence[str]) -> str | None:
    """KL of every tuned model against its accuracy; the main variant's marks are filled, others' hollow."""
    if not points:
        return None
    sizes = sorted({point.group.size for point in points})
    with drawing(5.6, 3.6) as (figure, axes):
        for point in points:
            colour = bucket_colour(point.group.train_bucket)
            area = 22 + 50 * (sizes.index(point.group.size) / max(1, len(sizes) - 1))
            filled = point.variant == names[0]
            axes.scatter(
                point.kl,
                point.accuracy,
                s=area,
                marker=bucket_marker(point.group.train_bucket),
                facecolors=colour if filled else "none",
                edgecolors=colour,
                linewidths=0 if filled else 1.1,
                alpha=0.85,
            )
        axes.grid(visible=True, axis="both")
        axes.set_xlabel("KL(tuned || base), nats; larger marks: more training facts")
        axes.yaxis.set_major_locator(_whole_steps())
        percent_axis(axes)
        axes.set_title("Accuracy on bucket-4 test facts against KL")
        return inline(figure, "kl-accuracy", "Accuracy on bucket-4 test facts against KL divergence")


def times(seconds: dict[str, tuple[float, float]]) -> str | None:
    """Seconds of work and of waiting by stage, as stacked bars."""
    if not seconds:
        return None
    with drawing(5.6, 0.9 + 0.32 * len(seconds)) as (figure, axes):
        rows = range(len(seconds))
        work, queued = ([pair[at] for pair in seconds.values()] for at in (0, 1))
        axes.barh(rows, work, height=0.66, color=CHOSEN_COLOUR, label="work")
        axes.barh(rows, queued, left=work, height=0.66, color="#b8c2cc", label="waiting")
        axes.set_yticks(rows, list(seconds), color=INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("seconds, all trials together", color=FAINT)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        return inline(figure, "times", "Seconds of work and of waiting by stage")
