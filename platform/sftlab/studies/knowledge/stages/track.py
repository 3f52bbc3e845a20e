"""After the last stage: what is finished is logged to MLflow. Logging again changes nothing."""

from __future__ import annotations

from pathlib import Path

from sftlab.errors import UserError
from sftlab.store.mirror import pull
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.stages.best import best_folder
from sftlab.studies.knowledge.stages.finished import Finished, finished_study
from sftlab.studies.knowledge.stages.report import report_file
from sftlab.studies.knowledge.stages.results import read_results
from sftlab.studies.knowledge.stages.tracked import card_of, fact_tables, key_of, tracked_models
from sftlab.studies.knowledge.tracking.log import log_results
from sftlab.tracking import Tracked, TrackedModel


def track_results(build: KnowledgeBuild) -> str:
    """Log a finished study; returns where to look at it. Raises UserError where it is not finished."""
    plan = build.plan
    if build.missing(plan.report, plan.best):
        raise UserError(
            f"the study {plan.spec.name} is not finished",
            value=plan.spec.name,
            advice="`sftlab run` builds it.",
        )
    finished, results = finished_study(build), read_results(build)
    report = report_file(plan, build.store)
    return track(finished, results, report, pull(best_folder(finished, results))).how_to_look


def track(finished: Finished, results: Results, report: Path, best: Path) -> Tracked:
    """Log what is finished; the recommended model's folder `best` is uploaded and registered.

    Raises UserError where MLflow cannot be reached; what is logged until then is kept, and logging again
    completes it.
    """
    base = finished.base
    models = tracked_models(finished, results, best)
    with base.progress.bar("logging to MLflow") as bar:
        return log_results(
            results,
            TrackedModel(id=base.plan.model_id, path=base.model_folder),
            models,
            key_of(finished),
            base.runtime.tracking,
            base.store.root,
            tables=fact_tables(base),
            report=report,
            card=card_of(finished, results),
            progress=bar.update,
        )
