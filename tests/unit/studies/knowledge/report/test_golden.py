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
from sftlab.studies.knowledge.report import change_tables, plain_tables, strategies, strategy_figures, tables
from sftlab.studies.knowledge.report.summary import summarise
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import AccuracyRow, CellRow, DivergenceRow, accuracy_rows
from sftlab.studies.knowledge.results.statistics import fill_tables
from sftlab.studies.knowledge.results.tables import Results, Variant
from tests.support.report_sweep import made_up_sweep

GOLDEN = Path(__file__).parent / "golden_sweep.json"


def frozen_sweep(frozen: dict[str, Any]) -> Results:
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
        head = (variant["name"], variant["strategy"], variant["settings"])
        variants.append(Variant(*head, cells=cells, accuracy=accuracy, divergence=divergence))
    return fill_tables(Results("frozen", "frozen", variants=variants), lambda *key: given[key])


def rows_of(cell: CellRow, percent: float, split: str, right: Any, buckets: Any) -> list[AccuracyRow]:
    counts = [BucketAccuracy(b, int((buckets == b).sum()), int(right[buckets == b].sum())) for b in range(5)]
    return accuracy_rows(cell, percent, split, counts)


def tables_of(sweep: Results) -> dict[str, Any]:
    """Every table that answers decide, as text."""
    view = View(sweep)
    assert view.main is not None
    made = {
        "best": strategies.best(view),
        "recommended": strategies.recommended_against(view),
        "more data": tables.more_data(view),
        "table 2": tables.by_test_bucket(view),
        "table 4, in domain": tables.ladder(view, "test"),
        "table 4, out of domain": tables.ladder(view, "test_ood"),
        "collapse": tables.collapse(view),
        "table 7": strategies.table_7(view),
        "correlation": plain_tables.correlation(
            strategy_figures.moved(view.main, view.main_name, seeds=False)
        ),
    }
    summary = summarise(view)
    return {
        "summary": [summary.recommendation, *summary.sentences],
        **{name: text_of(table) for name, table in made.items() if table is not None},
    }


def made_up_tables() -> dict[str, Any]:
    """The paper's other tables, as text."""
    tried = ("restore", "restore:0-15", "restore:16-31")
    view = View(made_up_sweep(tried, ("0", "2"), (240, 1920), (0, 1), (0.0, 20.0)).summarise())
    assert view.main is not None
    made = {
        "table 3": change_tables.concentration(view),
        "table 6": tables.ladder(view, tables.TRAIN_SET),
        "table 9": change_tables.layers(view),
        "table 10": change_tables.modules(view),
        "table 11": strategies.table_11(view),
    }
    mastery = [text_of(found(plain_tables.mastery(view.main)))]
    return {"table 1": mastery, **{name: text_of(table) for name, table in made.items() if table}}


def found(table: Table | None) -> Table:
    assert table is not None
    return table


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
    made = tables_of(frozen_sweep(golden["frozen"]))
    assert made.keys() == golden["tables"].keys()
    for name, expected in golden["tables"].items():
        assert made[name] == expected, name


def test_a_made_up_sweep_gives_the_golden_tables(golden: dict[str, Any]) -> None:
    made = made_up_tables()
    assert made.keys() == golden["made-up tables"].keys() == {f"table {n}" for n in (1, 3, 6, 9, 10, 11)}
    for name, expected in golden["made-up tables"].items():
        assert made[name] == expected, name


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
