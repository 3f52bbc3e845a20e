"""A whole survey from the command line: its report, its tables, its second run, and a kill in the middle."""

from __future__ import annotations

import csv
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import ROOT, RUNTIME, SFTLAB, environment, files, kill_when, tail

pytestmark = pytest.mark.slow

SURVEY = ROOT / "jobs/configs/surveys/tiny.yaml"
MADE = {
    "base": ["*.safetensors", "tokenizer.json"],
    "drawn": ["train.parquet"],
    "questions": ["questions.parquet"],
    "survey-tuned": ["*.safetensors"],
    "movement": ["movement.parquet"],
    "change": ["change.json"],
    "scores": ["answers.parquet", "likelihoods.parquet", "layer-map.parquet"],
    "geometry": ["geometry.parquet"],
    "embedding": ["embedding.parquet"],
    "survey-results": ["*.csv", "*.parquet", "about.json"],
    "survey-report": ["*.csv"],
}


def command(store: Path) -> list[str]:
    return [str(SFTLAB), "survey", str(SURVEY), "--runtime", str(RUNTIME), "--store", str(store)]


def run(store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(store), *options], capture_output=True, text=True, timeout=900, cwd=ROOT, env=environment()
    )


def payloads(store: Path) -> Mapping[str, bytes]:
    """What two runs of the survey have in common to the bit: all but the table of how long it took."""
    found = {name: data for stage, names in MADE.items() for name, data in files(store, stage, names).items()}
    return {name: data for name, data in found.items() if not name.endswith("costs.csv")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("survey")
    done = run(store)
    assert done.returncode == 0, tail(done)
    assert "report: " in done.stdout
    return store


def test_every_model_is_scored_on_every_benchmark(finished: Path) -> None:
    (table,) = finished.glob("survey-results/*/scores.csv")
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert len(rows) == 10 * 4  # two bases, seven runs, one edited model
    assert all(0 <= float(row["score"]) <= 100 for row in rows)
    assert {row["data"] for row in rows} == {"base", "facts-short", "sums-steps", "chatty"}
    assert {row["method"] for row in rows} == {"", "full", "lora", "wise-ft-50"}


def test_restored_models_are_scored_by_halves_of_the_questions(finished: Path) -> None:
    (table,) = finished.glob("survey-results/*/restored.parquet")
    rows = pq.read_table(table).to_pylist()
    assert len(rows) == 4 * 2 * 4 * 2  # ladders, percentages, benchmarks, halves
    assert {(row["percent"], row["half"], row["questions"]) for row in rows} == {
        (percent, half, 10) for percent in (0.0, 20.0) for half in ("dev", "test")
    }


def test_page_holds_all_sections_and_refers_to_nothing_outside(finished: Path) -> None:
    (page,) = finished.glob("survey-report/*/compare.html")
    text = page.read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "")
    for section in (
        "gains",
        "agreement",
        "structure",
        "perplexity",
        "layers",
        "form",
        "restoration",
        "costs",
        "costs",
    ):
        assert f'id="{section}"' in text, section
    for section in ("map", "layer-maps", "geometry", "states"):
        assert f'id="{section}"' in text, section


def test_models_are_mapped_swapped_and_looked_into(finished: Path) -> None:
    (folder,) = finished.glob("survey-report/*/tables")

    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader((folder / f"{name}.csv").open(encoding="utf-8")))

    assert len(rows("map")) == 2 * 9  # two kinds of texts
    near = {
        row["label"]: float(row["share_nearest"]) for row in rows("map_groups") if row["text"] == "question"
    }
    assert near["base"] > 0.7
    assert len(rows("layer_maps")) == 4 * 3 - 2
    alike = {
        (row["data"], row["benchmark"]): float(row["similarity_embeddings"]) for row in rows("similarities")
    }
    assert len(alike) == 3 * 4
    assert alike["sums-steps", "sums"] > alike["sums-steps", "facts"] + 0.3
    layers = rows("geometry_layers")
    assert len(layers) == 2 * 3
    assert all(1 < float(row["dimension_base"]) < 64 for row in layers)


def test_a_restored_model_becomes_a_folder(finished: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from sftlab.cli.survey import open_survey
    from sftlab.studies.survey.materialize import materialize

    build = open_survey(SURVEY, RUNTIME, str(finished), [])
    model = next(
        model for model in build.plan.scored if model.rung is not None and model.rung.percent == 20.0
    )
    assert model.tuned is not None
    folder = materialize(build, model.name, tmp_path / "restored")
    assert (folder / "tokenizer.json").is_file()
    restored = load_file(folder / "model.safetensors")
    base = load_file(build.base_folder(model.base) / "model.safetensors")
    tuned = load_file(build.path(model.tuned) / "model" / "model.safetensors")
    changed = [restored[name] != tuned[name] for name in tuned]
    assert all((restored[n][c] == base[n][c]).all() for n, c in zip(tuned, changed, strict=True))
    layers = sum(array.size for name, array in tuned.items() if ".layers." in name)
    assert 0.15 < sum(int(c.sum()) for c in changed) / layers <= 0.2


def test_second_run_finds_everything(finished: Path) -> None:
    again = run(finished)
    assert again.returncode == 0, tail(again)
    assert "to build" not in again.stderr + again.stdout


@pytest.mark.rest
def test_killed_survey_goes_on_to_the_same_bits(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"

    def has_scores() -> bool:
        return len(list(store.glob("scores/*/record.json"))) > 3

    kill_when(command(store), has_scores, "scores", signal.SIGKILL)
    done = run(store)
    assert done.returncode == 0, tail(done)
    assert payloads(store) == payloads(finished)
