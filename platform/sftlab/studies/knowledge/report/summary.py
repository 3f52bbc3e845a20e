"""The plain-words summary: what was studied, what to recommend, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sftlab.analysis.accuracy import Interval, difference_interval, paired_interval
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, listed, number, percent, points, restored
from sftlab.studies.knowledge.report.buckets import (
    RESTORE,
    bucket_name,
    doing,
    mixture,
    state_words,
    step_words,
)
from sftlab.studies.knowledge.report.figures import SPLIT_NAMES
from sftlab.studies.knowledge.report.lookup import DOMAINS, View
from sftlab.studies.knowledge.report.origin import Origin
from sftlab.studies.knowledge.report.ties import nothing_gained, study_tie, with_tie
from sftlab.studies.knowledge.results.tables import BASE, ChoiceRow

ORDERS = {
    "top": "most changed weights",
    "bottom": "least changed weights",
    "random": "weights, drawn at random,",
}


@dataclass(frozen=True)
class Figure:
    """One number to remember: a label, the number, and what it is compared with."""

    label: str
    value: str
    change: str


@dataclass(frozen=True)
class Summary:
    studied: str
    recommendation: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    table: Table | None


def summarise(view: View, origin: Origin | None = None) -> Summary:
    choice = view.choice("recommended")
    if choice is None or choice.cell is None:
        text = "No restore percentage was chosen: this study has no accuracies on its dev splits."
        return Summary(studied(view), text, (), (), None)
    gains = {split: gain(view, choice, split) for split in DOMAINS}
    sentences = (
        chosen_how(view, choice),
        *(
            gain_sentence(view, split, interval)
            for split, interval in gains.items()
            if interval and choice.percent
        ),
        evidence(view, choice),
        common(view),
        incomplete(view),
        (origin or Origin()).how_to_get(("", choice.cell, choice.percent)),
    )
    return Summary(
        studied=studied(view),
        recommendation=recommendation(view, choice, gains),
        sentences=tuple(sentence for sentence in sentences if sentence),
        figures=tuple(key_figures(view, choice, gains)),
        table=comparison(view, choice, gains),
    )


def studied(view: View) -> str:
    """What the study did, in numbers."""
    results = view.results
    buckets = [bucket for bucket in view.train_buckets if bucket.isdecimal()]
    kinds = [count(len(buckets), "mastery bucket")] if buckets else []
    kinds += ["mixed sets"] if "mixed" in view.train_buckets else []
    mixtures = [bucket for bucket in view.train_buckets if mixture(bucket)]
    kinds += [count(len(mixtures), "mixture")] if mixtures else []
    asked = [f"{view.questions(split):,} {name}" for split, name in DOMAINS.items() if view.questions(split)]
    steps = [f"{p:g}" for p in view.percents if p > 0]
    text = (
        f"This study asks what supervised fine-tuning does to what a base model, {results.model}, knows. "
        f"It fine-tuned the model {count(len(results.cells), 'time')} "
        f"({listed(kinds)}, {listed([f'{size:,}' for size in view.sizes])} training facts)"
    )
    if steps:
        weights = ORDERS.get(view.order, "weights")
        if view.method == RESTORE:
            text += f", put {listed(steps)} % of each tuned model's {weights} back to their base values"
        else:
            text += f", edited each tuned model by the strategy {view.method} at {listed(steps)} %"
    text += f", and put questions to {count(view.models, 'model')}"
    return f"{text}: {listed(asked)} test questions each." if asked else f"{text}."


def recommendation(view: View, choice: ChoiceRow, gains: Mapping[str, Interval | None]) -> str:
    """What to do, and at once whether the test questions bear it out."""
    cell = view.cell(str(choice.cell))
    assert cell is not None, f"the choice names a cell without a row: {choice.cell}"
    origin = (
        "facts of mixed buckets"
        if cell.train_bucket == "mixed"
        else f"facts of {bucket_name(cell.train_bucket)}"
    )
    step = step_words(view.method, choice.percent)
    text = f"Fine-tune on {cell.size:,} {origin}{f', then {step}' if step else ' and restore nothing'}."
    known = [interval for interval in gains.values() if interval]
    if step and known and all(interval.low <= 0 <= interval.high for interval in known):
        text += " On test there is no clear gain over the tuned model as it is."
    return with_tie(study_tie(view.results, choice), text, nothing_gained(choice, view.percents))


def chosen_how(view: View, choice: ChoiceRow) -> str:
    tie = study_tie(view.results, choice)
    dev = sum(view.questions(split) for split in ("dev", "dev_ood"))
    others = sum(1 for row in view.results.choice if row.scope == "cell")
    grid = f"{count(others, 'cell')} \N{MULTIPLICATION SIGN} {count(len(view.percents), 'percentage')}"
    return (
        f"This model was chosen on the {dev:,} dev questions alone: {percent(choice.dev)} there (mean of in "
        f"and out of domain), {'one of the best' if tie else 'the best'} of {grid}. The test questions took no part "
        f"in the choice.{f' {tie.names}' if tie else ''}"
    )


def gain(view: View, choice: ChoiceRow, split: str) -> Interval | None:
    """Test accuracy of the recommended model less the tuned model's, with a 95 % interval."""
    paired = view.paired(str(choice.cell), choice.percent, split)
    if any(bucket.questions for bucket in paired):
        return paired_interval(paired)
    now, tuned = (view.buckets(str(choice.cell), p, split) for p in (choice.percent, 0.0))
    return difference_interval(now, tuned) if now and tuned else None


def gain_sentence(view: View, split: str, interval: Interval) -> str:
    ends = f"95 % interval {points(interval.low)} to {points(interval.high)} points"
    size = number(100 * abs(interval.value))
    where = DOMAINS[split].capitalize()
    if interval.low > 0:
        return f"{where}, {doing(view.method)} gains {size} points, more than chance explains ({ends})."
    if interval.high < 0:
        return f"{where}, {doing(view.method)} loses {size} points, more than chance explains ({ends})."
    change = points(interval.value)
    return f"{where}, the change of {change} points is within the noise of so few questions ({ends})."


def evidence(view: View, choice: ChoiceRow) -> str:
    """The number of questions of the figures, and the kind of their interval."""
    paired = any(view.paired(str(choice.cell), choice.percent, split) for split in DOMAINS)
    kind = (
        "The intervals compare both models' answers question by question."
        if paired
        else "The intervals treat both models' answers as independent, which makes them wider than need be."
    )
    return f"{choice.questions:,} test questions stand behind it. {kind}" if choice.percent else ""


def common(view: View) -> str:
    choice, cells = view.choice("common"), [r for r in view.results.choice if r.scope == "cell"]
    if choice is None or choice.test is None or choice.test_tuned is None or len(cells) < 2:
        return ""
    if not choice.percent:
        return f"As one percentage for all cells, dev chooses 0 %: {doing(view.method)} does not help on average."
    return (
        f"As one percentage for all {len(cells)} cells, dev chooses {restored(choice.percent)}: "
        f"{points(choice.test - choice.test_tuned)} points in domain on average."
    )


def incomplete(view: View) -> str:
    """A warning where an accuracy is not the mean of all five buckets."""
    rows = [r for r in view.results.accuracy if r.split != "train_set" and r.empty_buckets]
    splits = list(dict.fromkeys(row.split for row in rows))
    if not splits:
        return ""
    where = listed([SPLIT_NAMES[split] for split in splits])
    return f"Careful: not every bucket has questions in: {where}. The means there leave the empty ones out."


def key_figures(view: View, choice: ChoiceRow, gains: dict[str, Interval | None]) -> list[Figure]:
    figures, against = [], "0 % restored" if view.method == RESTORE else "the tuned model"
    for split, value in (("test", choice.test), ("test_ood", choice.test_ood)):
        if value is not None:
            change = gains[split]
            words = f"{points(change.value)} points against {against}" if change and choice.percent else ""
            figures.append(Figure(f"Test accuracy, {DOMAINS[split]}", percent(value), words))
    what = "Restored weights" if view.method == RESTORE else f"Percentage of {view.method}"
    how = "tied on dev" if study_tie(view.results, choice) else "chosen on dev"
    figures.append(Figure(what, restored(choice.percent), how))
    return figures


def comparison(view: View, choice: ChoiceRow, gains: dict[str, Interval | None]) -> Table | None:
    """The base model, the tuned model and the recommended model on the test questions."""
    models = [("base model", BASE, None), ("tuned model", str(choice.cell), 0.0)]
    if choice.percent:
        models.append((state_words(view.method, choice.percent), str(choice.cell), choice.percent))
    splits = [split for split in DOMAINS if view.questions(split)]
    rows = []
    for name, cell, at in models:
        found = [view.row(cell, at, split) for split in splits]
        entries = [Entry(percent(row.accuracy), strong=bool(at)) if row else NOTHING for row in found]
        rows.append(Row(name, entries))
    if choice.percent:
        spans = [gains[split] for split in splits]
        entries = [
            Entry(points(i.value), f"{points(i.low)} to {points(i.high)}") if i else NOTHING for i in spans
        ]
        rows.append(Row("gain, points", entries))
    rows.append(Row("questions", [Entry(f"{view.questions(split):,}") for split in splits], quiet=True))
    caption = "Test accuracy: mean of the five buckets of the base model's mastery"
    note = "The base model has not been tuned to this form of question; what it knows is its mastery, below."
    return Table(caption, "", [DOMAINS[split] for split in splits], rows, note=note) if splits else None
