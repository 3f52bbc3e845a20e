"""The report's sections, from top to bottom: what to see, the figures, the tables, the data."""

from __future__ import annotations

from collections.abc import Sequence

from sftlab.config.leaves import flat
from sftlab.reporting import table as table_module
from sftlab.reporting.finding import Finding
from sftlab.reporting.section import Section, findings_of, present
from sftlab.reporting.text import between, count, listed, number, percent, points, restored
from sftlab.studies.knowledge.report import evidence, figures, published, tables
from sftlab.studies.knowledge.report.buckets import bucket_name
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, Group, View
from sftlab.studies.knowledge.report.origin import Origin

NOT_MEASURED = "Not measured in this study."


def sections(view: View, findings: Sequence[Finding], origin: Origin) -> list[Section]:
    """All sections in order; one without data stays, and says so."""
    return [
        mastery(view),
        _accuracy(view, findings),
        _ladder(view, findings),
        _training_set(view, findings),
        _kl(view, findings),
        _concentration(view, findings),
        _distribution(view, findings),
        _training(view),
        _settings(view, origin),
    ]


def mastery(view: View) -> Section:
    facts = [figures.mastery_facts(view, "train", bucket) for bucket in range(5)]
    see = NOT_MEASURED
    if sum(facts):
        shares = [n / sum(facts) for n in facts]
        smallest = min(range(5), key=lambda bucket: shares[bucket])
        see = (
            f"Of {sum(facts):,} train facts, {percent(shares[0], 0)} are never completed right (bucket 0) "
            f"and {percent(shares[4], 0)} more than three times in four (bucket 4). "
            f"The smallest bucket is {smallest} with {percent(shares[smallest], 0)}."
        )
    unscored = sum(figures.mastery_facts(view, split, None) for split in figures.SPLIT_NAMES)
    if unscored:
        see += f" {count(unscored, 'fact')} could not be scored."
    parts = (figures.mastery(view), tables.mastery(view))
    return Section(
        "mastery",
        "What the base model knows",
        see,
        present(parts[0]),
        present(parts[1]),
        data=("mastery",),
        legend=parts[0] is not None,
    )


def _accuracy(view: View, findings: Sequence[Finding]) -> Section:
    ranked = [(s.mean, g) for g in view.groups if (s := view.accuracy(g, 0.0, TEST))]
    see = NOT_MEASURED
    if ranked:
        (high, best), (low, worst) = max(ranked), min(ranked)
        see = (
            f"In domain, the tuned models reach from {percent(low)} ({_named(worst)}) "
            f"to {percent(high)} ({_named(best)})."
        )
        base = view.base(TEST)
        if base is not None:
            see += f" Dashed: the base model, asked in the same way, with {percent(base)}."
    seeds = any(len(cells) > 1 for cells in view.groups.values())
    bars = "one standard deviation over training sets" if seeds else "the 95 % interval of the questions"
    return Section(
        "accuracy",
        "What fine-tuning did",
        f"{see} Thin bars: {bars}." if ranked else see,
        present(*(figures.accuracy_by_size(view, split) for split in DOMAINS)),
        present(tables.accuracy(view)),
        data=("accuracy",),
        findings=findings_of(findings, "accuracy"),
        legend=bool(ranked),
    )


def _ladder(view: View, findings: Sequence[Finding]) -> Section:
    see, chosen = NOT_MEASURED, [r for r in view.results.choice if r.scope == "cell"]
    if chosen:
        gains = [r.test - r.test_tuned for r in chosen if r.test is not None and r.test_tuned is not None]
        collapsed = sorted(r.collapse_percent for r in chosen if r.collapse_percent is not None)
        percents = sorted({r.percent for r in chosen})
        see = f"Dev chose {_span(percents)} for the {count(len(chosen), 'cell')}"
        if gains:
            ends = between(points(min(gains)), points(max(gains)))
            see += f"; on test in domain that changes accuracy by {ends} points"
        see += "."
        if collapsed:
            see += (
                f" {len(collapsed)} of {len(chosen)} collapse on dev (below half of the tuned accuracy), "
                f"from {_span(collapsed, 'or')} on."
            )
    plots = [figures.ladder(view, split, size) for size in view.sizes for split in DOMAINS]
    return Section(
        "ladder",
        {"bottom": "Undoing the smallest updates", "random": "Undoing updates at random"}.get(
            view.order, "Undoing the largest updates"
        ),
        see,
        present(*plots),
        present(*(tables.ladder(view, split) for split in DOMAINS)),
        data=("choice", "paired", "accuracy"),
        findings=findings_of(findings, "ladder"),
        legend=any(plots),
        rings=bool(chosen),
    )


def _training_set(view: View, findings: Sequence[Finding]) -> Section:
    table = tables.ladder(view, "train_set")
    see = NOT_MEASURED
    values = [(s.mean, g) for g in view.groups if (s := view.accuracy(g, 0.0, "train_set"))]
    if values:
        (low, worst), (high, best) = min(values), max(values)
        see = (
            f"The tuned models answer {percent(low)} ({_named(worst)}) "
            f"to {percent(high)} ({_named(best)}) "
            "of the very questions that they were trained on."
        )
    return Section(
        "training-set",
        "The training facts themselves",
        see,
        tables=present(table),
        data=("accuracy",) if values else (),
        findings=findings_of(findings, "training-set"),
    )


def _kl(view: View, findings: Sequence[Finding]) -> Section:
    values = [(s.mean, g) for g in view.groups if (s := view.kl(g))]
    see = NOT_MEASURED
    if values:
        (low, near), (high, far) = min(values), max(values)
        see = (
            "KL divergence of the first answer token says how far a tuned model has moved from its base: "
            f"least after {_named(near)} ({number(low, 2)} nats), "
            f"most after {_named(far)} ({number(high, 2)} nats)."
        )
    return Section(
        "kl",
        "How far the models moved",
        see,
        present(figures.kl_by_size(view), figures.kl_against_accuracy(view)),
        present(tables.divergence(view)),
        data=("divergence", "accuracy") if values else (),
        findings=findings_of(findings, "kl"),
        legend=bool(values),
    )


def _concentration(view: View, findings: Sequence[Finding]) -> Section:
    see = NOT_MEASURED
    if view.results.concentration:
        paper = published.concentration_range()
        shares: dict[float, list[float]] = {}
        for row in view.results.concentration:
            shares.setdefault(row.top_percent, []).append(row.share)
        gaps = {top: evidence.mean(v) - sum(paper[top]) / 2 for top, v in shares.items() if top in paper}
        see = (
            "Share of the total relative change that the most changed weights hold; grey: the paper's range."
        )
        if gaps:
            top = max(gaps, key=lambda key: abs(gaps[key]))
            see += f" The largest gap to the paper is {points(gaps[top])} points, at the top {restored(top)}."
    plot = figures.concentration(view)
    return Section(
        "concentration",
        "Where the change is concentrated",
        see,
        present(plot),
        present(tables.concentration(view)),
        data=("concentration",),
        findings=findings_of(findings, "concentration"),
        legend=plot is not None,
    )


def _distribution(view: View, findings: Sequence[Finding]) -> Section:
    layers, modules = (evidence.distribution(view, kind) for kind in ("layer", "module"))
    at, see = evidence.distribution_percent(view), NOT_MEASURED
    if at is not None and modules:
        see = (
            f"Where the restored weights lie when {restored(at)} are restored, mean over the cells. "
            f"The largest part is in {modules[0][0]} ({percent(modules[0][1])})."
        )
    paper = published.module_shares()
    return Section(
        "distribution",
        "Layers and modules",
        see,
        present(figures.layers(layers), figures.modules(dict(modules), paper)),
        present(tables.modules(view), tables.layers(view)),
        data=("distribution",),
        findings=findings_of(findings, "distribution"),
    )


def _training(view: View) -> Section:
    plots = present(*(figures.training(view, group) for group in view.groups))
    seconds = [cell.seconds for cell in view.results.cells if cell.seconds is not None]
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
        present(tables.training(view)),
        data=("cells", "training"),
        small=True,
    )


def _settings(view: View, origin: Origin) -> Section:
    results = view.results
    shown = [
        table_module.key_values("Settings (these are hashed into the results' ids)", flat(results.spec)),
        table_module.key_values("Provenance: versions, base model and facts", flat(results.provenance)),
        origin.provenance_table(),
        origin.model_table(),
    ]
    see = "Everything that was asked for, and what computed it."
    return Section("settings", "Settings and provenance", see, tables=present(*shown))


def _span(values: Sequence[float], joint: str = "and") -> str:
    """'10 %', '5 % and 10 %', '3 %, 5 % and 20 %'."""
    return listed([restored(value) for value in dict.fromkeys(values)], joint)


def _named(group: Group) -> str:
    return f"{bucket_name(group.train_bucket)}, {group.size:,} facts"
