"""Topics that training sets leave out: accuracy on them next to that of models which are trained on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from sftlab.analysis.statistics import over_sets
from sftlab.config.leaves import flat
from sftlab.reporting.section import Section
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import between, percent, points
from sftlab.studies.knowledge.report.lookup import TEST, VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.tables import Variant

STATES = ("tuned", "restored")
Cells = Mapping[tuple[str, int], float]  # accuracy by cell and seed


@dataclass(frozen=True)
class LeftOut:
    """Accuracy on one topic, mean over the cells that both kinds of variants have.

    without, trained: of the variant that leaves it out, and of those alike that train on it. differences: the first
    less the second, one value a seed of training sets.
    """

    variant: str
    topic: str
    state: str  # of STATES
    without: float
    trained: float
    differences: Sequence[float]


def section(view: View) -> Section | None:
    """The section of a sweep over topics that are left out; None for others."""
    found = effects(view)
    if not found:
        return None
    tuned = [one for one in found if one.state == STATES[0]]
    lower = sum(fmean(one.differences) < 0 for one in tuned)
    see = (
        f"Each of these topics has test facts and, in one variant, no training facts. In {lower} of {len(tuned)} cases "
        "the tuned models that never saw the topic are less often right on it than those that did."
    )
    return Section("left-out", "Topics that are left out", see, tables=[table(found)], data=("topics",))


def table(found: Sequence[LeftOut]) -> Table:
    """A row a variant that leaves a topic out."""
    of_variant: dict[tuple[str, str], dict[str, LeftOut]] = defaultdict(dict)
    for one in found:
        of_variant[one.topic, one.variant][one.state] = one
    rows = [
        Row(f"{topic}: {variant}", [entry for state in STATES for entry in _entries(states.get(state))])
        for (topic, variant), states in sorted(of_variant.items())
    ]
    return Table(
        "Accuracy on the test facts of a topic that the training sets leave out",
        "topic and variant",
        ["left out", "trained on", "difference", "95 % interval"] * len(STATES),
        rows,
        [(state, 4) for state in STATES],
        note="Trained on: mean of the variants with the same strategy and settings whose sets have facts of the topic, "
        "on the same cells. Differences in percentage points; t interval over training sets, not corrected for several "
        "comparisons. Restored: at the percentage of each group that the fates are shown at.",
    )


def effects(view: View) -> list[LeftOut]:
    """All topics that a variant leaves out, for tuned and restored models, where others train on the topic."""
    found = []
    for name, variant in view.variants.items():
        topic = variant.left_out
        others = [
            view.view(other)
            for other, its in view.variants.items()
            if topic is not None and its.left_out != topic and _family(its) == _family(variant)
        ]
        for state in STATES if topic is not None and others else ():
            mine = accuracies(view.view(name), topic or "", state)
            theirs = [accuracies(other, topic or "", state) for other in others]
            trained = {
                cell: fmean(one[cell] for one in theirs if cell in one)
                for cell in mine
                if any(cell in one for one in theirs)
            }
            if trained:
                found.append(_effect((name, topic or "", state), mine, trained))
    return found


def accuracies(view: VariantView, topic: str, state: str) -> Cells:
    """Accuracy on a topic in domain by cell and seed, of the tuned models or of the restored ones that are shown."""
    seeds = {cell.cell: cell.set_seed for cell in view.variant.cells}
    return {
        (row.cell, seeds[row.cell]): row.accuracy
        for row in view.topics.get((TEST, topic), ())
        if row.cell in seeds
        and bool(row.percent) == (state == STATES[1])
        and view.shows(row.cell, row.percent)
    }


def _effect(key: tuple[str, str, str], mine: Cells, trained: Cells) -> LeftOut:
    of_seed: dict[int, list[float]] = defaultdict(list)
    for cell in trained:
        of_seed[cell[1]].append(mine[cell] - trained[cell])
    differences = [fmean(values) for _, values in sorted(of_seed.items())]
    return LeftOut(*key, fmean(mine[cell] for cell in trained), fmean(trained.values()), differences)


def _family(variant: Variant) -> tuple[str, tuple[tuple[str, object], ...]]:
    settings = {name: value for name, value in variant.settings.items() if name != "leave_out"}
    return variant.strategy, tuple(flat(settings))


def _entries(found: LeftOut | None) -> list[Entry]:
    if found is None:
        return [NOTHING] * 4
    sets = over_sets(found.differences)
    interval = NOTHING if sets is None else Entry(between(points(sets.low), points(sets.high)))
    shares = [Entry(percent(found.without)), Entry(percent(found.trained))]
    return [*shares, Entry(points(fmean(found.differences))), interval]
