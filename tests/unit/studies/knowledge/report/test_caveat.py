"""Pages of pocket models say what the pocket world cannot show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sftlab.studies.knowledge.report.caveat import POCKET_CAVEAT, caveat_of
from sftlab.studies.knowledge.report.page import render
from sftlab.studies.load import load_sweep
from tests.support.report_study import paper_study

SWEEPS = Path(__file__).parents[5] / "jobs" / "configs" / "sweeps"


def test_the_page_of_a_pocket_world_says_what_it_cannot_show() -> None:
    study = paper_study()
    pocket = render(replace(study, spec={**study.spec, "pocket": {"seed": 0}}))
    assert (POCKET_CAVEAT in pocket.replace("&#39;", "'"), POCKET_CAVEAT[:30] in render(study)) == (
        True,
        False,
    )


def test_a_sweep_has_the_caveat_of_its_study() -> None:
    for name, pocket in (("pocket", True), ("llama3-8b", False)):
        sweep, varied = load_sweep(SWEEPS / f"{name}.yaml")
        spec = {"sweep": sweep.model_dump(mode="json"), "study": varied.model_dump(mode="json")}
        assert (caveat_of(replace(paper_study(), spec=spec)) != "") is pocket
