"""What chooses in a study: the mean of the dev splits, or one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftlab.cli.sweep import open_sweep
from sftlab.studies.knowledge.check import check_metric
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.finished import finished_study
from sftlab.studies.knowledge.stages.mastery_after import percent_of
from sftlab.studies.load import load_study
from tests.support.refusals import refused
from tests.unit.studies.knowledge.test_explain import answer, scored
from tests.unit.studies.knowledge.test_plan_refuses import build_of, own_study

COUNTS = {("A", "train"): 8, ("A", "test"): 2, ("A", "dev"): 2, ("B", "dev"): 4}
GRID = {"buckets": [4], "sizes": [3], "seeds": [0]}


def study(folder: Path, **fields: Any) -> Path:
    restore = {"percents": [0, 10, 40]}
    return own_study(
        folder, COUNTS, training_sets=GRID, restore=restore, mastery_after=[0, "chosen"], **fields
    )


def steps_of(folder: Path, **fields: Any) -> dict[str, str]:
    """The id of every step by stage and slug."""
    spec = load_study(study(folder, **fields), [])
    return {
        f"{step.stage} {step.slug}": step.id for step, _ in Plan(spec, resolve(spec, folder / "s")).steps()
    }


def test_a_metric_moves_only_what_depends_on_the_choice(tmp_path: Path) -> None:
    unset, same = steps_of(tmp_path), steps_of(tmp_path, metric="dev")
    other = steps_of(tmp_path, metric="dev_in_domain")
    assert unset == same and unset.keys() == other.keys()
    assert {name for name in unset if unset[name] != other[name]} == {
        "mastery-after bucket4-n3-s0-chosen",
        "results own",
        "best best",
        "report own",
    }


@pytest.mark.parametrize(
    ("metric", "percent"),
    [("dev", 40.0), ("dev_in_domain", 10.0), ("dev_out_of_domain", 40.0)],
)
def test_the_metric_of_a_study_makes_its_choices(tmp_path: Path, metric: str, percent: float) -> None:
    build = build_of(study(tmp_path, metric=metric), tmp_path)
    scored(build)
    (cell,) = build.plan.cells
    # In domain 0, 1, 0.5; out of domain 0.25, 0, 1; means 0.125, 0.5, 0.75.
    right = {
        0.0: ([False, False], [True, False, False, False]),
        10.0: ([True, True], [False] * 4),
        40.0: ([True, False], [True] * 4),
    }
    for at, step in cell.evaluations.items():
        answer(build, step, [True, False], *right[at])
    assert percent_of(build, cell, "chosen") == percent
    assert finished_study(build).metric == metric


def test_an_unknown_metric_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    message = "expected one of dev, dev_in_domain, dev_out_of_domain"
    with refused(message, place="metric", value="kl"):
        load_study(study(tmp_path, metric="kl"), [])


def test_a_metric_without_facts_is_refused(tmp_path: Path) -> None:
    spec = load_study(study(tmp_path, metric="dev_out_of_domain"), [])
    check_metric(spec, {"dev": 2, "dev_ood": 4})
    with refused("dev_ood has no facts", place="metric", value="dev_out_of_domain"):
        check_metric(spec, {"dev": 2, "dev_ood": 0})


def test_a_sweep_refuses_a_study_that_chooses_by_another_metric(tmp_path: Path) -> None:
    own_study(tmp_path, COUNTS, training_sets=GRID, metric="dev_in_domain")
    path, text = (
        tmp_path / "sweep.yaml",
        "name: s\nstudy: study.yaml\naxes: {size: [3], seed: [0], data: [4]}\n",
    )
    path.write_text(text)
    with refused("the study chooses by dev_in_domain, and the sweep by dev", place="metric"):
        open_sweep(path, None, tmp_path / "store", [])
    path.write_text(text + "search: {metric: dev_in_domain}\n")
    open_sweep(path, None, tmp_path / "store", [])
