"""After the last stage: the committed study is logged to MLflow. Logging again changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sftlab.errors import UserError
from sftlab.facts.table import SPLITS
from sftlab.shell import command
from sftlab.store.mirror import pull
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.stages.best import best_folder, recommended
from sftlab.studies.knowledge.stages.report import report_file
from sftlab.studies.knowledge.stages.results import read_results
from sftlab.studies.knowledge.stages.training_sets import training_file
from sftlab.studies.knowledge.tracking.log import log_study
from sftlab.tracking import TrackedModel, table_of


def track_results(build: KnowledgeBuild) -> str:
    """Log a finished study; returns where to look at it. Raises UserError where it is not finished."""
    plan, store = build.plan, build.store
    if build.missing(plan.report, plan.best):
        raise UserError(f"The study {plan.spec.name} is not finished; `sftlab run` builds it.")
    facts = build.read(plan.facts)
    tables = [table_of(facts / f"{split}.parquet") for split in SPLITS]
    with build.progress.bar("logging to MLflow") as bar:
        tracked = log_study(
            read_results(build),
            list(tracked_models(build)),
            build.runtime.tracking,
            store.root,
            tables,
            report_file(plan, store),
            progress=bar.update,
        )
    return tracked.how_to_look


@contextmanager
def with_advice_to_log_later(what: str, file: Path) -> Iterator[None]:
    """Wraps logging, which comes last: if it fails, the message says that the results are kept and how to log them."""
    try:
        yield
    except UserError as error:
        logs = command("sftlab", "track", file)
        raise UserError(
            f"{error}\nThe {what} is finished all the same. `{logs}` with the same options logs it."
        ) from error


def tracked_models(build: KnowledgeBuild) -> Iterator[TrackedModel]:
    """Every model of the study: the base, the tuned ones with their files, the restored ones as recipes."""
    plan = build.plan
    best = recommended(read_results(build))
    yield TrackedModel(id=plan.model_id, path=build.model_folder)
    for cell in plan.cells:
        train_set = table_of(pull(Path(training_file(build, cell))), cell.name, "training")
        for percent, step in cell.evaluations.items():
            path = build.path(cell.tuned) / "model" if not percent else None
            if (cell.name, percent) == (best.cell, best.percent):
                path = pull(best_folder(build))
            record = build.store.find(step)
            assert record is not None
            yield TrackedModel(
                id=step.id,
                cell=cell.name,
                percent=percent,
                path=path,
                train_set=train_set,
                provenance=record.provenance,
            )
