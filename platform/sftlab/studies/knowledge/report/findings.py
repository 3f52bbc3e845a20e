"""The findings compared with the paper's: every direction and verdict is computed, over training sets and questions."""

from __future__ import annotations

from collections.abc import Sequence

from sftlab.analysis.correlation import Correlation, correlate
from sftlab.analysis.statistics import BETTER, WORSE
from sftlab.reporting.finding import Finding
from sftlab.reporting.text import between, count, number, percent, points, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.evidence import (
    accuracy_of,
    beyond_null,
    by_seed,
    choice_noise,
    chosen_gains,
    contrast,
    distribution,
    gain_noise,
    gain_of,
    half_width,
    is_beyond_null,
    less,
    mean,
    noise_of_pairs,
    null_distribution,
    pairs_of_sizes,
    paper_gains,
    unknown_and_others,
    weight_shares,
)
from sftlab.studies.knowledge.report.lookup import TEST, Group, VariantView
from sftlab.studies.knowledge.report.strategy_figures import moved
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import CHOSEN, CellRow

# Shares of restored weights, as multiples of those of all weights, that differ by less are alike.
SHARE_NOISE = 0.1
MORE_DATA = "Does more training data lower accuracy?"
UNKNOWN = "Do facts that the model does not know make the worst training data?"
HELPS = "Does restoring weights improve the tuned models?"
ENDS, MIDDLE = ("0", "4"), ("1", "2", "3")


def all_findings(view: View) -> list[Finding]:
    """The comparisons for which the main variant has the numbers, in the order of the report's sections."""
    main = view.main
    if main is None:
        return []
    found = [
        more_data(main),
        unknown_facts(main),
        middle_mastery(main),
        restoring_helps(main, view),
        bigger_sets_gain_more(main),
        unknown_facts_gain_most(main),
        collapse(main),
        training_set_improves(main),
        divergence_grows(main),
        divergence_hurts(main),
        concentrated(main),
        layers_first(main),
        feed_forward(main),
    ]
    return [finding for finding in found if finding is not None]


def more_data(view: VariantView) -> Finding | None:
    """Phenomenon 1 (section 3.4): beyond a small set, more data lowers accuracy."""
    small, large = pairs_of_sizes(view)
    n = len(small)

    def change(cells: Sequence[CellRow]) -> float | None:
        return less(accuracy_of(view, cells[n:], 0.0), accuracy_of(view, cells[:n], 0.0))

    changes = by_seed(view, [*small, *large], change)
    if not changes:
        return None
    before, after = (
        mean(by_seed(view, g, lambda cells: accuracy_of(view, cells, 0.0))) for g in (small, large)
    )
    noise = noise_of_pairs(view, [(a, 0.0, b, 0.0) for a, b in zip(large, small, strict=True)])
    p_small, p_large = (mean(published.ladder(TEST, size)[0.0]) for size in published.SIZES)
    found = contrast(changes, noise)
    return Finding(
        "accuracy",
        MORE_DATA,
        f"From 240 to 1,920 facts: {percent(p_small)} to {percent(p_large)}.",
        f"From {small[0].size:,} to {large[0].size:,} facts: {percent(before)} to {percent(after)}, "
        f"mean over the train buckets, in domain.{found.words()}",
        found.agrees(p_large - p_small),
    )


def unknown_facts(view: VariantView) -> Finding | None:
    """Phenomenon 2 (section 3.4): unknown facts are the worst training data."""
    unknown, others = unknown_and_others(view)
    if unknown is None or not others:
        return None

    def change(cells: Sequence[CellRow]) -> float | None:
        return less(accuracy_of(view, cells[:1], 0.0), accuracy_of(view, cells[1:], 0.0))

    changes = by_seed(view, [unknown, *others], change)
    if not changes:
        return None
    at_0 = mean(by_seed(view, [unknown], lambda cells: accuracy_of(view, cells, 0.0)))
    rest = mean(by_seed(view, others, lambda cells: accuracy_of(view, cells, 0.0)))
    found = contrast(changes, noise_of_pairs(view, [(unknown, 0.0, other, 0.0) for other in others]))
    paper = published.ladder(TEST, 1920)[0.0]
    return Finding(
        "accuracy",
        UNKNOWN,
        f"1,920 facts of bucket 0: {percent(paper[0])}; of the others: {percent(mean(paper[1:]))}. "
        f"{published.GAP_NOTE}",
        f"{unknown.size:,} facts of bucket 0: {percent(at_0)}; of the others: {percent(rest)} "
        f"(in domain).{found.words()}",
        found.agrees(paper[0] - mean(paper[1:])),
    )


def middle_mastery(view: VariantView) -> Finding | None:
    """Phenomenon 2: half-known facts give the best overall accuracy. Dev names the two buckets, test compares them."""
    size = max(view.sizes, default=0)
    spreads = {b: view.accuracy(Group(b, size), 0.0, "dev") for b in (*ENDS, *MIDDLE)}
    dev = {bucket: spread.mean for bucket, spread in spreads.items() if spread}
    if len(dev) < 5:
        return None
    middle, end = (max(buckets, key=lambda b: dev[b]) for buckets in (MIDDLE, ENDS))
    pair = [Group(middle, size), Group(end, size)]
    changes = by_seed(
        view, pair, lambda c: less(accuracy_of(view, c[:1], 0.0), accuracy_of(view, c[1:], 0.0))
    )
    if not changes:
        return None
    best_middle, best_end = (mean(by_seed(view, [g], lambda c: accuracy_of(view, c, 0.0))) for g in pair)
    found = contrast(changes, noise_of_pairs(view, [(pair[0], 0.0, pair[1], 0.0)]))
    paper = published.ladder(TEST, 1920)[0.0]
    best = max(range(5), key=lambda b: paper[b])
    return Finding(
        "accuracy",
        "Are half-known facts (buckets 1 to 3) the best training data?",
        f"Bucket {best} is best with {percent(paper[best])} (1,920 facts).",
        f"Best on dev of buckets 1 to 3: bucket {middle} with {percent(best_middle)} on test; best of 0 and 4: bucket "
        f"{end} with {percent(best_end)} ({size:,} facts, in domain).{found.words()}",
        found.agrees(1.0),
    )


def restoring_helps(view: VariantView, whole: View) -> Finding | None:
    """Finding 1 (section 5.2): restoring the most changed weights improves accuracy."""
    gains = chosen_gains(view)
    over = by_seed(view, list(view.groups), lambda cells: gain_of(view, cells))
    if not gains or not over:
        return None
    found = contrast(over, mean([choice_noise(view, cell) for cell in gains]))
    up = sum(gain > 0 for gain in gains.values())
    paper = [gain for size in published.SIZES for gain in paper_gains(size)]
    rows = [r for r in whole.family(CHOSEN) if r.variant == whole.main_name and r.split == TEST]
    judged = [row for row in rows if row.seeds > 1]
    better, worse = (sum(row.verdict == word for row in judged) for word in (BETTER, WORSE))
    groups = f" Of {count(len(judged), 'group')} of training sets {better} are better, {worse} worse."
    return Finding(
        "ladder",
        HELPS,
        f"At its best percentage each of {len(paper)} models gains, on average {points(mean(paper))} points "
        f"(the best was picked on the test set). {published.HELPS_NOTE}",
        f"At the percentage chosen on dev, {up} of {count(len(gains), 'model')} gain in domain, "
        f"on average {points(found.mean)} points.{found.words()}{groups if judged else ''}",
        found.agrees(1.0),
    )


def bigger_sets_gain_more(view: VariantView) -> Finding | None:
    """Finding 2 (section 5.2): larger training sets leave more to undo."""
    gains, (less_data, more) = chosen_gains(view), pairs_of_sizes(view)
    n = len(less_data)
    pairs = [*less_data, *more]
    changes = by_seed(view, pairs, lambda cells: less(gain_of(view, cells[n:]), gain_of(view, cells[:n])))
    if not changes:
        return None
    small, large = (mean(by_seed(view, g, lambda cells: gain_of(view, cells))) for g in (less_data, more))
    found = contrast(changes, gain_noise(view, gains))
    p_small, p_large = (mean(paper_gains(size)) for size in published.SIZES)
    return Finding(
        "ladder",
        "Do models with more training data gain more?",
        f"240 facts: {points(p_small)} points on average; 1,920 facts: {points(p_large)}.",
        f"{less_data[0].size:,} facts: {points(small)} points on average; "
        f"{more[0].size:,} facts: {points(large)}.{found.words()}",
        found.agrees(p_large - p_small),
    )


def unknown_facts_gain_most(view: VariantView) -> Finding | None:
    """Finding 2: models tuned on unknown facts gain most."""
    unknown, others = unknown_and_others(view)
    if unknown is None or not others:
        return None
    changes = by_seed(
        view, [unknown, *others], lambda cells: less(gain_of(view, cells[:1]), gain_of(view, cells[1:]))
    )
    if not changes:
        return None
    mine, rest = (mean(by_seed(view, g, lambda cells: gain_of(view, cells))) for g in ([unknown], others))
    found = contrast(changes, gain_noise(view, [c.cell for g in (unknown, *others) for c in view.groups[g]]))
    paper = paper_gains(1920)
    return Finding(
        "ladder",
        "Do models tuned on unknown facts gain most?",
        f"1,920 facts: bucket 0 gains {points(paper[0])} points, the others {points(mean(paper[1:]))}.",
        f"{unknown.size:,} facts: bucket 0 gains {points(mine)} points, the others {points(rest)}."
        f"{found.words()}",
        found.agrees(paper[0] - mean(paper[1:])),
    )


def collapse(view: VariantView) -> Finding | None:
    """Table 4: restoring too much destroys the model."""
    at = 60.0 if 60.0 in view.percents else max(view.percents, default=0.0)
    groups = [g for g in view.groups if view.accuracy(g, at, TEST) and view.accuracy(g, 0.0, TEST)]
    left = by_seed(view, groups, lambda cells: accuracy_of(view, cells, at))
    tuned = by_seed(view, groups, lambda cells: accuracy_of(view, cells, 0.0))
    if not at or not left or not tuned:
        return None
    noise = noise_of_pairs(view, [(g, at, g, 0.0) for g in groups])
    found = contrast([after - before / 2 for after, before in zip(left, tuned, strict=True)], noise)
    paper = published.ladder(TEST, 1920)
    far_enough = at >= 60 or found.mean < 0
    return Finding(
        "ladder",
        "Does restoring too much make the model collapse (below half of its accuracy)?",
        f"At 60 %: {percent(mean(paper[60.0]))} left of {percent(mean(paper[0.0]))} (1,920 facts).",
        f"At {restored(at)}: {percent(mean(left))} left of {percent(mean(tuned))}, mean over the groups, in domain. "
        f"What is left less half of the tuned accuracy:{found.words()} Near the base model this is the accuracy in a "
        "prompt that it was not tuned on, and not lost knowledge.",
        found.agrees(-1.0) if far_enough and mean(tuned) else None,
    )


def training_set_improves(view: VariantView) -> Finding | None:
    """Appendix C.2, Table 6: restoring a little even helps on the facts that were trained."""

    def change(cells: Sequence[CellRow]) -> float | None:
        return less(accuracy_of(view, cells, 5.0, "train_set"), accuracy_of(view, cells, 0.0, "train_set"))

    cells = [cell for cell in view.variant.cells if change([cell]) is not None]
    changes = by_seed(view, list(view.groups), change)
    if not cells or not changes:
        return None
    noises = [half_width(view, (cell.cell, 5.0), (cell.cell, 0.0), "train_set") for cell in cells]
    up = sum((change([cell]) or 0.0) > 0 for cell in cells)
    found = contrast(changes, mean(noises))
    tables = [published.training_set(size) for size in published.SIZES]
    paper = [now - tuned for t in tables for now, tuned in zip(t[5.0], t[0.0], strict=True)]
    return Finding(
        "training-set",
        "Does restoring 5 % help on the training facts, too?",
        f"{sum(c > 0 for c in paper)} of {len(paper)} models gain; {points(mean(paper))} points on average.",
        f"{up} of {count(len(cells), 'model')} gain; {points(found.mean)} points on average.{found.words()}",
        found.agrees(mean(paper)),
    )


def divergence_grows(view: VariantView) -> Finding | None:
    """Finding 1 (section 4.2): from 240 facts on, more data moves the model further away."""
    small, large = pairs_of_sizes(view)
    n = len(small)

    def kl_of(cells: Sequence[CellRow]) -> float | None:
        values = [view.kl_row(cell) for cell in cells]
        return mean([row.kl for row in values if row]) if cells and all(values) else None

    changes = by_seed(view, [*small, *large], lambda cells: less(kl_of(cells[n:]), kl_of(cells[:n])))
    if not changes:
        return None
    before, after = (mean(by_seed(view, groups, kl_of)) for groups in (small, large))
    errors = [
        row.error or 0.0
        for g in (*small, *large)
        for cell in view.groups[g][:1]
        if (row := view.kl_row(cell))
    ]
    # All models are asked the same facts: the mean over groups is not taken to be surer than one of them.
    found = contrast(changes, 1.96 * 2**0.5 * mean(errors))
    return Finding(
        "kl",
        "Does more training data move the model further from its base?",
        "Yes from 240 facts on (Figure 5).",
        f"Mean KL from {small[0].size:,} to {large[0].size:,} facts: "
        f"{number(before, 2)} to {number(after, 2)} nats.{found.words('nats').replace('questions', 'facts')}",
        found.agrees(1.0),
    )


def divergence_hurts(view: VariantView) -> Finding | None:
    """Finding 2 (section 4.2): the further the model has moved, the less it knows; also among sets of one size."""
    found = moved(view, "", seeds=False)
    kls, accuracies = [point.kl for point in found], [point.accuracy for point in found]
    pooled = correlate(kls, accuracies)
    if pooled is None:
        return None
    within = correlate(kls, accuracies, [point.group.size for point in found])
    known = [pooled] if within is None else [pooled, within]
    agrees = True if all(c.high < 0 for c in known) else False if all(c.low > 0 for c in known) else None
    of_size = "" if within is None or len(view.sizes) < 2 else f" Within a size: {_correlation_text(within)}."
    return Finding(
        "kl",
        "Do models that moved further answer fewer well-known facts?",
        "Yes: a strong correlation (Figures 4 and 5).",
        f"Rank correlation of KL with accuracy on bucket-4 test facts over {count(pooled.points, 'group')} of training "
        f"sets: {_correlation_text(pooled)}.{of_size}",
        agrees,
    )


def _correlation_text(found: Correlation) -> str:
    return f"{number(found.value, 2)} (95 % interval {number(found.low, 2)} to {number(found.high, 2)})"


def concentrated(view: VariantView) -> Finding | None:
    """Table 3: a tiny share of the weights holds most of the relative change."""
    rows = [row for row in view.variant.concentration if row.top_percent == 1.0]
    if not rows:
        return None
    shares, nulls = [row.share for row in rows], [row.null for row in rows if row.null is not None]
    beyond = beyond_null([(row.cell, row.share, row.null) for row in rows], above=True)
    low, high = published.concentration_range()[1.0]
    return Finding(
        "concentration",
        "Does 1 % of the weights hold more than half of all relative change?",
        f"Yes: {percent(low)} to {percent(high)}.",
        f"The top 1 % hold {between(percent(min(shares)), percent(max(shares)))}"
        f"{against_null(percent(mean(nulls)) if nulls else None, beyond)}",
        mean(shares) > 0.5 if beyond else None,
    )


def against_null(null: str | None, beyond: bool) -> str:
    """The end of a sentence on where the change is: what shuffled updates give, and whether there is more to it."""
    if null is None:
        return ". What shuffled updates give is not measured, so this decides nothing."
    found = f"; with the updates of each matrix shuffled {null}"
    return (
        f"{found}." if beyond else f"{found}, which is no real difference: the base weights alone explain it."
    )


def layers_first(view: VariantView) -> Finding | None:
    """Appendix E.1, Table 9: more than an even share in the first layer, less in the last."""
    layers = distribution(view, "layer")
    shares = [share for _, share in layers]
    if len(shares) < 2:
        return None
    paper, even = published.layer_shares(), 1 / len(shares)
    ratios = f"{number(shares[0] / even, 2)} and {number(shares[-1] / even, 2)}"
    p_ratios = f"{number(paper[0] * len(paper), 2)} and {number(paper[-1] * len(paper), 2)}"
    same = (shares[0] > even) + (shares[-1] < even)
    nulls = list(null_distribution(view, "layer").values())
    beyond = any(
        is_beyond_null(view, "layer", {name}, above)
        for (name, _), above in ((layers[0], True), (layers[-1], False))
    )
    null = f"{number(nulls[0] / even, 2)} and {number(nulls[-1] / even, 2)}" if nulls else None
    return Finding(
        "distribution",
        "Do the restored weights lie in the first layer more than in the last?",
        f"First and last layer hold {p_ratios} of an even share.",
        f"First and last layer hold {ratios} of an even share{against_null(null, beyond)}",
        {2: True, 1: None, 0: False}[same] if beyond else None,
    )


def feed_forward(view: VariantView) -> Finding | None:
    """Appendix E.1, Table 10: most restored weights are in the feed-forward blocks, as most of all weights do."""
    tables = (
        dict(distribution(view, "module")),
        weight_shares(view),
        published.module_shares(),
        published.weight_shares(),
    )
    ours, ours_all, paper, paper_all = (
        sum(share for name, share in table.items() if "mlp" in name) for table in tables
    )
    if not ours_all:
        return None
    nulls = null_distribution(view, "module")
    beyond = is_beyond_null(view, "module", {name for name in tables[0] if "mlp" in name})
    null = percent(sum(share for name, share in nulls.items() if "mlp" in name)) if nulls else None
    return Finding(
        "distribution",
        "Do the feed-forward blocks hold as large a share of the restored weights as of all weights?",
        f"Yes: {percent(paper)} of the restored, {percent(paper_all)} of all.",
        f"{percent(ours)} of the restored, {percent(ours_all)} of all{against_null(null, beyond)}",
        abs(ours / ours_all - paper / paper_all) <= SHARE_NOISE if beyond else None,
    )
