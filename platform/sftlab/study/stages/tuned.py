"""Stage 5: fine-tuning, all missing cells in one worker group."""

from __future__ import annotations

import shutil

from sftlab.study.build import Build
from sftlab.study.plan import Cell
from sftlab.study.stages.training_sets import training_file


def build_tuned(build: Build) -> None:
    """Fine-tune on every training set that has no tuned model yet; each is committed as it is finished."""
    from sftlab.training.sft import SFTRun, TrainingEvent, train_runs

    cells = {cell.name: cell for cell in build.plan.cells if build.missing(cell.tuned)}
    runs = [
        SFTRun(
            run_id=cell.name,
            base_model=str(build.model_folder),
            train_file=training_file(build, cell),
            output_dir=str(build.path(cell.tuned) / "model"),
            spec=build.plan.spec.sft,
        )
        for cell in cells.values()
    ]
    total = sum(cell.size * build.plan.spec.sft.epochs for cell in cells.values())
    finished: set[str] = set()

    def commit(cell: Cell) -> None:
        build.commit(cell.tuned)
        finished.add(cell.name)

    with build.progress.bar("fine-tuning") as bar:

        def report(event: TrainingEvent) -> None:
            if event.finished:
                commit(cells[event.run_id])
            done = sum(cells[name].size * build.plan.spec.sft.epochs for name in finished)
            note = f"{event.run_id}: step {event.step}/{event.steps}, loss {event.loss:.3f}"
            bar.update(done, total, note)

        train_runs(runs, build.runtime.training, report, str(build.store.root / "ray-train"))
    for cell in cells.values():
        if cell.name not in finished:
            commit(cell)
    shutil.rmtree(build.store.root / "ray-train", ignore_errors=True)
