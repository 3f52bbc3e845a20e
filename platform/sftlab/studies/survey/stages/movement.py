"""Stage 5: how far each module of each layer moved from the base."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sftlab.store.tables import read_table
from sftlab.studies.survey.build import SurveyBuild
from sftlab.studies.survey.models import MODEL
from sftlab.studies.survey.plan import Model

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "movement.parquet"


def movement_schema() -> pa.Schema:
    """Columns of the table: the fields of `weights.layer_change.ModuleChange`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("layer", pa.int32()),
            ("module", pa.string()),
            ("weights", pa.int64()),
            ("changed", pa.int64()),
            ("squared_change", pa.float64()),
            ("squared_base", pa.float64()),
        ]
    )


def build_movement(build: SurveyBuild) -> None:
    """Measure every tuned model that is missing, one after another."""
    missing = [model for model in build.plan.models if model.movement and build.missing(model.movement)]
    with build.progress.bar("weight changes") as bar:
        for number, model in enumerate(missing, start=1):
            _measure(build, model)
            bar.update(number, len(missing), model.name)


def _measure(build: SurveyBuild, model: Model) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sftlab.weights.delta_folder import open_tuned
    from sftlab.weights.layer_change import layer_changes
    from sftlab.weights.shards import Checkpoint

    assert model.tuned is not None and model.movement is not None
    base_folder, folder = build.base_folder(model.base), build.path(model.movement)
    with (
        Checkpoint.open(base_folder) as base,
        open_tuned(build.read(model.tuned, MODEL), base_folder) as tuned,
    ):
        rows = [asdict(change) for change in layer_changes(base, tuned)]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=movement_schema()), folder / FILE)
    build.commit(model.movement)


def read_movement(build: SurveyBuild, model: Model) -> pa.Table:
    """The committed movement of a tuned model."""
    assert model.movement is not None
    return read_table(build.read(model.movement, FILE), movement_schema())
