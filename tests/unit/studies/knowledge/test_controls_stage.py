"""The stage controls: what it commits is what the pair of models gives, and damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.execution.progress import SilentProgress
from sftlab.execution.runtime import Runtime
from sftlab.store.artifact import Store
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.stages.change import build_changes
from sftlab.studies.knowledge.stages.controls import FILE, SEED, build_controls, read_controls
from sftlab.studies.load import load_study
from sftlab.weights.change_profile import profile
from sftlab.weights.controls import read_controls_file
from tests.support.weights_models import save_model, save_tuned


def test_the_controls_of_every_tuned_model_are_committed_once(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: t\npocket: {}\n")
    grid = "training_sets={buckets: [0], sizes: [4], seeds: [0]}"
    ladder = "restore={percents: [0, 10, 40], share_of: l1}"
    spec = load_study(tmp_path / "study.yaml", [grid, ladder])
    store = Store(tmp_path / "store")
    build = KnowledgeBuild(Plan(spec, resolve(spec, store.root)), store, Runtime(), SilentProgress())
    (cell,) = build.plan.cells
    assert build.plan.model is not None
    save_model(build.model_folder, "llama-tied", seed=0)
    build.commit(build.plan.model)
    save_tuned(build.path(cell.tuned) / "model", build.model_folder)
    build.commit(cell.tuned)

    build_changes(build)
    build_controls(build)
    found = read_controls(build, cell)
    again = profile(
        build.model_folder,
        build.path(cell.tuned) / "model",
        ["0", "10", "40"],
        share_of="l1",
        controls_seed=SEED,
    )
    assert found == again.controls and list(found.undone) == ["0", "10", "40"]
    assert found.undone["0"].l1 == 0.0
    assert found.undone["10"].l1 == pytest.approx(
        0.1, abs=0.01
    )  # the first weight beyond the share ends the cut
    assert found.undone["40"].l1 == pytest.approx(0.4, abs=0.01)
    file = build.path(cell.controls) / FILE
    stamp = file.stat().st_mtime_ns
    build_controls(build)
    assert file.stat().st_mtime_ns == stamp

    (tmp_path / FILE).write_text(file.read_text().replace('"l1"', '"l0"'))
    with pytest.raises(UserError, match=rf"{FILE}: field undone.*delete its folder"):
        read_controls_file(tmp_path / FILE)
