"""How fast a sweep is logged: the batched writer against one MLflow call a value, on the same sqlite set-up.

    python -m benchmarks.tracking_sweep [--folder FOLDER] [--trials 125]

Logs a made-up sweep of 125 trials with 8 models each and 31 metrics a model, logs it again, then logs the same
numbers of some of the models the plain way: a run a model, `log_param` and `log_metric` for each value. The
registered model's files are a few bytes: what uploading takes depends on the model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sftlab.studies.knowledge.results.rows import AccuracyRow, CellRow, ChoiceRow, DivergenceRow, TrainingRow
from sftlab.studies.knowledge.results.statistics import choices_by_cell
from sftlab.studies.knowledge.results.tables import Results, Variant
from sftlab.studies.knowledge.tracking.log import log_results
from sftlab.studies.knowledge.tracking.runs import parent_key, trial_records
from sftlab.tracking import TrackedModel, TrackedTable, TrackingSettings
from sftlab.tracking.records import TrialRecord

PERCENTS = (0.0, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
SPLITS = ("dev", "dev_ood", "test", "test_ood", "train_set")
SEEDS = 5
PLAIN_MODELS = 8


def made_up_sweep(trials: int) -> Results:
    cells = [
        CellRow(f"mixed-n{100 + n // SEEDS}-s{n % SEEDS}", "mixed", 100 + n // SEEDS, n % SEEDS, 5000.0, 2.5)
        for n in range(trials)
    ]
    ladder = [(cell, percent) for cell in cells for percent in PERCENTS]
    accuracy = [
        AccuracyRow(
            c.cell, "mixed", c.size, c.set_seed, p, split, bucket, 100, 50, value(c, p, split, bucket)
        )
        for c, p in ladder
        for split in SPLITS
        for bucket in (0, 1, 2, 3, 4, None)
    ]
    variant = Variant(
        "restore",
        "restore",
        spec={"sft": {"batch_size": 8, "learning_rate": 1e-3, "epochs": 1}, "restore": {"region": "layers"}},
        cells=cells,
        accuracy=accuracy,
        divergence=[DivergenceRow(c.cell, p, 90, 1 / (1 + p)) for c, p in ladder],
        training=[TrainingRow(c.cell, s, 4 / s, 1e-5) for c in cells for s in range(1, c.size // 8 + 1)],
    )
    best = ChoiceRow(
        "recommended", "restore", "restore", "mixed", 100, 20.0, SEEDS, 0.4, 0.3, 0.4, 0.3, 0.4, 0.3, 400
    )
    results = Results("benchmark", "pocket Llama", variants=(variant,))
    return replace(results, choice=(*choices_by_cell(results), best))


def value(cell: CellRow, percent: float, split: str, bucket: int | None) -> float:
    """A smooth made-up accuracy in [0, 1] with its maximum at 20 %."""
    level = 0.1 * (2 if bucket is None else bucket) + cell.size / 1000 + 0.01 * cell.set_seed
    return max(0.0, 0.1 + level - abs(percent - 20) / 200 - 0.02 * split.endswith("ood"))


def made_up_models(results: Results, folder: Path) -> dict[str, list[TrackedModel]]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}\n", encoding="utf-8")
    now = {"time": "2026-01-02T03:04:05+00:00", "commit": "0123456789abcdef"}
    return {
        variant.name: [
            TrackedModel(f"{cell.cell}-r{p:g}", cell.cell, p, folder, provenance=now)
            for cell in variant.cells
            for p in PERCENTS
        ]
        for variant in results.variants
    }


def log_plainly(records: list[TrialRecord], limit: int, uri: str) -> int:
    """The same values of some models with a call each; the number of values."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("plain")
    values = 0
    for model in [model for record in records for model in record.models][:limit]:
        run = client.create_run(experiment, run_name=model.name).info.run_id
        for key, text in model.params.items():
            client.log_param(run, key, text)
        for row in model.metrics:
            client.log_metric(run, row.key, row.value, step=model.step)
        client.set_terminated(run)
        values += len(model.params) + len(model.metrics)
    return values


def main(folder: Path, trials: int) -> None:
    results = made_up_sweep(trials)
    models = made_up_models(results, folder / "model")
    tables = [
        TrackedTable(split, f"{n}" * 64, f"{folder}/{split}.parquet", 500) for n, split in enumerate(SPLITS)
    ]
    settings, base = TrackingSettings(), TrackedModel("base")
    # The database is made and migrated outside of what is measured.
    empty = Results("empty", "none")
    uri = log_results(empty, base, {}, parent_key("empty", "", "", {}), settings, folder).address

    def logged() -> tuple[float, float, int]:
        wall, used = time.perf_counter(), time.process_time()
        key = parent_key("benchmark", "", "", {})
        sweep = log_results(results, base, models, key, settings, folder, tables=tables, card="# Card\n")
        return time.perf_counter() - wall, time.process_time() - used, len(sweep.written)

    records = trial_records(results, models, tables)
    count = sum(len(record.models) for record in records)
    metrics = sum(len(model.metrics) for record in records for model in record.models)
    values = metrics + sum(len(model.params) for record in records for model in record.models)
    first, used, written = logged()
    again, _, repeated = logged()
    assert written == trials + 1 and not repeated
    start = time.perf_counter()
    plain_values = log_plainly(records, PLAIN_MODELS, uri)
    plain = (time.perf_counter() - start) / plain_values * values
    print(
        f"{count:,} models, {metrics / count:.0f} metrics each: {first:.1f} s ({used:.1f} s of processor time); "
        f"logged again: {again:.1f} s"
    )
    print(
        f"one call a value (from {PLAIN_MODELS} models, {plain_values:,} of {values:,} values): {plain:.0f} s"
    )
    print(f"ratio: {plain / first:.1f} times faster")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the database here, to look at it")
    parser.add_argument("--trials", type=int, default=125, help="trials of 8 models each")
    chosen = parser.parse_args()
    if chosen.folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch), chosen.trials)
    else:
        main(chosen.folder, chosen.trials)
