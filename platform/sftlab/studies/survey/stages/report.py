"""Stage 10: the report page, the tables behind it, and what it found in short."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftlab.config.documents import parse_json
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull
from sftlab.studies.survey.about import parse_about
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.compare import PAGE, TABLES, Comparison, Progress, compare, summary, write
from sftlab.studies.survey.measures import read_measures
from sftlab.studies.survey.plan import SurveyPlan
from sftlab.studies.survey.report.champion_section import CHAMPIONS
from sftlab.studies.survey.report.cost_section import COSTS
from sftlab.studies.survey.score_table import read_scores
from sftlab.studies.survey.similarity import similarity_cells, similarity_prediction
from sftlab.studies.survey.stages.champions import key_of, read_champions
from sftlab.studies.survey.stages.costs import cost_rows
from sftlab.studies.survey.stages.embeddings import read_embedded
from sftlab.studies.survey.stages.results import ABOUT, SCORES
from sftlab.studies.survey.stages.similarity import read_similarity

SUMMARY = "summary.json"
TIMED = (PAGE, f"{TABLES}/{COSTS}.csv", f"{TABLES}/{COSTS}.parquet")  # they say how long the survey took


def build_report(build: SurveyBuild) -> None:
    """Compare the scores and write the page with its tables, and the summary that commands print."""
    from sftlab.studies.survey.report.page import finding, render

    with build.progress.bar("comparing") as bar:
        found = compared(build, lambda done, of, note: bar.update(done, of, note))
    folder = build.path(build.plan.report)
    folder.mkdir(parents=True, exist_ok=True)
    write(found, render(found), folder)
    short = {"finding": finding(found), **summary(found)}
    (folder / SUMMARY).write_text(json.dumps(short, indent=1, ensure_ascii=False), encoding="utf-8")
    build.commit(build.plan.report, varying=TIMED)


def compared(build: SurveyBuild, progress: Progress | None = None) -> Comparison:
    """The analysis of the survey's table of scores."""
    folder = build.read(build.plan.results)
    about = folder / ABOUT
    document = parse_json(about.read_text(encoding="utf-8"), str(about), "run the survey again.")
    found = parse_about(document, str(about))
    scores = replace(read_scores(folder / SCORES), source=build.plan.name)
    comparison = compare(scores, found, 0, progress, read_measures(folder))
    alike = read_similarity(build), read_embedded(build)
    more = {
        CHAMPIONS: _champions(build),
        COSTS: cost_rows(build),
        "similarities": similarity_cells(comparison.survey, *alike),
        "similarity": similarity_prediction(comparison.survey, *alike),
    }
    return replace(comparison, tables={**comparison.tables, **more})


def _champions(build: SurveyBuild) -> list[dict[str, Any]]:
    """The best model of each base, by the name and epoch of its run."""
    models = {key_of(model): model for model in build.plan.models if model.run is not None}
    rows = []
    for row in read_champions(build):
        model = models[row["model"]]
        assert model.run is not None
        rows.append({"base": row["base"], "name": model.run.name, "epoch": model.epoch, **row})
    return rows


def read_summary(build: SurveyBuild) -> dict[str, Any]:
    """The committed summary: the finding in a sentence, and what `compare.summary` says."""
    file = build.read(build.plan.report, SUMMARY)
    found: dict[str, Any] = parse_json(file.read_bytes(), str(file), "delete its folder and run again.")
    return found


def report_file(plan: SurveyPlan, store: Store) -> Path:
    """The committed page, on this machine."""
    return pull(store.path(plan.report) / PAGE)
