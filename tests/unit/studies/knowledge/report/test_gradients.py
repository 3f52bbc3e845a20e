"""The section on gradients: its words, its tables, its figures."""

from __future__ import annotations

from sftlab.studies.knowledge.report.gradients import by_bucket, forgetting, on_restored, section
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.gradient_rows import (
    PREDICTORS,
    ForgettingRow,
    GradientRow,
    RestoredGradientRow,
)
from sftlab.studies.knowledge.results.rows import CellRow
from sftlab.studies.knowledge.results.tables import Results, Variant


def view(seeds: tuple[int, ...] = (0, 1)) -> View:
    cells = [CellRow(f"bucket{b}-n8-s{s}", str(b), 8, s) for b in (0, 4) for s in seeds]
    gradients = [
        GradientRow(bucket, kind, name, 16, 6.0 - bucket, 0.5, 0.5 + bucket / 10, 0.02)
        for bucket in (0, 4)
        for kind, name in (("all", "all"), ("layer", "0"), ("layer", "1"), ("module", "attn.q"))
    ]
    restored, forgotten = [], []
    for cell in cells:
        for bucket in (0, 4):
            share = 0.2 + cell.set_seed / 10
            restored.append(RestoredGradientRow(cell.cell, 20.0, bucket, "all", "all", 16, share, 0.01, 0.1))
        for split in ("test", "test_ood"):
            for name in PREDICTORS:
                auc = 0.4 if name == "shuffled" else 0.8 - cell.set_seed / 10
                forgotten.append(ForgettingRow(cell.cell, split, name, 60, 15, auc, auc - 0.1, auc + 0.1))
    variant = Variant(
        "restore",
        "restore",
        cells=cells,
        gradients=gradients,
        restored_gradients=restored,
        forgetting=forgotten,
    )
    return View(Results("t", "m", variants=[variant], reference="restore", kind="study"))


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_words_compare_unknown_with_well_mastered_facts_and_the_update_with_its_null() -> None:
    found = section(view())
    assert found is not None
    assert "facts of bucket 0 are 3.00 times as long as those of bucket 4" in found.see
    assert "gradient of well-mastered facts is 0.50 (standard error 0.02)" in found.see
    assert "other well-mastered facts 0.90 (0.02)" in found.see
    assert (
        "area under the curve of 0.75 (mean over 4 models; shuffled updates 0.40, chance 0.50)" in found.see
    )
    assert len(found.figures) == 2 and len(found.tables) == 4
    assert section(View(Results("t", "m", variants=[Variant("v", "s")]))) is None


def test_tables_are_by_bucket_of_facts_and_by_group_of_training_sets() -> None:
    main = view().main
    assert main is not None
    table = by_bucket(main)
    assert [row.heading for row in table.rows] == ["bucket 0", "bucket 4"]
    assert [entry.text for entry in table.rows[0].entries] == ["16", "6.0 ± 0.5", "0.500 ± 0.020"]
    shares = on_restored(main)
    assert shares is not None and "restoring 20 %" in plain(shares.caption)
    # Buckets 1 to 3 have no facts; the shares 0.2 and 0.3 have the mean 0.25.
    texts = [plain(entry.text) for entry in shares.rows[0].entries]
    assert texts == ["25.0 %", "–", "–", "–", "25.0 %", "10.0 %"]


def test_an_area_has_its_interval_over_training_sets_or_of_a_single_one_over_facts() -> None:
    main, single = view().main, view((0,)).main
    assert main is not None and single is not None
    several, one = forgetting(main), forgetting(single)
    assert several is not None and one is not None
    assert [row.heading for row in one.rows] == [
        "in domain",
        "bucket 0, 8 facts",
        "bucket 4, 8 facts",
        "out of domain",
        "bucket 0, 8 facts",
        "bucket 4, 8 facts",
    ]
    assert plain(one.rows[1].entries[0].text) == "25.0 %"
    assert (one.rows[1].entries[1].text, one.rows[1].entries[1].note) == ("0.80", "0.70 to 0.90")
    # 0.8 and 0.7: 0.75 ± 12.7 * 0.05, cut at 0 and 1.
    assert (several.rows[1].entries[1].text, several.rows[1].entries[1].note) == ("0.75", "0.11 to 1.00")
