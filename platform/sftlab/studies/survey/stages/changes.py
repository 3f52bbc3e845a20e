"""Stage 6: which weights of a tuned model changed most, for those that are restored or edited by such weights."""

from __future__ import annotations

from collections.abc import Mapping

from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL, Model
from sftlab.weights.change_profile import profile, read_profile, write_profile
from sftlab.weights.cut import Cut, percent_label
from sftlab.weights.edits import Edit

FILE = "change.json"


def build_changes(build: SurveyBuild) -> None:
    """Profile every tuned model that has none yet; the rungs of a ladder share one profile."""
    changed = {model.change.id: model for model in build.plan.scored if model.change is not None}
    missing = [model for model in changed.values() if model.change and build.missing(model.change)]
    with build.progress.bar("restorations") as bar:
        for number, model in enumerate(missing, start=1):
            build_change(build, model)
            bar.update(number, len(missing), model.name)


def build_change(build: SurveyBuild, model: Model) -> None:
    """Profile one tuned model and commit the profile."""
    assert model.change is not None and model.tuned is not None and model.rung is not None
    restore = model.rung.restore
    found = profile(
        build.base_folder(model.base),
        build.read(model.tuned, MODEL),
        [percent_label(percent) for percent in restore.percents],
        **restore.selection,
    )
    write_profile(build.path(model.change) / FILE, found)
    build.commit(model.change)


def read_cuts(build: SurveyBuild, model: Model) -> Mapping[str, Cut]:
    """By percentage, the weights of a committed profile; none for an edit that takes none."""
    return {} if model.change is None else read_profile(build.read(model.change, FILE)).cuts


def edit_of(build: SurveyBuild, model: Model) -> Edit | None:
    """The edit that makes a model of its tuned one; None for a model as it was trained."""
    return None if model.rung is None else model.rung.edit(read_cuts(build, model))
