"""How fast a study is logged: the batched writer against one MLflow call a value, on the same sqlite set-up.

    python -m benchmarks.tracking [--folder FOLDER]

Logs a made-up study of 81 models (10 cells x 8 percentages and the base), then logs it again, then logs
the same numbers of some of the models the plain way: `log_param` and `log_metric` for each value.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sftlab.studies.knowledge.results.choice import choose
from sftlab.studies.knowledge.results.tables import (
    AccuracyRow,
    CellRow,
    ConcentrationRow,
    DistributionRow,
    DivergenceRow,
    MasteryRow,
    PairedRow,
    StudyResults,
    TrainingRow,
)
from sftlab.studies.knowledge.tracking.log import log_study
from sftlab.studies.knowledge.tracking.study import model_records
from sftlab.tracking import TrackedModel, TrackedStudy, TrackedTable, TrackingSettings

PERCENTS = (0.0, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
SPLITS = ("dev", "dev_ood", "test", "test_ood")
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PLAIN_MODELS = 9


def accuracy_of(bucket: int, size: int, percent: float, asked: int) -> float:
    """A smooth made-up accuracy in [0, 1] with its maximum at 20%."""
    return max(0.0, 0.05 + 0.15 * asked + 0.02 * bucket - 0.02 * (size > 500) - abs(percent - 20) / 400)


def made_up_study() -> StudyResults:
    cells = [
        CellRow(f"bucket{bucket}-n{size}-s0", str(bucket), size, 0, 4000.0 + bucket, size / 40)
        for bucket in range(5)
        for size in (100, 1920)
    ]
    accuracy = [AccuracyRow("base", None, None, None, None, s, None, 500, 5, 0.01) for s in SPLITS]
    for c in cells:
        for percent in PERCENTS:
            for split in SPLITS:
                shares = [accuracy_of(int(c.train_bucket), c.size, percent, asked) for asked in range(5)]
                rows: list[tuple[int | None, float]] = [*enumerate(shares), (None, sum(shares) / 5)]
                accuracy += [
                    AccuracyRow(c.cell, c.train_bucket, c.size, 0, percent, split, b, 100, round(100 * a), a)
                    for b, a in rows
                ]
    ladder = [(c.cell, p) for c in cells for p in PERCENTS]
    restored = [(c, p) for c, p in ladder if p]
    return StudyResults(
        name="pocket",
        model="pocket-llama",
        spec={
            "sft": {"batch_size": 8, "learning_rate": 3e-4},
            "restore": {"region": "layers", "order": "top"},
        },
        cells=cells,
        accuracy=accuracy,
        paired=[
            PairedRow(c, p, s, b, 100, 3, 2)
            for c, p in restored
            for s in ("test", "test_ood")
            for b in range(5)
        ],
        divergence=[DivergenceRow(c, p, 90, 1 / (1 + p)) for c, p in ladder],
        concentration=[ConcentrationRow(c.cell, p, 1 - 1 / (1 + p)) for c in cells for p in PERCENTS[1:]],
        distribution=[DistributionRow(c, p, "module", m, 1 / 7) for c, p in restored for m in MODULES],
        mastery=[MasteryRow(split, bucket, 100) for split in ("train", *SPLITS) for bucket in range(5)],
        training=[
            TrainingRow(c.cell, s, 4 / (1 + s), 1e-5) for c in cells for s in range(1, c.size // 8 + 1)
        ],
        choice=choose(accuracy),
    )


def made_up_models(results: StudyResults, folder: Path) -> list[TrackedModel]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}\n", encoding="utf-8")
    now = {"time": "2026-01-02T03:04:05+00:00", "commit": "0123456789abcdef"}
    base = TrackedModel("base", provenance=now)
    return [
        base,
        *(
            TrackedModel(f"{c.cell}-r{p:g}", c.cell, p, folder, provenance=now)
            for c in results.cells
            for p in PERCENTS
        ),
    ]


def log_plainly(
    results: StudyResults, models: Sequence[TrackedModel], tables: Sequence[TrackedTable], uri: str
) -> int:
    """The same values with a call each; the number of values."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("plain")
    values = 0
    for record in model_records(results, models, tables):
        run = client.create_run(experiment, run_name=record.name).info.run_id
        for key, value in record.params.items():
            client.log_param(run, key, value)
        for row in record.metrics:
            client.log_metric(run, row.key, row.value, step=row.step)
        client.set_terminated(run)
        values += len(record.params) + len(record.metrics)
    return values


def main(folder: Path) -> None:
    results = made_up_study()
    models = made_up_models(results, folder / "model")
    tables = [
        TrackedTable(split, f"{n}" * 64, f"{folder}/{split}.parquet", 500) for n, split in enumerate(SPLITS)
    ]
    settings = TrackingSettings()
    # The database is made and migrated outside of what is measured.
    log_study(StudyResults("empty", "none"), [], settings, folder)

    def logged() -> tuple[float, TrackedStudy]:
        start = time.perf_counter()
        study = log_study(results, models, settings, folder, tables)
        return time.perf_counter() - start, study

    first, study = logged()
    again, repeated = logged()
    assert len(study.written) == len(models) and not repeated.written
    records = model_records(results, models, tables)
    values = sum(len(record.params) + len(record.metrics) for record in records)
    start = time.perf_counter()
    plain_values = log_plainly(results, models[:PLAIN_MODELS], tables, study.address)
    plain = (time.perf_counter() - start) / plain_values * values
    print(f"{len(models)} models, {values:,} values: {first:.1f} s; logged again: {again:.1f} s")
    print(f"one call a value (from {PLAIN_MODELS} models, {plain_values:,} values): {plain:.1f} s")
    print(f"ratio: {plain / first:.1f} times faster")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the database here, to look at it")
    chosen = parser.parse_args().folder
    if chosen is None:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
    else:
        main(chosen)
