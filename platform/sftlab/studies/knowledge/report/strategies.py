"""Strategies side by side: each one's best setting, every verdict, and the paper's Tables 7 and 11."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from sftlab.reporting.table import FULL_TONE, NOTHING, Entry, Row, Table
from sftlab.reporting.text import between, count, number, points, restored
from sftlab.studies.knowledge.report import published
from sftlab.studies.knowledge.report.buckets import bucket_name, column_name, step_words
from sftlab.studies.knowledge.report.lookup import DOMAINS, MIXED, TEST, Group, VariantView, bucket_order
from sftlab.studies.knowledge.report.tables import accuracy_text, difference_of, direction
from sftlab.studies.knowledge.report.view import View, data_words, paper_size, setting_words, share_of
from sftlab.studies.knowledge.results.rows import (
    BEST,
    CHOSEN,
    PLAIN,
    ChoiceRow,
    ComparisonRow,
    GroupRow,
    fullest,
)

# The paper's rows of Table 7 and the strategies that correspond to them here.
TABLE_7 = {
    "LLaMA-3-8B-Instruct": None,
    "SFT (Mixed)": "mixed",
    "SFT (Divided)": "divided",
    "LoRA": "lora",
    "Parameter Restoration": "restore",
}
PARTS = 8  # ranges of layers in Table 11
Scores = Mapping[str, GroupRow | None]  # by split


def best(view: View, scope: str = "strategy") -> Table | None:
    """Every strategy, or variant, at its best setting, chosen on dev and judged on test."""
    found = ranked(view, scope)
    rows = [
        Row(getattr(row, scope), _best_entries(view, row, strong=index == 0))
        for index, row in enumerate(found)
    ]
    if not rows:
        return None
    folded = f"All {len(rows)} variants at their best" if scope == "variant" else ""
    per_split = ["score", "against plain fine-tuning"]
    return Table(
        f"Every {scope} at the setting with its best dev score; scores in %, differences in points",
        scope,
        ["score", *per_split * 2, "setting"],
        rows,
        [("dev", 1), *((f"test, {name}", 2) for name in DOMAINS.values()), ("chosen on dev", 1)],
        note="Score: mean of the mastery buckets, ± standard deviation over training sets; under it its 95 % "
        "interval over questions and training sets. Plain fine-tuning: the same facts, nothing restored. "
        f"{tested(view)} {view.competing_rule}".rstrip(),
        folded=folded,
    )


def ranked(view: View, scope: str = "strategy") -> list[ChoiceRow]:
    """The best setting of every strategy or variant, the best dev score first; those of fewer seeds come last."""
    rows = view.choices(scope)
    competing = fullest(rows)
    return sorted(rows, key=lambda row: (row not in competing, -row.dev))


def tested(view: View) -> str:
    """The evidence for the verdicts, and what they could have seen, in words."""
    counts = [len(view.family(family)) for family in (CHOSEN, PLAIN, BEST)]
    if not sum(counts):
        return ""
    return (
        "A verdict is better or worse where p is below 0.05: the larger of a paired randomisation test over questions "
        "and a paired t test over training sets, corrected by Holm's method within its family "
        f"({counts[0]} comparisons with 0 %, {counts[1]} with plain fine-tuning, {counts[2]} of the recommended models "
        f"with others). {detectable(view.results.comparisons)}"
    )


def detectable(rows: Sequence[ComparisonRow]) -> str:
    """The smallest true difference that comparisons could have detected, in words."""
    seen = sorted(row.detectable for row in rows if row.detectable is not None)
    single = sum(row.detectable is None for row in rows)
    alone = "" if not single else f"{count(single, 'comparison')} of one training set: no verdict."
    if not seen:
        return alone
    middle = median(seen)
    text = (
        "Smallest true difference that would have been detected with 80 % power, within its family: "
        f"{between(number(100 * seen[0]), number(100 * seen[-1]))} points"
    )
    return " ".join(filter(None, [f"{text}, median {number(100 * middle)}.", alone]))


def _best_entries(view: View, row: ChoiceRow, strong: bool) -> list[Entry]:
    variant = view.variants[row.variant]
    words = [step_words(row.strategy, row.percent, share_of(variant)), setting_words(variant)]
    entries = [Entry(number(100 * row.dev))]
    for split in DOMAINS:
        score = view.of_choice(row, split)
        entries.append(score_entry(score, strong))
        entries.append(verdict_entry(view.against_plain(row, split)))
    setting = data_words(*row.group[1:])
    return [*entries, Entry(setting, below=[word for word in words if word])]


def score_entry(score: GroupRow | None, strong: bool = False) -> Entry:
    if score is None:
        return NOTHING
    below = [interval_text(score.low, score.high, 1), f"{score.questions:,} questions"]
    if score.seeds > 1:
        below[1] += f" × {score.seeds} sets"
    return Entry(accuracy_text(score), below=below, strong=strong)


def verdict_entry(row: ComparisonRow | None) -> Entry:
    """A difference in points with its interval and verdict."""
    if row is None:
        return NOTHING
    tone = max(-1.0, min(1.0, row.difference / FULL_TONE)) if row.decided else None
    seen = [] if row.detectable is None else [f"detects {number(100 * row.detectable)}"]
    below = [points_text(row), row.verdict, *seen]
    return Entry(points(row.difference), tone=tone, below=below)


def points_text(row: ComparisonRow) -> str:
    return f"{points(row.low)} to {points(row.high)}"


def interval_text(low: float, high: float, digits: int) -> str:
    return f"{number(100 * low, digits)} to {number(100 * high, digits)}"


def recommended_against(view: View) -> Table | None:
    """The recommended models against every other strategy's best and the best plain fine-tuning."""
    rows: dict[str, dict[str, ComparisonRow]] = {}
    for row in sorted(view.family(BEST), key=lambda row: not view.is_plain(row)):
        rows.setdefault(_other(view, row), {})[row.split] = row
    if not rows:
        return None
    body = [Row(name, [verdict_entry(by.get(split)) for split in DOMAINS]) for name, by in rows.items()]
    return Table(
        "The recommended models less others, in points",
        "against",
        list(DOMAINS.values()),
        body,
        note="On the same questions and seeds; under each its 95 % interval and the smallest difference that would "
        "have been detected.",
    )


def _other(view: View, row: ComparisonRow) -> str:
    strategy = view.variants[row.against_variant].strategy
    name = "plain fine-tuning" if view.is_plain(row) else strategy
    return f"{name}: {data_words(row.against_bucket, row.against_size)}"


def every_verdict(view: View) -> Table | None:
    """The chosen percentage of every variant, data and size against 0 % and plain fine-tuning."""
    rows = []
    for name in view.variants:
        choices = [row for row in view.choices("group") if row.variant == name]
        if choices and view.several:
            rows.append(Row(name))
        for row in choices:
            entries = [Entry(restored(row.percent)), Entry(number(100 * row.dev))]
            for split in DOMAINS:
                own = view.results.comparison(CHOSEN, row, split) if row.percent else None
                entries.append(verdict_entry(own))
                entries += [verdict_entry(view.against_plain(row, split))] if view.several else []
            rows.append(Row(data_words(*row.group[1:]), entries))
    if not rows:
        return None
    against = ["against 0 %", "against plain"] if view.several else ["against 0 %"]
    every = "variant and training set" if view.several else "training set"
    return Table(
        f"Every {every}: the percentage chosen on dev, and what it changes on test, in points",
        "trained on",
        ["chosen", "dev score", *against * 2],
        rows,
        [("on dev", 2), *((f"test, {name}", len(against)) for name in DOMAINS.values())],
        note=tested(view),
        folded=f"All {len(view.choices('group'))} choices and verdicts" if view.several else "",
    )


def table_7(view: View) -> Table | None:
    """The paper's strategies compared with the same ones here, then the strategies that the paper has not tried."""
    by_strategy = {row.strategy: row for row in view.choices("strategy")}
    if not by_strategy:
        return None
    # Ablations of the paper's restoration are variants of one strategy; its row is for the paper's own.
    by_strategy |= {
        row.strategy: row for row in view.choices("variant") if row.variant == view.results.reference
    }
    # The paper's LoRA is tuned on mixed buckets.
    mixed_lora = [r for r in view.choices("group") if r.strategy == "lora" and r.train_bucket == MIXED]
    by_strategy |= {row.strategy: row for row in sorted(fullest(mixed_lora), key=lambda row: row.dev)}
    lora = by_strategy.get("lora")
    divided = _scores(view, by_strategy.get("divided")) or _plain_best(view, "0", "1", "2", "3", "4")
    paper = published.published()["strategies"]["rows"]
    rows = []
    for title, strategy in TABLE_7.items():
        found = _scores(view, by_strategy.get(strategy)) if strategy else {}
        if title == "SFT (Mixed)":
            found = found or _plain_best(view, "mixed")
        if title == "SFT (Divided)":
            found = divided
        entries = [
            _beside_divided(found.get(split), divided.get(split), paper, title, column)
            for column, split in enumerate(DOMAINS)
        ]
        rows.append(Row(title, entries))
    for row in ranked(view):
        if row.strategy not in TABLE_7.values():
            found = _scores(view, row)
            rows.append(Row(row.strategy, [_score_text(found.get(split)) for split in DOMAINS]))
    return Table(
        "Test accuracy in % by strategy (the paper's Table 7)",
        "strategy",
        list(DOMAINS.values()),
        rows,
        note="Each at its best dev score. Small: published. Mark: better or worse than SFT (Divided)."
        + (f" LoRA: trained on {data_words(*lora.group[1:])}." if lora else ""),
    )


def _scores(view: View, row: ChoiceRow | None) -> Scores:
    return {split: view.of_choice(row, split) for split in DOMAINS} if row else {}


def _plain_best(view: View, *buckets: str) -> Scores:
    """The plain tuned models with the best dev score among those of the given buckets."""
    rows = [
        row
        for row in view.choices("group")
        if row.variant == view.results.reference and row.train_bucket in buckets
    ]
    if not rows:
        return {}
    row = max(fullest(rows), key=lambda row: row.dev_tuned)
    return {split: view.of_choice(row, split, 0.0) for split in DOMAINS}


def _score_text(score: GroupRow | None) -> Entry:
    return Entry(accuracy_text(score)) if score else NOTHING


def _beside_divided(
    score: GroupRow | None,
    divided: GroupRow | None,
    paper: Mapping[str, Sequence[float]],
    title: str,
    column: int,
) -> Entry:
    below = [number(paper[title][column])]
    if score is None:
        return Entry("–", below=below)
    mark = ""
    if divided is not None and divided != score:
        _, low, high = difference_of(score, divided)
        mark = direction(low, high, paper[title][column] - paper["SFT (Divided)"][column])
    return Entry(accuracy_text(score), below=below, mark=mark)


def tuned_otherwise(view: View) -> Table | None:
    """In-domain accuracy of every variant that fine-tunes otherwise, nothing restored, at the largest size."""
    main = view.main
    if main is None or not view.tuned_otherwise:
        return None
    buckets = sorted({b for v in (main, *view.tuned_otherwise) for b in v.train_buckets}, key=bucket_order)
    rows = []
    for study in (main, *view.tuned_otherwise):
        name = study.title or view.main_name
        groups = [Group(bucket, study.sizes[-1]) for bucket in buckets]
        rows.append(Row(name, [_score_text(view.score(name, group, 0.0, TEST)) for group in groups]))
    return Table(
        "In-domain accuracy in % by variant, nothing restored, at the largest size",
        "variant",
        [column_name(bucket) for bucket in buckets],
        rows,
        [("trained on bucket", len(buckets))],
    )


def table_11(view: View) -> Table | None:
    """Accuracy when whole ranges of layers are restored; variants of `restore` whose settings name layers."""
    ranges = []
    for variant in view.results.variants:
        layers = [int(layer) for layer in re.findall(r"\d+", str(variant.settings.get("layers") or ""))]
        if layers and variant.strategy == "restore":
            ranges.append((min(layers), max(layers), view.view(variant.name), variant.name))
    if not ranges or view.main is None:
        return None
    ranges.sort(key=lambda found: found[:2])
    depth = max([last + 1 for _, last, _, _ in ranges] + [_layers(view.main)])
    sizes = view.main.sizes
    size = next((s for s in sizes if paper_size(s, sizes) == published.SIZES[0]), sizes[0])
    rows = []
    for bucket in view.main.train_buckets:
        entries = []
        for first, last, study, name in ranges:
            score = view.score(name, Group(bucket, size), study.percents[-1], TEST)
            entries.append(_layer_entry(score, bucket, published_parts(first, last, depth)))
        rows.append(Row(bucket_name(bucket), entries))
    percents = {study.percents[-1] for _, _, study, _ in ranges}
    return Table(
        f"In-domain accuracy in % when a range of layers is restored, {size:,} training facts (Table 11)",
        "trained on",
        [f"{first}–{last}" if first != last else str(first) for first, last, _, _ in ranges],
        rows,
        [("restored layers", len(ranges))],
        note=f"{' or '.join(map(restored, sorted(percents)))} of each range restored. Small: published, the "
        "mean of the ranges of the same depth. Mark: the change against 0 %.",
    )


def published_parts(first: int, last: int, depth: int) -> range:
    """The published ranges (of `PARTS` equal ones) that layers first to last of `depth` reach into."""
    return range(first * PARTS // depth, -(-(last + 1) * PARTS // depth))


def _layer_entry(score: GroupRow | None, bucket: str, parts: range) -> Entry:
    theirs = change = None
    if bucket.isdecimal():
        row = published.published()["layer_restoration"]["rows"][int(bucket)]
        theirs = fmean(row[part] for part in parts) / 100
        change = theirs - published.ladder(TEST, published.SIZES[0])[0.0][int(bucket)]
    below = [number(100 * theirs)] if theirs is not None else []
    if score is None:
        return Entry("–", below=below)
    mark, tone = "", None
    if score.change is not None and score.change_low is not None and score.change_high is not None:
        tone = max(-1.0, min(1.0, score.change / FULL_TONE))
        mark = direction(score.change_low, score.change_high, change)
    return Entry(accuracy_text(score), tone=tone, below=below, mark=mark)


def _layers(view: VariantView) -> int:
    """Layers of the model, as far as the tables name them; 0 without."""
    names = {row.name for row in view.variant.distribution if row.kind == "layer" and row.name.isdecimal()}
    return len(names)


def ladder_of(view: View, study: VariantView) -> Table | None:
    """In-domain accuracy of one more variant by the percentage of its ladder."""
    rows = []
    for size in study.sizes:
        block = []
        for at in study.percents:
            scores = [view.score(study.title, Group(b, size), at, TEST) for b in study.train_buckets]
            if any(scores):
                block.append(Row(restored(at), [_ladder_entry(score) for score in scores], quiet=at == 0))
        if block:
            rows += [Row(f"{size:,} training facts"), *block]
    if not rows:
        return None
    columns = [column_name(bucket) for bucket in study.train_buckets]
    return Table(
        f"{study.title}: accuracy in %, in domain, and its change in points against 0 %",
        "at",
        columns,
        rows,
        [("trained on bucket", len(columns))],
        folded=f"Ladder of {study.title}",
    )


def _ladder_entry(score: GroupRow | None) -> Entry:
    if score is None:
        return NOTHING
    if score.change is None:
        return Entry(accuracy_text(score))
    tone = max(-1.0, min(1.0, score.change / FULL_TONE))
    return Entry(accuracy_text(score), points(score.change), tone=tone)
