"""The section on what a survey cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftlab.files import bytes_text
from sftlab.reporting.section import Section
from sftlab.reporting.table import NOTHING, Entry, Row, Table
from sftlab.reporting.text import count, number
from sftlab.studies.survey.compare import Comparison
from sftlab.studies.survey.costs import PAUSE

COSTS = "costs"


def costs(comparison: Comparison) -> Section | None:
    """Time, disk, questions and tokens by stage."""
    rows = comparison.tables.get(COSTS, ())
    if not rows:
        return None
    seconds, size = sum(row["seconds"] for row in rows), sum(row["bytes"] for row in rows)
    pauses = sum(row["pauses"] for row in rows)
    said = [
        f"The {sum(row['results'] for row in rows):,} results of this survey take {bytes_text(size)} of disk."
    ]
    said.append(f"{duration(seconds)} passed between their commits{_without(pauses)}.")
    for row in rows:
        if row["questions"]:
            said.append(f"Models answered {row['questions']:,} questions with {row['tokens']:,} tokens.")
        elif row["tokens"]:
            said.append(
                f"Fine-tuning took {row['tokens']:,} tokens and {duration(row['work_seconds'])} of steps, "
                f"{duration(row['processor_seconds'])} of {_plural(row['processor'])}."
            )
    return Section("costs", "Cost and time", " ".join(said), tables=[_table(rows)], data=(COSTS,))


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: '42 s', '12 min' or '3.5 h'."""
    if seconds < 120:
        return f"{number(seconds, 0)}\N{NO-BREAK SPACE}s"
    if seconds < 2 * 3600:
        return f"{number(seconds / 60, 0)}\N{NO-BREAK SPACE}min"
    return f"{number(seconds / 3600, 1)}\N{NO-BREAK SPACE}h"


def _without(pauses: int) -> str:
    return f", without {count(pauses, 'interval')} of more than {duration(PAUSE)}" if pauses else ""


def _plural(processor: str) -> str:
    return f"{processor}s" if processor else "processors"


def _table(rows: Any) -> Table:
    return Table(
        "Results by stage",
        "stage",
        ["results", "time", "disk", "questions", "tokens"],
        [Row(row["stage"], _entries(row)) for row in rows],
        note="Time: from the commit before each result to its own, whatever the stage of the one before; several "
        "surveys that share a store count what was made in between. Starts of engines and worker groups are in it. "
        "Tokens: written in answers, or trained on in all epochs.",
    )


def _entries(row: Mapping[str, Any]) -> list[Entry]:
    numbers = [
        Entry(f"{row[name]:,}") if row[name] is not None else NOTHING for name in ("questions", "tokens")
    ]
    return [
        Entry(f"{row['results']:,}"),
        Entry(duration(row["seconds"])),
        Entry(bytes_text(row["bytes"])),
        *numbers,
    ]
