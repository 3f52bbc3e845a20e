"""Part of the report: what the records of a survey's results say about time, disk, questions and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftlab.config.documents import parse_json
from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.costs import Amount, Committed, Row, costs, trained
from sftlab.studies.survey.measures import FORMS, RESTORED, forms_schema, restored_schema
from sftlab.studies.survey.models import MODEL


def cost_rows(build: SurveyBuild) -> list[Row]:
    """A row a stage, of all results that the report is made of. Times differ between two runs of one survey."""
    steps = {step.id: step for step, _ in build.plan.steps()}
    records = (build.store.find(step) for step in steps.values() if step.stage != build.plan.report.stage)
    committed = [
        Committed(found.stage, found.provenance["time"], found.bytes, found.provenance.get("cores", ""))
        for found in records
        if found is not None and "time" in found.provenance
    ]
    return costs(committed, {"scores": _answers(build), "survey-tuned": _training(build)})


def _answers(build: SurveyBuild) -> Amount:
    """Questions that models of the survey answered, and the tokens that they wrote."""
    folder = build.read(build.plan.results)
    rows: list[Mapping[str, Any]] = read_table(folder / FORMS, forms_schema()).to_pylist()
    if (folder / RESTORED).is_file():
        restored = read_table(folder / RESTORED, restored_schema()).to_pylist()
        rows = [*rows, *(row for row in restored if row["percent"] > 0)]  # at 0 % it is a model of the forms
    asked = [row for row in rows if row["tokens"] is not None]
    return Amount(sum(row["questions"] for row in asked), sum(row["tokens"] for row in asked))


def _training(build: SurveyBuild) -> Amount:
    """The training of all runs, once where runs share it; the probes of masks are not in it."""
    from sftlab.training.records import COMMIT_FILE

    runs = {}
    for model in build.plan.models:
        if model.run is None or model.tuned is None or model.epoch != model.run.epochs[-1]:
            continue
        file = build.read(model.tuned, f"{MODEL}/{COMMIT_FILE}")
        found = parse_json(file.read_text(encoding="utf-8"), str(file), "delete its folder and run again.")
        result = found["result"]
        runs[model.run.training] = (int(result["tokens"]), float(result["seconds"]), found["runtime"])
    return trained(list(runs.values()))
