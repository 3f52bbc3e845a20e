"""The sections of a sweep's page, from top to bottom: the evidence, the paper's tables, time, settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sftlab.config.leaves import flat
from sftlab.reporting import table as table_module
from sftlab.reporting.finding import Finding
from sftlab.reporting.section import Section, findings_of, present
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import between, count, listed, number, percent, points, restored
from sftlab.studies.knowledge.report import evidence, figures, published, sections
from sftlab.studies.knowledge.report import tables as study_tables
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.sweep import beside as sweep_beside
from sftlab.studies.knowledge.report.sweep import figures as sweep_figures
from sftlab.studies.knowledge.report.sweep import strategies as sweep_strategies
from sftlab.studies.knowledge.report.sweep.figures import Moved
from sftlab.studies.knowledge.report.sweep.view import SweepView
from sftlab.studies.knowledge.results.sweep_tables import CHOSEN, PLAIN

NOT_MEASURED = "Not measured in this sweep."
DECIDED = ("better", "worse")
MOST_ROWS = 24  # rows that a figure of strategies holds


def sweep_sections(view: SweepView, findings: Sequence[Finding], origin: Origin) -> list[Section]:
    """All sections in order; one without data stays, and says so."""
    return [
        _strategies(view),
        _accuracy(view, findings),
        _ladder(view, findings),
        _training_set(view, findings),
        _kl(view, findings),
        _mastery(view),
        _concentration(view, findings),
        _distribution(view, findings),
        _layer_ranges(view),
        _time(view),
        _settings(view, origin),
    ]


def _strategies(view: SweepView) -> Section:
    # Variants say more than strategies, as long as a figure can hold them.
    scope: Literal["variant", "strategy"] = "variant" if len(view.variants) <= MOST_ROWS else "strategy"
    ranked = sweep_strategies.ranked(view, scope)
    several = len(view.variants) > len(view.choices("strategy"))
    see = NOT_MEASURED
    if ranked:
        # The recommended models' comparisons with others may repeat one of these.
        rows = [*view.family(CHOSEN), *view.family(PLAIN)]
        better, worse = (sum(row.verdict == word for row in rows) for word in DECIDED)
        see = (
            f"Each {scope} at the training set and percentage with its best dev score. Filled: that "
            "setting; hollow: plain fine-tuning on the same facts; lines: 95 % intervals. "
            f"Of {count(len(rows), 'comparison')} on test, of a chosen percentage with 0 % or with plain "
            f"fine-tuning, {better:,} are better, {worse:,} worse, and {len(rows) - better - worse:,} show no "
            "significant difference."
        )
    return Section(
        "strategies",
        "Strategies side by side",
        see,
        present(
            *(sweep_figures.strategies(view, ranked, scope, split) for split in DOMAINS),
            sweep_figures.tried(view) if view.searched else None,
        ),
        present(
            sweep_strategies.best(view),
            sweep_strategies.best(view, "variant") if several else None,
            sweep_strategies.table_7(view),
            sweep_strategies.every_verdict(view),
        ),
        data=("choice", "comparisons", "groups"),
    )


def _accuracy(view: SweepView, findings: Sequence[Finding]) -> Section:
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
        see = f"Accuracy of the tuned models of {view.main_name}, nothing restored. Thin bars: {bars}."
        if others:
            names = listed([other.title for other in others])
            see += f" Fine-tuned otherwise, and shown after it in domain: {names}."
    return Section(
        "accuracy",
        "What fine-tuning did",
        see,
        present(*plots),
        present(
            sweep_beside.more_data(view),
            sweep_strategies.tuned_otherwise(view),
            sweep_beside.by_test_bucket(view),
        ),
        data=("groups",),
        findings=findings_of(findings, "accuracy"),
        legend=bool(plots),
    )


def _ladder(view: SweepView, findings: Sequence[Finding]) -> Section:
    main = view.main
    tables = present(*(sweep_beside.ladder(view, split) for split in DOMAINS), sweep_beside.collapse(view))
    see, plots = NOT_MEASURED, []
    if main is not None and tables:
        plots = present(*(figures.ladder(main, split, size) for size in main.sizes for split in DOMAINS))
        plots += present(*(figures.ladder(other, TEST, other.sizes[-1]) for other in view.ladders))
        chosen = [r for r in view.choices("group") if r.variant == view.main_name]
        see = f"Undoing updates of the plain tuned models ({view.main_name})."
        gains = [r.test - r.test_tuned for r in chosen if r.test is not None and r.test_tuned is not None]
        if gains:
            ends = points(min(gains)), points(max(gains))
            see += (
                f" At the percentage chosen on dev accuracy changes by {between(*ends)} points in domain, over "
                f"{count(len(gains), 'group')} of training sets."
            )
        if view.ladders:
            see += f" After it, at the largest size: {listed([other.title for other in view.ladders])}."
    folded = [sweep_strategies.ladder_of(view, other) for other in view.ladders]
    return Section(
        "ladder",
        "Undoing updates, step by step",
        see,
        plots,
        [*tables, *present(*folded)],
        data=("groups", "choice"),
        findings=findings_of(findings, "ladder"),
        legend=bool(plots),
        rings=bool(plots),
    )


def _training_set(view: SweepView, findings: Sequence[Finding]) -> Section:
    table = sweep_beside.ladder(view, sweep_beside.TRAIN_SET)
    see = "Accuracy of each model on the very facts that it was trained on." if table else NOT_MEASURED
    return Section(
        "training-set",
        "The training facts themselves",
        see,
        tables=present(table),
        data=("groups",) if table else (),
        findings=findings_of(findings, "training-set"),
    )


def _kl(view: SweepView, findings: Sequence[Finding]) -> Section:
    main = view.main
    views = [] if main is None else [(main, view.main_name), *((v, v.title) for v in view.tuned_otherwise)]
    single = [point for study, name in views for point in sweep_figures.moved(study, name, seeds=True)]
    groups = [point for study, name in views for point in sweep_figures.moved(study, name, seeds=False)]
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
        sweep_figures.well_known_by_size(main),
        sweep_figures.kl_against_accuracy(single, names),
    )
    return Section(
        "kl",
        "How far the models moved",
        see,
        present(*plots),
        present(correlation(groups), study_tables.divergence(main)),
        data=("divergence", "groups"),
        findings=findings_of(findings, "kl"),
        legend=True,
    )


def correlation(groups: Sequence[Moved]) -> Table | None:
    """Correlation of KL with accuracy on bucket-4 test facts, over groups of training sets.

    Seeds of one group are not independent, so that a group is one point: the mean over its models. The
    interval of Pearson's r is Fisher's; both need at least four points that are not all alike.
    """
    from scipy import stats

    rows = []
    names = list(dict.fromkeys(point.variant for point in groups))
    for name in ["all", *names] if len(names) > 1 else names:
        points_of = [p for p in groups if name in ("all", p.variant)]
        kls, accuracies = [p.kl for p in points_of], [p.accuracy for p in points_of]
        if len(points_of) < 4 or len(set(kls)) == 1 or len(set(accuracies)) == 1:
            continue
        pearson, rho = stats.pearsonr(kls, accuracies), stats.spearmanr(kls, accuracies).statistic
        ends = pearson.confidence_interval(0.95)
        entries = [
            Entry(number(pearson.statistic, 2), below=[f"{number(ends.low, 2)} to {number(ends.high, 2)}"]),
            Entry(number(rho, 2)),
            Entry(f"{len(points_of)}"),
        ]
        rows.append(Row(name, entries))
    if not rows:
        return None
    return Table(
        "Correlation of KL with the accuracy on bucket-4 test facts",
        "tuned models",
        ["Pearson's r", "Spearman's rho", "groups"],
        rows,
        note="A group of training sets is one point. Small: 95 % interval.",
    )


def _mastery(view: SweepView) -> Section:
    """Table 1. Every variant has the same base model and facts, so the main one's is used for all."""
    if view.main is None or not view.main.results.mastery:
        return Section("mastery", "What the base model knows", NOT_MEASURED)
    return sections.mastery(view.main)


def _concentration(view: SweepView, findings: Sequence[Finding]) -> Section:
    table = sweep_beside.concentration(view)
    plot = figures.concentration(view.main) if view.main is not None else None
    return Section(
        "concentration",
        "Where the change is concentrated",
        "Share of the total relative change that the most changed weights hold; grey: the paper's range."
        if table
        else NOT_MEASURED,
        present(plot),
        present(table),
        data=("concentration",) if table else (),
        findings=findings_of(findings, "concentration"),
        legend=plot is not None,
    )


def _distribution(view: SweepView, findings: Sequence[Finding]) -> Section:
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
            figures.layers(layers, "sweep"),
            figures.modules(dict(modules), published.module_shares(), "sweep"),
        ),
        present(sweep_beside.modules(view), sweep_beside.layers(view)),
        data=("distribution",),
        findings=findings_of(findings, "distribution"),
    )


def _layer_ranges(view: SweepView) -> Section:
    table = sweep_strategies.table_11(view)
    see = "Which layers carry the fine-tuned behaviour: each range put back by itself."
    return Section(
        "layer-ranges",
        "Restoring ranges of layers",
        see if table else NOT_MEASURED,
        tables=present(table),
        data=("groups",) if table else (),
    )


def _time(view: SweepView) -> Section:
    if not view.times:
        return Section("time", "Where the time went", NOT_MEASURED)
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
    plot = sweep_figures.times(sums)
    return Section("time", "Where the time went", see, present(plot), [table], data=("times",))


TIME_COLUMNS = ("seconds", "share", "waiting, seconds", "hits")


def _settings(view: SweepView, origin: Origin) -> Section:
    results = view.results
    variants = [
        (variant.name, "; ".join([variant.strategy, *(f"{k} = {v}" for k, v in flat(variant.settings))]))
        for variant in results.variants
    ]
    provenance = flat(results.variants[0].results.provenance) if results.variants else []
    shown = [
        table_module.key_values("Variants: strategy and settings", variants),
        table_module.key_values("Settings of the sweep", flat(results.spec)),
        table_module.key_values("Provenance of the first variant", provenance),
        origin.provenance_table(),
        origin.model_table(),
    ]
    see = "Everything that was asked for, and what computed it."
    return Section("settings", "Settings and provenance", see, tables=present(*shown), data=("cells",))
