"""The report's figures of one variant: each takes its view and gives an inline SVG, or None without its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sftlab.reporting.svg import FAINT, INK, drawing, inline
from sftlab.reporting.text import number, percent
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import BUCKET_COLOURS, bucket_colour, bucket_marker, bucket_name
from sftlab.studies.knowledge.report.lookup import DOMAINS, Group, Spread, VariantView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT_NAMES = {
    "train": "train",
    "dev": "dev, in domain",
    "dev_ood": "dev, out of domain",
    "test": "test, in domain",
    "test_ood": "test, out of domain",
    "train_set": "training set",
}
_DODGE = 0.06  # sideways shift between train buckets, so that error bars do not cover one another


def mastery(view: VariantView) -> str | None:
    """Shares of the five buckets in every split, as stacked bars."""
    splits = [s for s in SPLIT_NAMES if any(r.split == s for r in view.variant.mastery)]
    bars = {SPLIT_NAMES[s]: [mastery_facts(view, s, bucket) for bucket in range(5)] for s in splits}
    return stacked_buckets(bars, "mastery", "Share of facts in each mastery bucket, by split")


def stacked_buckets(bars: Mapping[str, Sequence[int]], name: str, title: str) -> str | None:
    """Shares of the five buckets, a stacked bar for each name with the facts of its buckets, from the top."""
    if not bars:
        return None
    with drawing(5.6, 0.3 + 0.36 * len(bars)) as (figure, axes):
        for y, facts in enumerate(reversed(list(bars.values()))):
            left, total = 0.0, max(1, sum(facts))
            for bucket, count in enumerate(facts):
                share = count / total
                axes.barh(
                    y, share, left=left, height=0.72, color=BUCKET_COLOURS[str(bucket)], edgecolor="white"
                )
                if share >= 0.06:
                    ink = INK if bucket in (1, 3) else "white"
                    middle = left + share / 2
                    axes.text(middle, y, percent(share, 0), ha="center", va="center", color=ink, fontsize=9)
                left += share
        axes.set_yticks(range(len(bars)), list(reversed(list(bars))), color=INK)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        return inline(figure, name, title)


@dataclass(frozen=True)
class LadderBlocks:
    """Stacked bars along ladders: a block a group of training sets, a bar a percentage.

    names: of the groups. steps: the percentages. places: of each bar, its group and percentage by number.
    shares: by label its colour, and its share of each bar.
    """

    names: Sequence[str]
    steps: Sequence[float]
    places: Sequence[tuple[int, int]]
    shares: Mapping[str, tuple[str, Sequence[float]]]


def ladder_blocks(blocks: LadderBlocks, name: str, title: str, tick_size: float = 7) -> str:
    """The figure of these bars."""
    width = len(blocks.steps) + 1
    with drawing(7.4, 3.3) as (figure, axes):
        places = [number * width + place for number, place in blocks.places]
        below = [0.0] * len(places)
        for label, (colour, heights) in blocks.shares.items():
            axes.bar(places, heights, bottom=below, width=0.9, color=colour, label=label)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        axes.set_xticks(
            places, [f"{blocks.steps[place]:g}" for _, place in blocks.places], fontsize=tick_size
        )
        for number in sorted({number for number, _ in blocks.places}):
            middle = number * width + (len(blocks.steps) - 1) / 2
            axes.text(middle, 1.02, blocks.names[number], ha="center", fontsize=8.5, color=INK)
        axes.set_ylim(0, 1.08)
        axes.set_xlabel("restored, %", color=FAINT)
        percent_axis(axes)
        columns = len(blocks.shares)
        axes.legend(frameon=False, fontsize=8, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        return inline(figure, name, title)


def mastery_facts(view: VariantView, split: str, bucket: int | None) -> int:
    return sum(r.facts for r in view.variant.mastery if r.split == split and r.bucket == bucket)


def accuracy_by_size(view: VariantView, split: str) -> str | None:
    """Accuracy of the tuned models over training size, a line a train bucket (the paper's Figure 2)."""
    if not any(view.accuracy(group, 0.0, split) for group in view.groups):
        return None
    with drawing() as (figure, axes):
        for index, bucket in enumerate(view.train_buckets):
            points = []
            for x, (_, groups) in enumerate(view.by_size):
                interval = view.interval(groups[bucket], 0.0, split) if bucket in groups else None
                if interval is not None:
                    points.append((x + _DODGE * (index - (len(view.train_buckets) - 1) / 2), *interval))
            _line(axes, bucket, [p[0] for p in points], [p[1] for p in points])
            for x_at, _, low, high in points:
                axes.plot([x_at, x_at], [low, high], color=bucket_colour(bucket), linewidth=1, alpha=0.55)
        base = view.base(split)
        if base is not None:
            axes.axhline(base, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.2)
        size_axis(axes, view)
        axes.set_ylim(*_size_limits(view))
        percent_axis(axes)
        axes.set_title(titled(view, DOMAINS[split].capitalize()))
        return inline(figure, f"{view.prefix}size-{split}", f"Accuracy by training size, {DOMAINS[split]}")


def _size_limits(view: VariantView) -> tuple[float, float]:
    """One accuracy axis for both domains, so that they can be compared."""
    found = [view.interval(group, 0.0, split) for group in view.groups for split in DOMAINS]
    ends = [end for interval in found if interval for end in (interval.low, interval.high)]
    ends += [base for split in DOMAINS if (base := view.base(split)) is not None]
    margin = 0.05 * max(max(ends) - min(ends), 0.02)
    return max(min(ends) - margin, 0.0), max(ends) + margin


def ladder(view: VariantView, split: str, size: int) -> str | None:
    """Accuracy over restored percentage for the cells of one size; rings mark the choice made on dev."""
    groups = [g for g in view.groups_of(size) if view.accuracy(g, 0.0, split)]
    if not groups:
        return None
    position = {p: x for x, p in enumerate(view.percents)}
    with drawing() as (figure, axes):
        for group in groups:
            values = {p: view.accuracy(group, p, split) for p in view.percents}
            spreads = {position[p]: v for p, v in values.items() if v is not None}
            known = {x: value.mean for x, value in spreads.items()}
            _line(axes, group.train_bucket, list(known), list(known.values()))
            _bars(axes, group.train_bucket, list(spreads), list(spreads.values()))
            choice = view.choices.get(group)
            if choice and position.get(choice.percent) in known:
                x, ink = position[choice.percent], bucket_colour(group.train_bucket)
                axes.plot([x], [known[x]], "o", ms=11, mfc="none", mew=1.4, mec=ink)
        base = view.base(split)
        if base is not None:
            axes.axhline(base, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set_xticks(range(len(position)), [f"{p:g}" for p in position])
        axes.set_xlabel("restored weights, %")
        top = max(
            row.accuracy for row in view.variant.accuracy if row.bucket is None and row.split in DOMAINS
        )
        axes.set_ylim(0, max(1.08 * top, 0.01))
        percent_axis(axes)
        axes.set_title(titled(view, f"{DOMAINS[split].capitalize()}, {size:,} training facts"))
        return inline(
            figure,
            f"{view.prefix}ladder-{split}-{size}",
            f"Accuracy by restored percentage, {DOMAINS[split]}",
        )


def kl_by_size(view: VariantView) -> str | None:
    """Mean first-token KL of the tuned models over training size (the paper's Figure 5)."""
    if not any(view.kl(group) for group in view.groups):
        return None
    with drawing() as (figure, axes):
        for bucket in view.train_buckets:
            found = [(x, view.kl(of[bucket])) for x, (_, of) in enumerate(view.by_size) if bucket in of]
            known = [(x, value) for x, value in found if value is not None]
            _line(axes, bucket, [x for x, _ in known], [value.mean for _, value in known])
            _bars(axes, bucket, [x for x, _ in known], [value for _, value in known])
        size_axis(axes, view)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("KL(tuned || base), nats")
        axes.set_title("KL divergence by training size")
        return inline(figure, "kl-size", "First-token KL divergence by training size")


def concentration(view: VariantView) -> str | None:
    """Share of all relative change over the top share of weights, compared with the paper's range (Table 3)."""
    rows = view.variant.concentration
    if not rows:
        return None
    tops = sorted({row.top_percent for row in rows} | set(published.concentration_range()))
    position = {top: x for x, top in enumerate(tops)}
    with drawing(5.6, 3.1) as (figure, axes):
        paper = published.concentration_range()
        xs = [position[top] for top in paper]
        # A band as thin as the paper's would be a hairline: it is drawn at least one point high.
        low = [min(low, high - 0.01) for low, high in paper.values()]
        axes.fill_between(xs, low, [high for _, high in paper.values()], color="#b8c2cc", linewidth=0)
        for group, cells in view.groups.items():
            for cell in cells:
                shares = {position[r.top_percent]: r.share for r in rows if r.cell == cell.cell}
                xs = sorted(shares)
                _line(axes, group.train_bucket, xs, [shares[x] for x in xs], alpha=0.8)
        axes.set_xticks(range(len(tops)), [f"{top:g}" for top in tops])
        axes.set_xlabel("top share of weights by relative change, %")
        axes.set_ylim(top=1.01)
        percent_axis(axes)
        return inline(
            figure, "concentration", "Share of all relative change held by the most changed weights"
        )


def layers(shares: Sequence[tuple[str, float]], whole: str) -> str | None:
    """Share of restored weights by depth, relative to an even spread, compared with the paper's (Table 9)."""
    if not shares:
        return None
    paper = published.layer_shares()
    with drawing() as (figure, axes):
        axes.axhline(1, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.2)
        _depth_line(axes, paper, "#9aa5b1", f"paper, {len(paper)} layers")
        _depth_line(
            axes, [share for _, share in shares], BUCKET_COLOURS["4"], f"this {whole}, {len(shares)} layers"
        )
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["first layer", "middle", "last layer"])
        first, _, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.set_title("By layer (1 = an even spread)")
        axes.legend(frameon=False, fontsize=9)
        return inline(figure, "layers", "Restored weights by layer, relative to an even spread")


def modules(ours: Mapping[str, float], paper: Mapping[str, float], whole: str) -> str | None:
    """Share of restored weights by kind of module, compared with the paper's (Table 10)."""
    if not ours:
        return None
    names = [*ours, *(name for name in paper if name not in ours)]
    with drawing(4.7, max(3.1, 0.7 + 0.36 * len(names))) as (figure, axes):
        series = ((ours, -0.2, BUCKET_COLOURS["4"], f"this {whole}"), (paper, 0.2, "#9aa5b1", "paper"))
        for values, shift, colour, label in series:
            widths = [values.get(name, 0.0) for name in names]
            axes.barh([y + shift for y in range(len(names))], widths, height=0.36, color=colour, label=label)
        axes.set_yticks(range(len(names)), names, color=INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_formatter(lambda share, _: percent(share, 0))
        axes.set_title("By kind of module")
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        return inline(figure, "modules", "Restored weights by kind of module")


def training(view: VariantView, group: Group) -> str | None:
    """Loss over steps of the runs of one group; every panel of the page has the same loss axis."""
    curves = [view.curves[cell.cell] for cell in view.groups[group] if cell.cell in view.curves]
    if not curves:
        return None
    from matplotlib.ticker import MaxNLocator

    top = max(row.loss for row in view.variant.training)
    with drawing(2.6, 1.75) as (figure, axes):
        for curve in curves:
            xs, ys = _thinned(curve)
            axes.plot(xs, ys, color=bucket_colour(group.train_bucket), linewidth=1.3)
        axes.set_ylim(0, 1.05 * top)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_title(f"{bucket_name(group.train_bucket).capitalize()}, {group.size:,} facts", fontsize=9)
        name = f"training-{group.train_bucket}-{group.size}"
        return inline(figure, name, f"Training loss, {bucket_name(group.train_bucket)}, {group.size:,} facts")


def _thinned(steps: Sequence[tuple[int, float]], most: int = 240) -> tuple[list[float], list[float]]:
    """Means over equal runs of steps, at most `most` points: a long curve stays small and keeps its level."""
    width = -(-len(steps) // most)
    parts = [steps[i : i + width] for i in range(0, len(steps), width)]
    xs = [sum(step for step, _ in part) / len(part) for part in parts]
    return xs, [sum(loss for _, loss in part) / len(part) for part in parts]


def titled(view: VariantView, text: str) -> str:
    """A figure's title, after the name that distinguishes its study from others on the page."""
    return f"{view.title}: {text[0].lower()}{text[1:]}" if view.title else text


def _bars(axes: Axes, bucket: str, xs: Sequence[float], values: Sequence[Spread]) -> None:
    """One standard deviation over training sets on either side, where there are several."""
    for x, value in zip(xs, values, strict=True):
        if value.deviation is not None:
            ends = [max(0.0, value.mean - value.deviation), value.mean + value.deviation]
            axes.plot([x, x], ends, color=bucket_colour(bucket), linewidth=1, alpha=0.55)


def _line(axes: Axes, bucket: str, xs: Sequence[float], ys: Sequence[float], alpha: float = 1.0) -> None:
    axes.plot(xs, ys, color=bucket_colour(bucket), marker=bucket_marker(bucket), mew=0, alpha=alpha)


def _depth_line(axes: Axes, shares: Sequence[float], colour: str, label: str) -> None:
    """Layer i of L at depth (i + 1/2) / L; its share times L is 1 where the spread is even."""
    depths = [(i + 0.5) / len(shares) for i in range(len(shares))]
    axes.plot(depths, [share * len(shares) for share in shares], "o-", ms=4, mew=0, color=colour, label=label)


def size_axis(axes: Axes, view: VariantView) -> None:
    axes.set_xticks(range(len(view.by_size)), [name for name, _ in view.by_size])
    axes.set_xlim(-0.4, len(view.by_size) - 0.6)
    axes.set_xlabel("training facts")


def percent_axis(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """Whole percents where the ticks are whole, else one digit."""
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    digits = 0 if high - low > 0.05 else 1
    form: Callable[[float, float], str] = lambda share, _: number(100 * share, digits) + " %"  # noqa: E731
    (axes.yaxis if which == "y" else axes.xaxis).set_major_formatter(form)
