"""The page's sections, from top to bottom: the verdicts, the paper's tables, training and time, settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sftlab.analysis.statistics import BETTER, WORSE
from sftlab.config.leaves import flat
from sftlab.reporting import table as table_module
from sftlab.reporting.finding import Finding
from sftlab.reporting.section import NOT_MEASURED, Section, findings_of, present
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import between, count, listed, number, percent, points, restored
from sftlab.studies.knowledge.report import (
    answer_kinds,
    change_tables,
    control_tables,
    evidence,
    fates,
    few_shot,
    figures,
    gradients,
    left_out,
    mastery,
    mastery_after,
    plain_tables,
    published,
    strategies,
    strategy_figures,
    tables,
    topics,
    update_sizes,
)
from sftlab.studies.knowledge.report.buckets import bucket_name
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, Group, VariantView
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import CHOSEN, PLAIN

MOST_ROWS = 24  # rows that a figure of strategies holds


def sections(view: View, findings: Sequence[Finding], origin: Origin) -> list[Section]:
    """All sections in order; one without data stays, and says so, but for those that few studies or sweeps have."""
    found = [
        _strategies(view),
        _accuracy(view, findings),
        _ladder(view, findings),
        _training_set(view, findings),
        fates.section(view),
        answer_kinds.section(view),
        topics.section(view),
        left_out.section(view),
        mastery_after.section(view),
        few_shot.section(view),
        _kl(view, findings),
        mastery.section(view),
        _controls(view),
        update_sizes.section(view),
        gradients.section(view),
        _concentration(view, findings),
        _distribution(view, findings),
        _layer_ranges(view),
        _training(view),
        _time(view),
        _settings(view, origin),
    ]
    return [section for section in found if section is not None]


def _strategies(view: View) -> Section:
    # Variants say more than strategies, as long as a figure can hold them.
    scope: Literal["variant", "strategy"] = "variant" if len(view.variants) <= MOST_ROWS else "strategy"
    ranked = strategies.ranked(view, scope)
    see = ""
    if view.several:
        see = (
            f"Each {scope} at the training set and percentage with its best dev score. Filled: that "
            "setting; hollow: plain fine-tuning on the same facts; lines: 95 % intervals. "
        )
    # The recommended models' comparisons with others may repeat one of these.
    rows = [*view.family(CHOSEN), *view.family(PLAIN)]
    better, worse = (sum(row.verdict == word for row in rows) for word in (BETTER, WORSE))
    see += (
        f"Of {count(len(rows), 'comparison')} on test, of a chosen percentage with 0 % or with plain "
        f"fine-tuning, {better:,} are better, {worse:,} worse, and {len(rows) - better - worse:,} show no "
        "significant difference."
    )
    beside = []
    if view.several:
        several = len(view.variants) > len(view.choices("strategy"))
        best = strategies.best(view, "variant") if several else None
        beside = present(strategies.best(view), best, strategies.table_7(view))
    plots = (
        [strategy_figures.strategies(view, ranked, scope, split) for split in DOMAINS] if view.several else []
    )
    return Section(
        "strategies",
        "Strategies side by side" if view.several else "What restoring gains",
        see if ranked else NOT_MEASURED,
        present(*plots, strategy_figures.tried(view) if view.searched else None),
        present(*beside, strategies.recommended_against(view), strategies.every_verdict(view)),
        data=("choice", "comparisons", "groups", "paired"),
    )


def _accuracy(view: View, findings: Sequence[Finding]) -> Section:
    main = view.main
    plots: list[str | None] = []
    see = NOT_MEASURED
    if main is not None and any(main.accuracy(group, 0.0, TEST) for group in main.groups):
        plots = [figures.accuracy_by_size(main, split) for split in DOMAINS]
        others = [other for other in view.tuned_otherwise if len(other.sizes) > 1]
        plots += [figures.accuracy_by_size(other, TEST) for other in others]
        several = any(len(cells) > 1 for cells in main.groups.values())
        bars = (
            "one standard deviation over training sets" if several else "the 95 % interval of the questions"
        )
        whose = f" of {view.main_name}" if view.several else ""
        see = f"Accuracy of the tuned models{whose}, nothing restored. {_reach(main)}Thin bars: {bars}."
        if others:
            names = listed([other.title for other in others])
            see += f" Fine-tuned otherwise, and shown after it in domain: {names}."
    return Section(
        "accuracy",
        "What fine-tuning did",
        see,
        present(*plots),
        present(
            tables.more_data(view),
            tables.everything(view),
            strategies.tuned_otherwise(view),
            tables.by_test_bucket(view),
        ),
        data=("groups", "accuracy"),
        findings=findings_of(findings, "accuracy"),
        legend=bool(plots),
    )


def _reach(main: VariantView) -> str:
    """From the worst to the best of the tuned models in domain, and the base model."""
    ranked = [(s.mean, group) for group in main.groups if (s := main.accuracy(group, 0.0, TEST))]
    (low, worst), (high, best) = min(ranked), max(ranked)
    base = main.base(TEST)
    text = f"In domain they reach from {percent(low)} ({_named(worst)}) to {percent(high)} ({_named(best)}). "
    return text if base is None else f"{text}Dashed: the base model, asked in the same way: {percent(base)}. "


def _named(group: Group) -> str:
    return f"{bucket_name(group.train_bucket)}, {group.size:,} facts"


def _ladder(view: View, findings: Sequence[Finding]) -> Section:
    main = view.main
    shown = present(*(tables.ladder(view, split) for split in DOMAINS), tables.collapse(view))
    see, plots = NOT_MEASURED, []
    if main is not None and shown:
        plots = present(*(figures.ladder(main, split, size) for size in main.sizes for split in DOMAINS))
        plots += present(*(figures.ladder(other, TEST, other.sizes[-1]) for other in view.ladders))
        chosen = [r for r in view.choices("group") if r.variant == view.main_name]
        order = {
            "bottom": "the smallest",
            "random": "random",
            "smallest-base": "the smallest base weights'",
            "shuffled": "shuffled",
        }.get(main.order, "the largest")
        see = f"Undoing {order} updates of the tuned models{f' of {view.main_name}' if view.several else ''}."
        gains = [r.test - r.test_tuned for r in chosen if r.test is not None and r.test_tuned is not None]
        if gains:
            ends = points(min(gains)), points(max(gains))
            see += (
                f" At the percentage chosen on dev accuracy changes by {between(*ends)} points in domain, over "
                f"{count(len(gains), 'group')} of training sets."
            )
        collapsed = sorted(r.collapse_percent for r in chosen if r.collapse_percent is not None)
        if collapsed:
            span = listed([restored(at) for at in dict.fromkeys(collapsed)], "or")
            see += f" {len(collapsed)} of {len(chosen)} collapse on dev (below half of 0 %), from {span} on."
        if view.ladders:
            see += f" After it, at the largest size: {listed([other.title for other in view.ladders])}."
    folded = [strategies.ladder_of(view, other) for other in view.ladders]
    return Section(
        "ladder",
        "Undoing updates, step by step",
        see,
        plots,
        [*shown, *present(*folded)],
        data=("groups", "choice"),
        findings=findings_of(findings, "ladder"),
        legend=bool(plots),
        rings=bool(plots),
    )


def _training_set(view: View, findings: Sequence[Finding]) -> Section:
    table = tables.ladder(view, tables.TRAIN_SET)
    see = "Accuracy of each model on the very facts that it was trained on." if table else NOT_MEASURED
    return Section(
        "training-set",
        "The training facts themselves",
        see,
        tables=present(table),
        data=("groups",) if table else (),
        findings=findings_of(findings, "training-set"),
    )


def _kl(view: View, findings: Sequence[Finding]) -> Section:
    main = view.main
    views = [] if main is None else [(main, view.main_name), *((v, v.title) for v in view.tuned_otherwise)]
    single = [point for study, name in views for point in strategy_figures.moved(study, name, seeds=True)]
    groups = [point for study, name in views for point in strategy_figures.moved(study, name, seeds=False)]
    if main is None or not single:
        return Section("kl", "How far the models moved", NOT_MEASURED)
    names = [name for _, name in views]
    see = (
        "KL divergence of the first answer token says how far a tuned model has moved from its base. "
        f"The third figure shows {count(len(single), 'tuned model')}"
    )
    see += f"; filled: {names[0]}, hollow: {listed(names[1:])}." if names[1:] else "."
    plots = (
        figures.kl_by_size(main),
        strategy_figures.well_known_by_size(main),
        strategy_figures.kl_against_accuracy(single, names),
    )
    return Section(
        "kl",
        "How far the models moved",
        see,
        present(*plots),
        present(plain_tables.correlation(groups), plain_tables.divergence(main)),
        data=("divergence",),
        findings=findings_of(findings, "kl"),
        legend=True,
    )


def _controls(view: View) -> Section | None:
    table = control_tables.verdicts(view)
    if table is None:
        return None
    return Section(
        "controls",
        "Does the relative change matter?",
        control_tables.answer(view),
        present(*(control_tables.ladders(view, kind) for kind in control_tables.AXES)),
        [table],
        data=("comparisons",),
    )


def _concentration(view: View, findings: Sequence[Finding]) -> Section:
    table = change_tables.concentration(view)
    plot = figures.concentration(view.main) if view.main is not None else None
    return Section(
        "concentration",
        "Where the change is concentrated",
        _concentration_words(view.main) if table and view.main else NOT_MEASURED,
        present(plot),
        present(table, change_tables.undone(view)),
        data=("concentration", "undone") if table else (),
        findings=findings_of(findings, "concentration"),
        legend=plot is not None,
    )


def _concentration_words(main: VariantView) -> str:
    paper = published.concentration_range()
    shares: dict[float, list[float]] = {}
    for row in main.variant.concentration:
        shares.setdefault(row.top_percent, []).append(row.share)
    gaps = {top: evidence.mean(v) - sum(paper[top]) / 2 for top, v in shares.items() if top in paper}
    see = (
        "Share of the total relative change that the most changed weights hold; grey: the paper's range. Shuffled "
        "updates show how much of it follows from the base weights alone."
    )
    if taken := change_tables.undone_words(main):
        see += f" {taken}"
    if not gaps:
        return see
    top = max(gaps, key=lambda key: abs(gaps[key]))
    return f"{see} The largest gap to the paper is {points(gaps[top])} points, at the top {restored(top)}."


def _distribution(view: View, findings: Sequence[Finding]) -> Section:
    main = view.main
    at = evidence.distribution_percent(main) if main is not None else None
    if main is None or at is None:
        return Section("distribution", "Layers and modules", NOT_MEASURED)
    layers, modules = (evidence.distribution(main, kind) for kind in ("layer", "module"))
    see = f"Where the restored weights lie when {restored(at)} are restored, mean over the cells."
    if modules:
        see += f" The largest part is in {modules[0][0]} ({percent(modules[0][1])})."
    return Section(
        "distribution",
        "Layers and modules",
        see,
        present(
            figures.layers(layers, view.results.kind),
            figures.modules(dict(modules), published.module_shares(), view.results.kind),
        ),
        present(change_tables.modules(view), change_tables.layers(view)),
        data=("distribution",),
        findings=findings_of(findings, "distribution"),
    )


def _layer_ranges(view: View) -> Section | None:
    table = strategies.table_11(view)
    if table is None:
        return None
    see = "Which layers carry the fine-tuned behaviour: each range put back by itself."
    return Section("layer-ranges", "Restoring ranges of layers", see, tables=[table], data=("groups",))


def _training(view: View) -> Section | None:
    main = view.main
    if main is None or view.searched:
        return None
    plots = present(*(figures.training(main, group) for group in main.groups))
    seconds = [cell.seconds for cell in main.variant.cells if cell.seconds is not None]
    see = "Loss on the answer tokens over optimizer steps." if plots else NOT_MEASURED
    if plots and seconds:
        see += (
            f" All {count(len(seconds), 'run')} together took {number(sum(seconds), 0)} seconds of training."
        )
    return Section(
        "training",
        "Training curves",
        see,
        plots,
        present(plain_tables.training(main)),
        data=("cells", "training"),
        small=True,
    )


def _time(view: View) -> Section | None:
    if not view.times:
        return None
    sums = {
        stage: (sum(row.seconds for row in rows), sum(row.queued_seconds for row in rows))
        for stage, rows in view.times.items()
    }
    work, waiting = (sum(pair[at] for pair in sums.values()) for at in (0, 1))
    trials = {row.trial for row in view.results.times}
    body = []
    for stage, (seconds, queued) in sums.items():
        hits = sum(row.hits for row in view.times[stage])
        share = percent(seconds / work) if work else ""
        body.append(
            Row(stage, [Entry(number(seconds)), Entry(share), Entry(number(queued)), Entry(f"{hits:,}")])
        )
    table = Table("Wall time by stage, all trials together", "stage", TIME_COLUMNS, body)
    see = (
        f"{count(len(trials), 'trial')} worked {number(work, 0)} seconds and waited {number(waiting, 0)} "
        f"for engines and workers. Hits are results that were found and not computed."
    )
    plot = strategy_figures.times(sums)
    return Section("time", "Where the time went", see, present(plot), [table], data=("times",))


TIME_COLUMNS = ("seconds", "share", "waiting, seconds", "hits")


def _settings(view: View, origin: Origin) -> Section:
    results = view.results
    variants = [
        (variant.name, "; ".join([variant.strategy, *(f"{k} = {v}" for k, v in flat(variant.settings))]))
        for variant in results.variants
    ]
    provenance = flat(results.variants[0].provenance) if results.variants else []
    shown = [
        table_module.key_values("Variants: strategy and settings", variants) if view.several else None,
        table_module.key_values("Settings (these are hashed into the results' ids)", flat(results.spec)),
        table_module.key_values("Provenance: versions, base model and facts", provenance),
        origin.provenance_table(),
        origin.model_table(),
    ]
    see = "Everything that was asked for, and what computed it."
    return Section("settings", "Settings and provenance", see, tables=present(*shown), data=("cells",))
