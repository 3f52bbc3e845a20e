"""The section on the size of updates: its tables, its words, and the norms of gradients."""

from __future__ import annotations

from sftlab.studies.knowledge.report.update_sizes import by_group, parts, section
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import CellRow, TrainingRow, UpdateRow
from sftlab.studies.knowledge.results.tables import Results, Variant


def view(seeds: tuple[int, ...] = (0, 1)) -> View:
    cells = [CellRow(f"bucket{b}-n8-s{s}", str(b), 8, s) for b in (0, 4) for s in seeds]
    rows, training = [], []
    for cell in cells:
        norm = (6.0 if cell.train_bucket == "0" else 2.0) + cell.set_seed
        for kind, name in (("all", "all"), ("layer", "1"), ("module", "attn.q")):
            rows.append(UpdateRow(cell.cell, kind, name, 100, 0.5, 10 * norm, norm, 3 * norm, norm / 100))
        training += [TrainingRow(cell.cell, step, 1.0, 0.1, norm / step) for step in (1, 2)]
    variant = Variant("restore", "restore", cells=cells, updates=rows, training=training)
    return View(Results("t", "m", variants=[variant], reference="restore", kind="study"))


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_sizes_are_means_over_training_sets_with_their_deviation() -> None:
    main = view().main
    assert main is not None
    table = by_group(main)
    assert table is not None
    assert [row.heading for row in table.rows] == ["8 training facts", "bucket 0", "bucket 4"]
    # L2 6 and 7: mean 6.5, deviation 1 / sqrt(2). Gradient norms 6 and 3, 7 and 3.5: means 4.5 and 5.25.
    assert [plain(entry.text) for entry in table.rows[1].entries] == [
        "50.00 % ± 0.00 %",
        "65.000 ± 7.071",
        "6.500 ± 0.707",
        "6.500 % ± 0.707 %",
        "19.500 ± 2.121",
        "4.875 ± 0.530",
    ]
    modules = parts(main, 8, "module")
    assert modules is not None and [row.heading for row in modules.rows] == ["attn.q"]
    assert plain(modules.rows[0].entries[1].text) == "2.500 % ± 0.707 %"


def test_the_ratio_of_unknown_to_known_facts_is_paired_by_seed() -> None:
    found = section(view())
    assert found is not None
    # 6 / 2 and 7 / 3: mean 2.667, t interval of one degree of freedom 2.667 ± 12.7062 * 0.3333
    assert "from 2.500 (bucket 4) to 6.500 (bucket 0)" in found.see
    assert (
        "2.67 times that of bucket 4 (95 % interval over 2 training sets: \N{MINUS SIGN}1.57 to 6.90)"
        in found.see
    )
    assert len(found.figures) == 2
    single = section(view((0,)))
    assert single is not None and single.see.endswith("is 3.00 times that of bucket 4.")
    assert section(View(Results("t", "m", variants=[Variant("v", "s")]))) is None
