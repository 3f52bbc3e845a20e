"""The findings compared with the paper's: every direction and verdict is computed."""

from __future__ import annotations

from sftlab.reporting.finding import Finding
from sftlab.reporting.text import between, count, number, percent, points, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.evidence import (
    accuracies,
    beyond_null,
    choice_noise,
    chosen_gains,
    distribution,
    gain_noise,
    half_width,
    is_beyond_null,
    mean,
    noise_of_pairs,
    null_distribution,
    pairs_of_sizes,
    paper_gains,
    rank_correlation,
    unknown_and_others,
    verdict,
    weight_shares,
)
from sftlab.studies.knowledge.report.lookup import TEST, Group, VariantView
from sftlab.studies.knowledge.report.strategy_figures import moved

KL_NOISE, RHO_NOISE = 0.05, 0.3  # smaller changes of KL (relative) and smaller correlations decide nothing
# Shares of restored weights, as multiples of those of all weights, that differ by less are alike.
SHARE_NOISE = 0.1
MORE_DATA = "Does more training data lower accuracy?"
UNKNOWN = "Do facts that the model does not know make the worst training data?"
HELPS = "Does restoring weights improve the tuned models?"
ENDS, MIDDLE = ("0", "4"), ("1", "2", "3")


def all_findings(view: VariantView) -> list[Finding]:
    """The comparisons for which the study has the numbers, in the order of the report's sections."""
    makers = (
        more_data,
        unknown_facts,
        middle_mastery,
        restoring_helps,
        bigger_sets_gain_more,
        unknown_facts_gain_most,
        collapse,
        training_set_improves,
        divergence_grows,
        divergence_hurts,
        concentrated,
        layers_first,
        feed_forward,
    )
    return [found for maker in makers if (found := maker(view)) is not None]


def more_data(view: VariantView) -> Finding | None:
    """Phenomenon 1 (section 3.4): beyond a small set, more data lowers accuracy."""
    small, large = pairs_of_sizes(view)
    if not small:
        return None
    before, after = (mean(accuracies(view, groups, 0.0)) for groups in (small, large))
    noise = noise_of_pairs(view, [(a, 0.0, b, 0.0) for a, b in zip(large, small, strict=True)])
    p_small, p_large = (mean(published.ladder(TEST, n)[0.0]) for n in published.SIZES)
    return Finding(
        "accuracy",
        MORE_DATA,
        f"From 240 to 1,920 facts: {percent(p_small)} to {percent(p_large)}.",
        f"From {small[0].size:,} to {large[0].size:,} facts: {percent(before)} to {percent(after)}, "
        "mean over the train buckets, in domain.",
        verdict(after - before, noise, p_large - p_small),
    )


def unknown_facts(view: VariantView) -> Finding | None:
    """Phenomenon 2 (section 3.4): unknown facts are the worst training data."""
    unknown, others = unknown_and_others(view)
    if unknown is None or not others:
        return None
    at_0, rest = view.accuracy(unknown, 0.0, TEST), accuracies(view, others, 0.0)
    if at_0 is None or not rest:
        return None
    others_mean = mean(rest)
    noise = noise_of_pairs(view, [(unknown, 0.0, other, 0.0) for other in others])
    paper = published.ladder(TEST, 1920)[0.0]
    return Finding(
        "accuracy",
        UNKNOWN,
        f"1,920 facts of bucket 0: {percent(paper[0])}; of the others: {percent(mean(paper[1:]))}.",
        f"{unknown.size:,} facts of bucket 0: {percent(at_0.mean)}; "
        f"of the others: {percent(others_mean)} (in domain).",
        verdict(at_0.mean - others_mean, noise, paper[0] - mean(paper[1:])),
    )


def middle_mastery(view: VariantView) -> Finding | None:
    """Phenomenon 2: half-known facts give the best overall accuracy."""
    size = max(view.sizes, default=0)
    found = {b: view.accuracy(Group(b, size), 0.0, TEST) for b in (*ENDS, *MIDDLE)}
    means = {b: spread.mean for b, spread in found.items() if spread}
    if len(means) < 5:
        return None
    middle, end = (max(buckets, key=lambda b: means[b]) for buckets in (MIDDLE, ENDS))
    noise = noise_of_pairs(view, [(Group(middle, size), 0.0, Group(end, size), 0.0)])
    paper = published.ladder(TEST, 1920)[0.0]
    best = max(range(5), key=lambda b: paper[b])
    return Finding(
        "accuracy",
        "Are half-known facts (buckets 1 to 3) the best training data?",
        f"Bucket {best} is best with {percent(paper[best])} (1,920 facts).",
        f"Best of buckets 1 to 3: bucket {middle} with {percent(means[middle])}; "
        f"best of 0 and 4: bucket {end} with {percent(means[end])} ({size:,} facts, in domain).",
        verdict(means[middle] - means[end], noise, 1.0),
    )


def restoring_helps(view: VariantView) -> Finding | None:
    """Finding 1 (section 5.2): restoring the most changed weights improves accuracy."""
    gains = chosen_gains(view)
    if not gains:
        return None
    noise = mean([choice_noise(view, cell) for cell in gains])
    up = sum(gain > 0 for gain in gains.values())
    paper = [gain for size in published.SIZES for gain in paper_gains(size)]
    return Finding(
        "ladder",
        HELPS,
        f"At its best percentage each of {len(paper)} models gains, on average {points(mean(paper))} points "
        "(the best was picked on the test set).",
        f"At the percentage chosen on dev, {up} of {count(len(gains), 'model')} gain in domain, "
        f"on average {points(mean(list(gains.values())))} points.",
        verdict(mean(list(gains.values())), noise, 1.0),
    )


def bigger_sets_gain_more(view: VariantView) -> Finding | None:
    """Finding 2 (section 5.2): larger training sets leave more to undo."""
    gains, (less, more) = chosen_gains(view), pairs_of_sizes(view)
    small, large = (
        [gains[c.cell] for g in groups for c in view.groups[g] if c.cell in gains] for groups in (less, more)
    )
    if not small or not large:
        return None
    difference = mean(large) - mean(small)
    p_small, p_large = (mean(paper_gains(size)) for size in published.SIZES)
    return Finding(
        "ladder",
        "Do models with more training data gain more?",
        f"240 facts: {points(p_small)} points on average; 1,920 facts: {points(p_large)}.",
        f"{less[0].size:,} facts: {points(mean(small))} points on average; "
        f"{more[0].size:,} facts: {points(mean(large))}.",
        verdict(difference, gain_noise(view, gains), p_large - p_small),
    )


def unknown_facts_gain_most(view: VariantView) -> Finding | None:
    """Finding 2: models tuned on unknown facts gain most."""
    gains = chosen_gains(view)
    unknown, others = unknown_and_others(view)
    mine = [gains[c.cell] for c in view.groups.get(unknown, []) if c.cell in gains] if unknown else []
    rest = [gains[c.cell] for g in others for c in view.groups[g] if c.cell in gains]
    if not mine or not rest or unknown is None:
        return None
    noise = gain_noise(view, [c.cell for g in (unknown, *others) for c in view.groups[g]])
    paper = paper_gains(1920)
    return Finding(
        "ladder",
        "Do models tuned on unknown facts gain most?",
        f"1,920 facts: bucket 0 gains {points(paper[0])} points, the others {points(mean(paper[1:]))}.",
        f"{unknown.size:,} facts: bucket 0 gains {points(mean(mine))} points, "
        f"the others {points(mean(rest))}.",
        verdict(mean(mine) - mean(rest), noise, paper[0] - mean(paper[1:])),
    )


def collapse(view: VariantView) -> Finding | None:
    """Table 4: restoring too much destroys the model."""
    at = 60.0 if 60.0 in view.percents else max(view.percents, default=0.0)
    groups = [g for g in view.groups if view.accuracy(g, at, TEST) and view.accuracy(g, 0.0, TEST)]
    if not at or not groups:
        return None
    tuned, after = (mean(accuracies(view, groups, p)) for p in (0.0, at))
    paper = published.ladder(TEST, 1920)
    return Finding(
        "ladder",
        "Does restoring too much make the model collapse (below half of its accuracy)?",
        f"At 60 %: {percent(mean(paper[60.0]))} left of {percent(mean(paper[0.0]))} (1,920 facts).",
        f"At {restored(at)}: {percent(after)} left of {percent(tuned)}, mean over the cells, in domain.",
        None if not tuned or (at < 60 and after >= tuned / 2) else after < tuned / 2,
    )


def training_set_improves(view: VariantView) -> Finding | None:
    """Appendix C.2, Table 6: restoring a little even helps on the facts that were trained."""
    changes, noises = [], []
    for cell in view.variant.cells:
        now, tuned = (view.row(cell.cell, p, "train_set") for p in (5.0, 0.0))
        if now and tuned:
            changes.append(now.accuracy - tuned.accuracy)
            noises.append(half_width(view, (cell.cell, 5.0), (cell.cell, 0.0), "train_set"))
    if not changes:
        return None
    tables = [published.training_set(size) for size in published.SIZES]
    paper = [now - tuned for t in tables for now, tuned in zip(t[5.0], t[0.0], strict=True)]
    return Finding(
        "training-set",
        "Does restoring 5 % help on the training facts, too?",
        f"{sum(c > 0 for c in paper)} of {len(paper)} models gain; {points(mean(paper))} points on average.",
        f"{sum(c > 0 for c in changes)} of {count(len(changes), 'model')} gain; "
        f"{points(mean(changes))} points on average.",
        verdict(mean(changes), mean(noises), mean(paper)),
    )


def divergence_grows(view: VariantView) -> Finding | None:
    """Finding 1 (section 4.2): from 240 facts on, more data moves the model further away."""
    less, more = pairs_of_sizes(view)
    before, after = ([k.mean for g in groups if (k := view.kl(g))] for groups in (less, more))
    if not before or len(before) != len(after):
        return None
    change = mean(after) - mean(before)
    return Finding(
        "kl",
        "Does more training data move the model further from its base?",
        "Yes from 240 facts on (Figure 5).",
        f"Mean KL from {less[0].size:,} to {more[0].size:,} facts: "
        f"{number(mean(before), 2)} to {number(mean(after), 2)} nats.",
        verdict(change, KL_NOISE * mean(before), 1.0),
    )


def divergence_hurts(view: VariantView) -> Finding | None:
    """Finding 2 (section 4.2): the further the model has moved, the less it knows."""
    pairs = [(point.kl, point.accuracy) for point in moved(view, "", seeds=False)]
    if len(pairs) < 4:
        return None
    rho = rank_correlation(*zip(*pairs, strict=True))
    return Finding(
        "kl",
        "Do models that moved further answer fewer well-known facts?",
        "Yes: a strong correlation (Figures 4 and 5).",
        f"Rank correlation of KL with accuracy on bucket-4 test facts over "
        f"{count(len(pairs), 'model')}: {number(rho, 2)}.",
        verdict(rho, RHO_NOISE, -1.0),
    )


def concentrated(view: VariantView) -> Finding | None:
    """Table 3: a tiny share of the weights holds most of the relative change."""
    rows = [row for row in view.variant.concentration if row.top_percent == 1.0]
    if not rows:
        return None
    shares, nulls = [row.share for row in rows], [row.null for row in rows if row.null is not None]
    beyond = beyond_null([(row.share, row.null) for row in rows])
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
    beyond = any(is_beyond_null(view, "layer", {name}) for name, _ in (layers[0], layers[-1]))
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
