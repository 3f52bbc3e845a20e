"""The stage gradients in a study's file: what asks for it, what it moves, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.results.gradient_rows import ForgettingRow, GradientRow
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.load import load_study, load_sweep

CONFIGS = Path(__file__).parents[4] / "jobs" / "configs"


def plan_of(folder: Path, *settings: str) -> Plan:
    spec = load_study(CONFIGS / "tiny.yaml", settings)
    return Plan(spec, resolve(spec, folder))


def ids(plan: Plan, *without: str) -> set[str]:
    return {step.id for step, _ in plan.steps() if step.stage not in without}


def test_a_study_that_asks_for_gradients_has_a_step_of_them_for_the_base_and_each_cell(
    tmp_path: Path,
) -> None:
    plain, asked = plan_of(tmp_path), plan_of(tmp_path, "gradients={percent: 10}")
    assert plain.gradients == [] and plain.base_gradients is None
    assert [step.slug for step in asked.gradients] == ["base", *(cell.name for cell in asked.cells)]
    later = ("gradients", "results", "best", "report")
    assert ids(asked, *later) == ids(plain, *later)
    assert asked.results.id != plain.results.id
    assert asked.results.inputs["base/gradients"] == asked.gradients[0].id
    more, deeper = (
        plan_of(tmp_path, f"gradients={text}") for text in ("{percent: 10, questions: 50}", "{percent: 40}")
    )
    # What is predicted and what is restored do not concern the base model.
    assert more.gradients[0].id == deeper.gradients[0].id == asked.gradients[0].id
    assert len({plan.gradients[1].id for plan in (asked, more, deeper)}) == 3


def test_a_percentage_that_is_not_on_the_ladder_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"gradients\.percent is 20, which is not on the ladder; expected one of 10, 40"
    ):
        plan_of(tmp_path, "gradients={percent: 20}")


def test_a_sweep_leaves_the_gradients_of_its_study_out(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "name: t\npocket: {}\nrestore: {percents: [0, 10]}\ngradients: {percent: 10}\n"
    )
    (tmp_path / "sweep.yaml").write_text(
        "name: s\nstudy: study.yaml\naxes: {data: [0], size: [4], seed: [0], strategy: [restore]}\n"
    )
    assert load_study(tmp_path / "study.yaml").gradients is not None
    assert load_sweep(tmp_path / "sweep.yaml")[1].gradients is None


def test_tables_of_gradients_are_written_where_there_are_any_and_read_back(tmp_path: Path) -> None:
    rows = [GradientRow(0, "all", "all", 2, 1.0, None, 0.5, None)]
    forgotten = [ForgettingRow("c", "test", "update", 2, 2, None, None, None)]
    for name, variant in (
        ("none", Variant("v", "s")),
        ("some", Variant("v", "s", gradients=rows, forgetting=forgotten)),
    ):
        Results(name, "m", variants=[variant]).write(tmp_path / name)
        found = Results.read(tmp_path / name)
        assert [list(v.gradients) for v in found.variants] == [list(variant.gradients)]
        assert found.tables()["forgetting"].num_rows == len(variant.forgetting)
        files = {path.name for path in (tmp_path / name).rglob("*.parquet")}
        assert ("gradients.parquet" in files) == bool(variant.gradients)
        assert "restored_gradients.parquet" not in files
