"""Stage 5: fine-tuning, all missing cells in one worker group; before them the probes that masks come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftlab.cluster.session import await_gpus
from sftlab.store.mirror import drop
from sftlab.studies.knowledge.build import MODEL, KnowledgeBuild
from sftlab.studies.knowledge.plan import Cell
from sftlab.studies.knowledge.stages.change import build_change, read_change
from sftlab.studies.knowledge.stages.training_sets import trained_facts, training_file
from sftlab.weights.cut import percent_label

if TYPE_CHECKING:
    from sftlab.training.records import ProbeMask, SFTRun


def build_tuned(build: KnowledgeBuild) -> None:
    """Fine-tune on every training set that has no tuned model yet; each is committed as it is finished.

    Probes are trained first, in a worker group of their own, and their changes profiled.
    """
    plan = build.plan
    _train(build, [probe for probe in plan.probes if build.missing(probe.tuned)], "fine-tuning probes")
    for probe in plan.probes:
        if build.missing(probe.change):
            build_change(build, probe)
    _train(build, [cell for cell in plan.cells if build.missing(cell.tuned)], "fine-tuning")
    drop(build.store.root / "ray-train")


def commit_tuned(build: KnowledgeBuild, cell: Cell) -> None:
    """Commit a cell's tuned model. Where two trained it at once, their weights must agree, and not their times."""
    from sftlab.training.records import COMMIT_FILE
    from sftlab.weights.pack_in_place import pack_in_place

    if build.runtime.keep == "delta":
        pack_in_place(build.model_folder, build.path(cell.tuned) / MODEL, [COMMIT_FILE])
    build.commit(cell.tuned, varying=[f"{MODEL}/{COMMIT_FILE}"])


def sft_run(build: KnowledgeBuild, cell: Cell) -> SFTRun:
    """The run that makes a cell's tuned model. Where the cell has a probe, its change must be committed."""
    from sftlab.training.records import SFTRun

    return SFTRun(
        run_id=cell.run_id,
        base_model=str(build.model_folder),
        train_file=training_file(build, cell),
        output_dir=str(build.path(cell.tuned) / MODEL),
        spec=cell.sft,
        mask=probe_mask(build, cell),
        form="delta" if build.runtime.keep == "delta" else "folder",
    )


def probe_mask(build: KnowledgeBuild, cell: Cell) -> ProbeMask | None:
    """The weights that a cell's run must not update, according to its probe; None for a cell without one."""
    from sftlab.training.records import ProbeMask

    if cell.probe is None:
        return None
    assert cell.sft.mask is not None
    cuts = read_change(build, cell.probe).cuts
    return ProbeMask(str(build.tuned_model(cell.probe)), cuts[percent_label(cell.sft.mask.percent)])


def _train(build: KnowledgeBuild, missing: Sequence[Cell], title: str) -> None:
    """Train these cells in one worker group."""
    from sftlab.training.records import TrainingEvent
    from sftlab.training.sft import train_runs

    if not missing:
        return
    if os.environ.get("RAY_ADDRESS"):
        await_gpus(build.runtime.training_bundles, build.runtime.gpu_wait_minutes, build.progress.say)
    cells = {cell.run_id: cell for cell in missing}
    examples = {name: trained_facts(build, cell) * cell.sft.epochs for name, cell in cells.items()}
    finished: set[str] = set()

    def commit(cell: Cell) -> None:
        commit_tuned(build, cell)
        finished.add(cell.run_id)

    with build.progress.bar(title) as bar:

        def report(event: TrainingEvent) -> None:
            if event.finished:
                commit(cells[event.run_id])
            done = sum(examples[name] for name in finished)
            note = f"{cells[event.run_id].name}: step {event.step}/{event.steps}, loss {event.loss:.3f}"
            bar.update(done, sum(examples.values()), note)

        runs = [sft_run(build, cell) for cell in cells.values()]
        train_runs(runs, build.runtime.training, report, str(build.store.root / "ray-train"))
    for cell in cells.values():
        if cell.run_id not in finished:
            commit(cell)
