"""Golden tables: a tiny sweep gives the same tables of the paper, to the letter.

Tables that answers decide come from frozen answers; those of the base model, of training facts, of the weights and of
ranges of layers from a made-up sweep. `python tests/unit/studies/knowledge/report/test_golden.py` writes the tables
anew; look at the
difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftlab.analysis.accuracy import BucketAccuracy
from sftlab.reporting.table import Table
from sftlab.studies.knowledge.report import sections
from sftlab.studies.knowledge.report.sweep import beside as sweep_beside
from sftlab.studies.knowledge.report.sweep import figures as sweep_figures
from sftlab.studies.knowledge.report.sweep import strategies as sweep_strategies
from sftlab.studies.knowledge.report.sweep.sections import correlation
from sftlab.studies.knowledge.report.sweep.summary import summarise
from sftlab.studies.knowledge.report.sweep.view import SweepView
from sftlab.studies.knowledge.results.sweep_statistics import summarise_sweep
from sftlab.studies.knowledge.results.sweep_tables import SweepResults, Variant
from sftlab.studies.knowledge.results.tables import (
    AccuracyRow,
    CellRow,
    DivergenceRow,
    StudyResults,
    accuracy_rows,
)
from tests.support.report_sweep import made_up_sweep

GOLDEN = Path(__file__).parent / "golden_sweep.json"


def frozen_sweep(frozen: dict[str, Any]) -> SweepResults:
    """The sweep of the answers '0110...' by variant, cell, percentage and split; equal parts for the buckets."""
    given: dict[tuple[str, str, float, str], tuple[Any, Any]] = {}
    variants = []
    for variant in frozen["variants"]:
        cells, accuracy, divergence = [], [], []
        for row in variant["cells"]:
            cell = CellRow(row["cell"], row["train_bucket"], row["size"], row["set_seed"])
            cells.append(cell)
            for at, by_split in row["answers"].items():
                percent = float(at)
                for split, digits in by_split.items():
                    right = np.array([digit == "1" for digit in digits])
                    buckets = np.repeat(np.arange(5), len(digits) // 5)
                    given[variant["name"], cell.cell, percent, split] = right, buckets
                    accuracy += rows_of(cell, percent, split, right, buckets)
            divergence += [DivergenceRow(cell.cell, float(at), 9, kl) for at, kl in row["kl"].items()]
        tables = StudyResults(
            variant["name"], "frozen", cells=cells, accuracy=accuracy, divergence=divergence
        )
        variants.append(Variant(variant["name"], variant["strategy"], variant["settings"], tables))
    return summarise_sweep("frozen", "frozen", {}, "dev", variants, lambda *key: given[key])


def rows_of(cell: CellRow, percent: float, split: str, right: Any, buckets: Any) -> list[AccuracyRow]:
    counts = [BucketAccuracy(b, int((buckets == b).sum()), int(right[buckets == b].sum())) for b in range(5)]
    return accuracy_rows(cell, percent, split, counts)


def tables_of(sweep: SweepResults) -> dict[str, Any]:
    """Every table that answers decide, as text."""
    view = SweepView(sweep)
    assert view.main is not None
    made = {
        "best": sweep_strategies.best(view),
        "recommended": sweep_strategies.recommended_against(view),
        "more data": sweep_beside.more_data(view),
        "table 2": sweep_beside.by_test_bucket(view),
        "table 4, in domain": sweep_beside.ladder(view, "test"),
        "table 4, out of domain": sweep_beside.ladder(view, "test_ood"),
        "collapse": sweep_beside.collapse(view),
        "table 7": sweep_strategies.table_7(view),
        "correlation": correlation(sweep_figures.moved(view.main, view.main_name, seeds=False)),
    }
    summary = summarise(view)
    return {
        "summary": [summary.recommendation, *summary.sentences],
        **{name: text_of(table) for name, table in made.items() if table is not None},
    }


def made_up_tables() -> dict[str, Any]:
    """The paper's other tables, as text."""
    strategies = ("restore", "restore:0-15", "restore:16-31")
    view = SweepView(made_up_sweep(strategies, ("0", "2"), (240, 1920), (0, 1), (0.0, 20.0)).summarise())
    assert view.main is not None
    made = {
        "table 3": sweep_beside.concentration(view),
        "table 6": sweep_beside.ladder(view, sweep_beside.TRAIN_SET),
        "table 9": sweep_beside.layers(view),
        "table 10": sweep_beside.modules(view),
        "table 11": sweep_strategies.table_11(view),
    }
    mastery = [text_of(table) for table in sections.mastery(view.main).tables]
    return {"table 1": mastery, **{name: text_of(table) for name, table in made.items() if table}}


def text_of(table: Table) -> list[str]:
    lines = [" | ".join([table.corner, *table.columns])]
    for row in table.rows:
        entries = [
            " / ".join(filter(None, [entry.text, entry.note, *entry.below, entry.mark]))
            for entry in row.entries
        ]
        lines.append(" | ".join([row.heading, *entries]))
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return found


def test_frozen_answers_give_the_golden_tables(golden: dict[str, Any]) -> None:
    tables = tables_of(frozen_sweep(golden["frozen"]))
    assert tables.keys() == golden["tables"].keys()
    for name, expected in golden["tables"].items():
        assert tables[name] == expected, name


def test_a_made_up_sweep_gives_the_golden_tables(golden: dict[str, Any]) -> None:
    tables = made_up_tables()
    assert tables.keys() == golden["made-up tables"].keys() == {f"table {n}" for n in (1, 3, 6, 9, 10, 11)}
    for name, expected in golden["made-up tables"].items():
        assert tables[name] == expected, name


def test_golden_scores_are_shares_of_the_frozen_answers(golden: dict[str, Any]) -> None:
    """One entry of Table 4 by hand, so that the golden file is not only what the code once said."""
    variant = golden["frozen"]["variants"][0]
    cells = [c for c in variant["cells"] if c["train_bucket"] == "0" and c["size"] == 240]
    shares = [100 * c["answers"]["20"]["test"].count("1") / len(c["answers"]["20"]["test"]) for c in cells]
    line = next(x for x in golden["tables"]["table 4, in domain"] if x.startswith("20 % |"))
    assert line.split(" | ")[1].startswith(f"{np.mean(shares):.1f} ± {np.std(shares, ddof=1):.1f} / ")


if __name__ == "__main__":
    content = json.loads(GOLDEN.read_text(encoding="utf-8"))
    content["tables"] = tables_of(frozen_sweep(content["frozen"]))
    content["made-up tables"] = made_up_tables()
    GOLDEN.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
