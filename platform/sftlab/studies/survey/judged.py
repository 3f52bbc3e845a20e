"""Judgments of a judge model that ran elsewhere, on the models of a survey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sftlab.config.documents import nearest
from sftlab.datasets.judgments import JudgmentsSpec, read_judgments
from sftlab.errors import UserError
from sftlab.studies.survey.models import Model


def read_judged(
    files: Mapping[str, JudgmentsSpec], of: Iterable[Model]
) -> dict[str, list[tuple[Model, list[float | None]]]]:
    """By benchmark that was judged elsewhere, the judgments on the models of the survey.

    Raises UserError naming the model of a file that the survey does not have.
    """
    models = {model.name: model for model in of}
    found = {}
    for name, file in files.items():
        judgments = read_judgments(file)
        for model in judgments:
            if model not in models:
                near = nearest(model, models)
                raise UserError(
                    f"judges {model!r}, which is no model of the survey",
                    place=file.source,
                    value=model,
                    advice=(f"did you mean {near!r}? " if near else "")
                    + f"`benchmarks.judged.{name}.names` says which model of the survey it is.",
                )
        found[name] = [(models[model], given) for model, given in judgments.items()]
    return found
