"""Accuracy by topic, next to the majority answer and to guesses by the frequency of answers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sftlab.reporting.section import Section, present
from sftlab.reporting.svg import FAINT, INK, drawing, inline
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, number, percent
from sftlab.studies.knowledge.report.figures import percent_axis
from sftlab.studies.knowledge.report.lookup import DOMAINS, TEST, VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.answer_rows import TopicBaselineRow, TopicRow, mean_correlation
from sftlab.studies.knowledge.results.rows import BASE

SERIES = {
    "majority": ("majority answer", "#999999", "|"),
    "base": ("base model", "#66727f", "o"),
    "tuned": ("tuned", "#E69F00", "s"),
    "restored": ("restored", "#0072B2", "D"),
}
SHORT = 24  # characters of an answer


def section(view: View) -> Section | None:
    """The section of the main variant; None where accuracy by topic was not measured."""
    main = view.main
    if main is None or not main.variant.topics or not main.sizes:
        return None
    size = main.sizes[-1]
    return Section(
        "topics",
        "Accuracy by topic",
        _words(main, size),
        present(*(figure(main, size, split) for split in DOMAINS)),
        present(*(by_topic(main, size, split) for split in DOMAINS)),
        data=("topics", "topic_baselines"),
    )


def shown_rows(view: VariantView) -> list[TopicRow]:
    """The rows of the base model, and of every group at 0 % and at the percentage that the fates are shown at."""
    return [row for row in view.variant.topics if view.shows(row.cell, row.percent)]


def by_topic(view: VariantView, size: int, split: str) -> Table | None:
    """Accuracy of all models of one size by topic, with the baselines."""
    rows = []
    for topic in _topics(view, split):
        known = _baseline(view, split, topic)
        models = _models(view, size, split, topic)
        accuracies = [_accuracy(found) for found in models.values()]
        correlations = [mean_correlation(found) for found in models.values()]
        questions = max((row.questions for found in models.values() for row in found), default=0)
        baselines = [NOTHING] * 3
        if known is not None:
            name = known.majority if len(known.majority) <= SHORT else f"{known.majority[:SHORT]}..."
            guessed = Entry(percent(known.frequency_accuracy))
            baselines = [Entry(name), Entry(percent(known.majority_accuracy)), guessed]
        entries = [Entry(f"{questions:,}"), *baselines]
        entries += [NOTHING if value is None else Entry(percent(value)) for value in accuracies]
        entries += [NOTHING if rho is None else Entry(number(rho, 2)) for rho in correlations]
        rows.append(Row(topic, entries))
    if not rows:
        return None
    models_shown = ["base model", "tuned", "restored"]
    source = "train" if split == TEST else "dev, out of domain"
    return Table(
        f"Accuracy by topic, {DOMAINS[split]}, all models of {size:,} training facts",
        "topic",
        ["questions", "majority answer", "accuracy of it", "by frequency", *models_shown, *models_shown],
        rows,
        [("", 1), ("without knowledge of a fact", 3), ("accuracy", 3), ("correlation with frequency", 3)],
        note=f"All facts with a bucket. The majority answer is the most frequent one of the split {source}. "
        "By frequency: expected accuracy of answers drawn as often as they occur there. Correlation: Spearman's rho "
        "between how often the answer of a fact occurs there and whether the model is right, mean over models.",
    )


def figure(view: VariantView, size: int, split: str) -> str | None:
    """Accuracy by topic: a row a topic, a marker for the majority answer and the base, tuned and restored models."""
    topics = _topics(view, split)
    if not topics:
        return None
    with drawing(5.6, 1.2 + 0.21 * len(topics)) as (drawn, axes):
        for place, topic in enumerate(reversed(topics)):
            axes.axhline(place, color="#e4e8ec", linewidth=0.8, zorder=0)
            known = _baseline(view, split, topic)
            values = {} if known is None else {"majority": known.majority_accuracy}
            for name, found in _models(view, size, split, topic).items():
                value = _accuracy(found)
                if value is not None:
                    values[name] = value
            for name, value in values.items():
                _, colour, marker = SERIES[name]
                axes.plot(value, place, marker, color=colour, markersize=9 if marker == "|" else 5)
        for label, colour, marker in SERIES.values():
            axes.plot([], [], marker, color=colour, label=label)
        axes.set_yticks(range(len(topics)), list(reversed(topics)), color=INK)
        axes.grid(visible=False)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"accuracy, {DOMAINS[split]}", color=FAINT)
        percent_axis(axes, "x")
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return inline(drawn, f"{view.prefix}topics-{split}", f"Accuracy by topic, {DOMAINS[split]}")


def _words(view: VariantView, size: int) -> str:
    judged, above = 0, 0
    for split in DOMAINS:
        for topic in _topics(view, split):
            known = _baseline(view, split, topic)
            tuned = _accuracy(_models(view, size, split, topic)["tuned"])
            if known is not None and tuned is not None:
                judged += 1
                above += tuned > known.majority_accuracy
    text = (
        f"In {above} of {count(judged, 'topic')} the models that are tuned on {size:,} facts are right more often than "
        "the most frequent answer of the topic would be."
    )
    rows = [row for topic in _topics(view, TEST) for row in _models(view, size, TEST, topic)["tuned"]]
    rho = mean_correlation(rows)
    if rho is not None:
        text += f" In domain, the mean correlation of being right with the frequency of the answer is {number(rho, 2)}."
    return text


def _topics(view: VariantView, split: str) -> list[str]:
    return sorted({row.topic for row in view.variant.topics if row.split == split})


def _baseline(view: VariantView, split: str, topic: str) -> TopicBaselineRow | None:
    rows = view.variant.topic_baselines
    return next((row for row in rows if (row.split, row.topic) == (split, topic)), None)


def _models(view: VariantView, size: int, split: str, topic: str) -> dict[str, list[TopicRow]]:
    """The rows of the base model, and of the tuned and the restored models of one size that are shown."""
    cells = {cell.cell for group in view.groups_of(size) for cell in view.groups[group]}
    found: dict[str, list[TopicRow]] = {"base": [], "tuned": [], "restored": []}
    for row in view.topics.get((split, topic), ()):
        if row.cell == BASE:
            found["base"].append(row)
        elif row.cell in cells and view.shows(row.cell, row.percent):
            found["restored" if row.percent else "tuned"].append(row)
    return found


def _accuracy(rows: Sequence[TopicRow]) -> float | None:
    return fmean(row.accuracy for row in rows) if rows else None
