"""A small made-up study to log, and a reader of all that MLflow then holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sftlab.studies.knowledge.results.rows import (
    AccuracyRow,
    CellRow,
    ChoiceRow,
    ConcentrationRow,
    DivergenceRow,
    MasteryRow,
    PairedRow,
    TrainingRow,
)
from sftlab.studies.knowledge.results.statistics import choices_by_cell
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.tracking import Tracked, TrackedModel, TrackedTable, table_of

PERCENTS = (0.0, 2.5, 20.0)
DEV = {0.0: 0.2, 2.5: 0.25, 20.0: 0.5}
SPEC = {
    "sft": {"batch_size": 8, "learning_rate": 1e-5, "lora": None},
    "restore": {"region": "layers", "order": "top", "percents": list(PERCENTS)},
    "training_sets": {"buckets": [2]},
}
TIME = "2026-01-02T03:04:05+00:00"


def cell(bucket: int) -> CellRow:
    return CellRow(f"bucket{bucket}-n100-s0", str(bucket), 100, 0, tokens_per_second=900.0, seconds=2.0)


def results_of(*buckets: int, loss_steps: int = 3) -> Results:
    """A small study: every cell's dev accuracy is DEV, plus a hundredth a bucket; test is half of dev."""
    cells = [cell(bucket) for bucket in buckets]
    accuracy = [AccuracyRow("base", None, None, None, None, "test", None, 10, 1, 0.1)]
    for row, bucket in zip(cells, buckets, strict=True):
        for percent in PERCENTS:
            dev = DEV[percent] + bucket / 100
            for split, value in (("dev", dev), ("test", dev / 2), ("train_set", 0.9)):
                for part in (None, 4):
                    accuracy.append(
                        AccuracyRow(row.cell, row.train_bucket, 100, 0, percent, split, part, 100, 50, value)
                    )
    variant = Variant(
        "restore",
        "restore",
        spec={**SPEC, "training_sets": {"buckets": list(buckets)}},
        provenance={"commit": "abc+changes"},
        cells=cells,
        accuracy=accuracy,
        paired=[PairedRow(c.cell, 20.0, "test", bucket, 10, 3, 1) for c in cells for bucket in (0, 1)],
        divergence=[DivergenceRow(c.cell, 0.0, 7, 1.25) for c in cells],
        concentration=[ConcentrationRow(c.cell, 1.0, 0.71) for c in cells],
        mastery=[MasteryRow("test", 4, 12)],
        training=[
            TrainingRow(c.cell, step, 4.0 / step, 1e-5) for c in cells for step in range(1, loss_steps + 1)
        ],
    )
    study = Results("study", "pocket", variant.spec, variants=[variant], kind="study")
    scores = (0.5, 0.2, 0.25, 0.1, None, None)
    best = ChoiceRow("recommended", "restore", "restore", cells[-1].train_bucket, 100, 20.0, 1, *scores, 100)
    return replace(study, choice=[*choices_by_cell(study), best])


MADE = {"time": TIME, "commit": "abc+changes", "torch": "2.13.0"}


def base_of() -> TrackedModel:
    return TrackedModel("base-id", provenance=MADE)


def models_of(results: Results, folder: Path | None) -> dict[str, list[TrackedModel]]:
    models = []
    for row in results.variants[0].cells:
        train_set = TrackedTable(row.cell, "c" * 64, "train.parquet", 100, context="training")
        models += [
            TrackedModel(f"{row.cell}/{p:g}", row.cell, p, folder, train_set, provenance=MADE)
            for p in PERCENTS
        ]
    return {"restore": models}


def make_database(folder: Path) -> Path:
    """MLflow's database in its first state; its migrations take seconds."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


def make_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(bytes(range(64)))
    return folder


def make_tables(folder: Path) -> list[TrackedTable]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for split in ("dev", "test"):
        pq.write_table(pa.table({"fact_id": [split, "b"], "hits": [1, 2]}), folder / f"{split}.parquet")
        found.append(table_of(folder / f"{split}.parquet"))
    return found


def everything(study: Tracked) -> dict[str, object]:
    """All that MLflow holds of the experiment: what must not change when a study is logged again."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=study.address)
    runs = client.search_runs([study.experiment_id], run_view_type=3, max_results=1000)
    models = client.search_logged_models([study.experiment_id], max_results=100)
    return {
        "runs": {
            run.info.run_id: (
                run.info.run_name,
                run.info.status,
                run.info.lifecycle_stage,
                run.data.params,
                run.data.tags,
                {
                    key: [
                        (m.step, m.timestamp, m.value)
                        for m in client.get_metric_history(run.info.run_id, key)
                    ]
                    for key in run.data.metrics
                },
                sorted((d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs),
                [output.model_id for output in run.outputs.model_outputs],
            )
            for run in runs
        },
        "models": {
            m.model_id: (m.name, m.status, m.tags, m.params, [(x.key, x.value) for x in m.metrics or []])
            for m in models
        },
    }
