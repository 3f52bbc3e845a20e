"""Stage 10: the recommended model, written out as a folder with its card."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from sftlab.files import write_text
from sftlab.store.mirror import pull
from sftlab.strategies import edit_for
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.knowledge.results.tables import Results
from sftlab.studies.knowledge.stages.change import read_change
from sftlab.studies.knowledge.stages.finished import Finished, finished_study
from sftlab.studies.knowledge.stages.results import read_results
from sftlab.weights.cut import percent_label
from sftlab.weights.restoration import write_restored


def build_best(build: KnowledgeBuild) -> None:
    """Write the model that the dev split recommends, with the figures that support it."""
    write_best(finished_study(build), read_results(build))
    build.commit(build.plan.best)


def write_best(finished: Finished, results: Results) -> None:
    """Write the model of the recommended group's lowest seed, its card, and choice.json beside it."""
    # The card names models by their ids, as MLflow does.
    from sftlab.studies.knowledge.stages.tracked import card_of

    best = results.recommended()
    assert best is not None, "every finished cell is asked dev questions"
    _, _, _, build, cell = finished.model(best)
    edit = edit_for(build.plan.spec.restore, best.percent, read_change(build, cell).cuts)
    folder, target = best_folder(finished, results), build.path(finished.best)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    edits = {percent_label(best.percent): edit}
    write_restored(build.model_folder, pull(build.tuned_model(cell)), edits, target)
    write_text(folder / "README.md", card_of(finished, results))
    choice = asdict(best.choice) | {"cell": cell.name, "seed": cell.seed}
    write_text(target / "choice.json", json.dumps(choice, indent=1) + "\n")


def best_folder(finished: Finished, results: Results) -> Path:
    """Hugging Face folder of the recommended model."""
    best = results.recommended()
    assert best is not None, "every finished cell is asked dev questions"
    return finished.base.path(finished.best) / f"restored-{percent_label(best.percent)}"
