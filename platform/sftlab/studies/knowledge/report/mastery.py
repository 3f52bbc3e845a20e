"""What the base model knows: facts by mastery bucket and split."""

from __future__ import annotations

from sftlab.reporting.section import NOT_MEASURED, Section, present
from sftlab.reporting.text import count, percent
from sftlab.studies.knowledge.report import figures, plain_tables
from sftlab.studies.knowledge.report.view import View


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
    parts = (figures.mastery(main), plain_tables.mastery(main))
    return Section(
        "mastery",
        "What the base model knows",
        see,
        present(parts[0]),
        present(parts[1]),
        data=("mastery",),
        legend=parts[0] is not None,
    )
