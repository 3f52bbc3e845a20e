"""The examples of docs/python.md run as they are printed, on models of a few kilobytes and invented results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.facts import facts_table
from sftlab.store.artifact import Store
from sftlab.store.record import Step
from sftlab.studies import read_results
from tests.support.evaluated_study import build_of, finish
from tests.support.refusals import refused
from tests.support.tracked_study import results_of
from tests.support.weights_models import save_model, save_tuned

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = dict(
    re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)
SCORES = "model,data,benchmark,score\nm,base,quiz,50.0\nm,good,quiz,62.5\n"


def commit_results(store: Store, name: str, seeds: int = 0) -> Step:
    """A study's results of two cells."""
    step = Step("results", name, {"seeds": seeds})
    results_of(0, 4).write(store.path(step))
    store.commit(step)
    return step


def commit_survey(store: Store, name: str) -> None:
    """A survey's results: two scores, and one form of answers."""
    step = Step("survey-results", name, {})
    folder = store.path(step)
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text(SCORES)
    pq.write_table(pa.table({"model": ["m"], "in_form": [0.5]}), folder / "forms.parquet")
    store.commit(step)


def write_one_fact(folder: Path) -> None:
    """A facts folder with one fact in the split test."""
    folder.mkdir()
    topic = {"topic": "P19", "domain": "in-domain", "question": "Where was {subject} born?"}
    (folder / "topics.json").write_text(json.dumps([topic | {"templates": ["{subject} was born in"]}]))
    fact = {
        "fact_id": "f",
        "topic": "P19",
        "subject": "Ada",
        "object": "London",
        "question": "Where was Ada born?",
    }
    pq.write_table(facts_table([fact | {"accepted": ["London", "Londinium"]}]), folder / "test.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the examples read."""
    root = tmp_path_factory.mktemp("examples")
    save_model(root / "models" / "base", "llama-tied", seed=0)
    save_tuned(root / "models" / "tuned", root / "models" / "base")
    (root / "runs").mkdir()
    finish(build_of(root / "runs"))
    store = Store(root / "runs" / "store")
    commit_results(store, "pocket")
    commit_survey(store, "grid")
    write_one_fact(root / "facts")
    return root


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")


def test_a_ladder_is_restored(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES["Restore a ladder"], {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" %")[0] for line in lines[:2]] == ["5", "20"]
    assert all(Path(f"runs/restored/restored-{percent}/model.safetensors").is_file() for percent in (5, 20))


def test_a_change_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES["Measure a change without writing models"], {})
    percents = [float(line.split("%")[0]) for line in capsys.readouterr().out.splitlines()]
    assert sum(percents) == pytest.approx(100, abs=0.5)  # each is rounded to a tenth


def test_the_results_of_a_study_are_plotted() -> None:
    exec(EXAMPLES["Read the results of a study and plot them"], {})
    assert Path("accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_training_of_a_study_is_a_data_frame(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {}
    exec(EXAMPLES["Read the training of a study"], scope)
    assert scope["last"]["loss"].tolist() == [pytest.approx(4 / 3)] * 2  # type: ignore[index]
    assert "restore" in capsys.readouterr().out


def test_the_scores_of_a_survey_are_a_data_frame(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES["Read the scores of a survey"], {})
    assert "62.5" in capsys.readouterr().out


def test_one_model_of_a_study_is_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES["Read one model of a study"], {})
    assert Path("models/restored-10/model.safetensors").is_file()
    assert "r10" in capsys.readouterr().out


def test_facts_are_read_with_their_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES["Read facts and their prompts"], {})
    assert capsys.readouterr().out == "Ada was born in ... London or Londinium\n"


def test_every_example_of_the_page_has_a_test() -> None:
    tested = set(re.findall(r'EXAMPLES\["(.+?)"\]', Path(__file__).read_text()))
    assert set(EXAMPLES) == tested and len(EXAMPLES) == PAGE.read_text().count("```python")


def test_tables_of_variants_name_the_variant_and_an_unknown_name_is_refused_with_the_known_ones() -> None:
    tables = read_results("runs/store", "pocket")
    assert tables["cells"].column_names[0] == "variant" and set(tables["cells"]["variant"].to_pylist()) == {
        "restore"
    }
    assert tables["accuracy"].schema.field("accuracy").type == pa.float64()
    assert tables["choice"].num_rows == len(results_of(0, 4).choice)
    with refused("no results of 'pockett'", value="pockett", expected=r"grid \(.*, pocket \("):
        read_results("runs/store", "pockett")


def test_of_several_results_of_one_name_the_last_is_read_and_others_by_their_ids(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    steps = [commit_results(store, "twice", seeds) for seeds in (1, 2)]
    assert read_results(store, "twice").keys() == read_results(store, steps[0].id[:10]).keys()


def test_the_names_of_packages_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, sftlab.weights, sftlab.studies, sftlab.training, sftlab.store, sftlab.datasets, sftlab.analysis\n"
        "import sftlab.facts, sftlab.inference\n"
        "assert not {'torch', 'ray', 'pyarrow', 'numpy', 'pydantic'} & sys.modules.keys()\n"
        "assert 'restore' in dir(sftlab.weights) and callable(sftlab.weights.restore)\n"
        "assert all(getattr(p, n) for p in (sftlab.weights, sftlab.studies, sftlab.store, sftlab.training, "
        "sftlab.datasets, sftlab.analysis, sftlab.facts, sftlab.inference) for n in p.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_page_lists_the_public_names_of_every_package_that_has_some() -> None:
    rows = re.findall(r"^\| `(sftlab\.\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    public = {package: set(import_module(package).__all__) for package, _ in rows}
    for package, text in rows:
        listed = set(re.findall(r"`(\w+)`", text))
        assert listed <= public[package], package
        assert listed == public[package] or "and others" in text, package
    sources = (Path(__file__).parents[2] / "platform" / "sftlab").glob("*/__init__.py")
    assert public.keys() == {
        f"sftlab.{file.parent.name}" for file in sources if "__all__" in file.read_text()
    }
