"""What the base model knows: facts by mastery bucket and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sftlab.facts.mastery import BUCKETS
from sftlab.facts.training_sets import largest_even
from sftlab.reporting.section import NOT_MEASURED, Section, present
from sftlab.reporting.table import Entry, Row, Table
from sftlab.reporting.text import count, percent
from sftlab.studies.knowledge.report import figures, plain_tables
from sftlab.studies.knowledge.report.lookup import VariantView
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import CertaintyRow


def section(view: View) -> Section:
    """Table 1. Every variant has the same base model and facts, so the main one's is used for all."""
    main = view.main
    if main is None or not main.variant.mastery:
        return Section("mastery", "What the base model knows", NOT_MEASURED)
    facts = [figures.mastery_facts(main, "train", bucket) for bucket in range(5)]
    see = NOT_MEASURED
    if sum(facts):
        shares = [n / sum(facts) for n in facts]
        smallest = min(range(5), key=lambda bucket: shares[bucket])
        see = (
            f"Of {sum(facts):,} train facts, {percent(shares[0], 0)} are never completed right (bucket 0) "
            f"and {percent(shares[4], 0)} more than three times in four (bucket 4). "
            f"The smallest bucket is {smallest} with {percent(shares[smallest], 0)}."
        )
    unscored = sum(figures.mastery_facts(main, split, None) for split in figures.SPLIT_NAMES)
    if unscored:
        see += f" {count(unscored, 'fact')} could not be scored."
    sure = [row for row in main.variant.certainty if row.split == "train"]
    if sure:
        asked = sum(row.facts for row in sure)
        see += (
            f" Drawn again with the same templates, {percent(_mean(sure, 'redraw'))} of the {asked:,} train facts "
            f"would be in the same bucket, and with other templates {percent(_mean(sure, 'probability'))}."
        )
    plot = figures.mastery(main)
    return Section(
        "mastery",
        "What the base model knows",
        see,
        present(plot),
        present(plain_tables.mastery(main), certainty(main), topics(main), drawn(main)),
        data=("mastery", "certainty", "drawn"),
        legend=plot is not None,
    )


def certainty(view: VariantView) -> Table | None:
    """How sure buckets are, by split and bucket."""
    rows = []
    for split, name in figures.SPLIT_NAMES.items():
        of_split = [row for row in view.variant.certainty if row.split == split]
        if of_split:
            rows.append(Row(name))
        for bucket in range(5):
            if found := [row for row in of_split if row.bucket == bucket]:
                numbers = [percent(_mean(found, kind)) for kind in ("half_width", "redraw", "probability")]
                numbers.append(percent(_mean(found, "sure")) if bucket else "\N{EN DASH}")
                facts = Entry(f"{sum(row.facts for row in found):,}")
                rows.append(Row(f"bucket {bucket}", [facts, *map(Entry, numbers)]))
    if not rows:
        return None
    return Table(
        "How sure the mastery of facts is",
        "bucket",
        [
            "facts",
            "R \N{PLUS-MINUS SIGN}",
            "same bucket, same templates",
            "same bucket, other templates",
            "sure",
        ],
        rows,
        note="R \N{PLUS-MINUS SIGN}: mean half width of the 95 % interval of R, templates as clusters. Same bucket: "
        "probability that completions drawn again give the bucket, with the same or with other templates. Sure: facts "
        "whose probability with other templates is at least 90 %; facts of bucket 0 all have the same evidence.",
        folded="How sure the buckets are",
    )


def topics(view: VariantView) -> Table | None:
    """Train facts by topic and bucket: what training sets are drawn from."""
    counts = {(row.topic, row.bucket): row.facts for row in view.variant.certainty if row.split == "train"}
    names = sorted({topic for topic, _ in counts})
    if not names:
        return None
    rows = []
    for topic in names:
        facts = [counts.get((topic, bucket), 0) for bucket in BUCKETS]
        rows.append(Row(topic, [Entry(f"{number:,}") for number in (*facts, sum(facts))]))
    evenly = [largest_even([counts.get((topic, bucket), 0) for topic in names]) for bucket in BUCKETS]
    rows.append(
        Row("largest even set", [*(Entry(f"{number:,}") for number in evenly), Entry("")], quiet=True)
    )
    return Table(
        "Train facts by topic and bucket",
        "topic",
        [*map(str, BUCKETS), "all"],
        rows,
        [("bucket", 5), ("", 1)],
        folded="By topic and bucket",
    )


def drawn(view: VariantView) -> Table | None:
    """Training facts by topic of the sets that are not even over the topics."""
    of_cell: dict[str, Counter[str]] = {}
    for row in view.variant.drawn:
        of_cell.setdefault(row.cell, Counter())[row.topic] += row.facts
    names = sorted({row.topic for row in view.variant.drawn})
    uneven = {
        cell: counts for cell, counts in of_cell.items() if _is_uneven([counts[name] for name in names])
    }
    if not uneven:
        return None
    rows = [Row(cell, [Entry(f"{counts[name]:,}") for name in names]) for cell, counts in uneven.items()]
    return Table(
        "Facts by topic of the training sets that are not even",
        "training set",
        names,
        rows,
        note="training_sets.balance says what a topic with too few facts leads to.",
        folded=f"{count(len(rows), 'training set')} not even over the topics",
    )


def _is_uneven(counts: Sequence[int]) -> bool:
    return max(counts) - min(counts) > len(BUCKETS)  # a mixture is even in each of its buckets


def _mean(rows: Sequence[CertaintyRow], kind: str) -> float:
    """Mean over facts."""
    total: float = sum(row.facts * getattr(row, kind) for row in rows)
    return total / sum(row.facts for row in rows)
