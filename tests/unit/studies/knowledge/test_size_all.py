"""The size `all`: what is drawn, what the plan says, how it is shown."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.report.lookup import Group
from sftlab.studies.knowledge.report.tables import everything
from sftlab.studies.knowledge.report.view import View
from sftlab.studies.knowledge.results.rows import CellRow, ChoiceRow, GroupRow
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.training_sets import (
    build_training_sets,
    check_training_sets,
    drawn_size,
    sizes_text,
)
from sftlab.studies.load import load_study
from tests.support.refusals import refused
from tests.unit.studies.knowledge.report.test_fates import NONE, text
from tests.unit.studies.knowledge.test_explain import scored
from tests.unit.studies.knowledge.test_plan_refuses import build_of, own_study

COUNTS = {("A", "train"): 8, ("A", "test"): 2, ("A", "dev"): 1}  # all train facts are of bucket 4


def build(folder: Path, sizes: list[int | str]) -> KnowledgeBuild:
    path = own_study(folder, COUNTS, training_sets={"buckets": [4], "sizes": sizes, "seeds": [0]})
    return build_of(path, folder)


def test_all_facts_of_a_bucket_are_drawn_and_the_plan_says_how_many(tmp_path: Path) -> None:
    found = build(tmp_path, [3, "all"])
    assert sizes_text(found) == ""
    scored(found)
    line = sizes_text(found).splitlines()[-1]
    assert line.split() == ["size", "all", "0", "0", "0", "0", "8", "0"]
    check_training_sets(found)
    build_training_sets(found)
    small, everything_of = found.plan.cells
    assert everything_of.name == "bucket4-nall-s0"
    drawn = pq.read_table(found.path(everything_of.training_set) / "train.parquet")
    assert drawn.num_rows == drawn_size(found, everything_of) == 8 and drawn_size(found, small) == 3
    assert found.plan.prices.estimated_size(4, "all") == 1  # a fifth of eight facts


def test_a_listed_size_that_is_everything_is_refused(tmp_path: Path) -> None:
    found = build(tmp_path, [8, "all"])
    scored(found)
    with refused("holds 8 facts, so the sizes 8 and all are the same", place="bucket 4", value=8) as error:
        check_training_sets(found)
    assert error.value.value == 8


@pytest.mark.parametrize("size", [0, 2.5, float("inf"), "every", None])
def test_a_size_is_a_number_of_facts_or_all(tmp_path: Path, size: object) -> None:
    path = own_study(tmp_path, COUNTS, training_sets={"sizes": [size]})
    with refused("expected a whole number of at least 1, or all for everything"):
        load_study(path, [])


def test_listed_sizes_have_the_ids_that_they_have_without_all(tmp_path: Path) -> None:
    path = own_study(tmp_path, COUNTS)
    ids = []
    for sizes in ("[4]", "[all, 4]"):
        spec = load_study(path, [f"training_sets.sizes={sizes}", "training_sets.buckets=[4]"])
        ids.append({cell.size: cell.tuned.id for cell in Plan(spec, resolve(spec, tmp_path / "store")).cells})
    assert ids[0][4] == ids[1][4] != ids[1]["all"]


def test_sets_of_everything_are_one_place_of_the_axis_and_a_table() -> None:
    cells = [CellRow(f"bucket{b}-n8-s0", b, 8, 0) for b in "04"]
    cells += [CellRow(f"bucket{b}-nall-s0", b, n, 0, everything=True) for b, n in (("0", 90), ("4", 50))]
    scores = [
        GroupRow("v", "4", 50, at, split, None, 1, 9, mean, None, mean, mean)
        for at, split, mean in ((0.0, "test", 0.5), (20.0, "test", 0.625), (0.0, "test_ood", 0.25))
    ]
    choice = ChoiceRow("group", "v", "restore", "4", 50, 20.0, 1, 0.5, 0.4, *NONE, 100)
    variant = Variant("v", "restore", cells=cells)
    view = View(Results("t", "m", variants=[variant], groups=scores, choice=[choice], kind="study"))
    main = view.main
    assert main is not None and main.sizes == [8]
    assert main.by_size == [
        ("8", {"0": Group("0", 8), "4": Group("4", 8)}),
        ("all", {"0": Group("0", 90), "4": Group("4", 50)}),
    ]
    table = everything(view)
    assert table is not None
    found = {row.heading: [text(entry) for entry in row.entries] for row in table.rows}
    assert found["bucket 4"] == ["50", "20 %", "50.0", "62.5", "25.0", "–"]
    assert found["bucket 0"] == ["90", "–", "–", "–", "–", "–"]
