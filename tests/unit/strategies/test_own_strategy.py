"""A strategy of one's own: the documented example, and where its module is looked for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sftlab import PLUGIN_PATH
from sftlab.errors import UserError
from sftlab.strategies import load_plugins
from sftlab.studies.load import load_study
from tests.support.own_strategy import documented_module, write_documented_files
from tests.support.strategy_studies import documented_example

TINY = Path(__file__).parents[3] / "jobs" / "configs" / "tiny.yaml"
WITHOUT = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", PLUGIN_PATH)}


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module path and its variable are as before, after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(PLUGIN_PATH, "")


def test_the_docs_show_the_docstring_s_example() -> None:
    assert documented_module().strip() == documented_example().strip()


def test_the_documented_example_plans_as_it_stands_without_a_pythonpath(tmp_path: Path) -> None:
    commands = write_documented_files(tmp_path)
    assert len(commands) == 2
    outputs = []
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "sftlab"
        code = "from sftlab.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words[1:]],
            cwd=tmp_path,
            env=WITHOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "sweep clip-sweep: 6 trials, 0 finished" in outputs[0]
    assert (
        "evaluation          0 HIT      14 BUILD" in outputs[0]
    )  # 2 cells: 0 %, and 3 variants of 2 percentages
    assert "study clip-study" in outputs[1] and "7 HIT" not in outputs[1]


@pytest.mark.usefixtures("own_path")
def test_a_module_beside_the_file_is_found_last_and_by_the_processes_that_are_started(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("1 / 0\n")  # must not stand in for the standard library's
    (tmp_path / "beside_the_study.py").write_text("loaded = True\n")
    study = tmp_path / "study.yaml"
    study.write_text("name: t\npocket: {}\nplugins: [beside_the_study]\n")
    assert load_study(study).plugins == ("beside_the_study",)
    assert sys.path[-1] == str(tmp_path) == os.environ[PLUGIN_PATH]
    load_study(study)
    assert sys.path.count(str(tmp_path)) == 1 and os.environ[PLUGIN_PATH] == str(tmp_path)
    started = "import sftlab, json, beside_the_study; print(json.dumps(beside_the_study.loaded))"
    done = subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "true"


@pytest.mark.usefixtures("own_path")
def test_without_plugins_no_folder_is_added(tmp_path: Path) -> None:
    before = list(sys.path)
    load_plugins((), tmp_path)
    load_study(TINY)
    assert sys.path == before and os.environ[PLUGIN_PATH] == ""


@pytest.mark.usefixtures("own_path")
@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (
            "[nowhere_at_all]",
            "plugins: nowhere_at_all cannot be imported .*its file in the folder of the study",
        ),
        ("clip", r"study\.yaml: plugins: expected a list"),
        ("[3]", r"study\.yaml: plugins\.0: "),
    ],
)
def test_plugins_that_are_none_are_told(tmp_path: Path, plugins: str, message: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"name: t\npocket: {{}}\nplugins: {plugins}\n")
    with pytest.raises(UserError, match=message):
        load_study(study)


@pytest.mark.usefixtures("own_path")
def test_plugins_move_no_id(tmp_path: Path) -> None:
    from sftlab.studies.knowledge.plan import Plan
    from sftlab.studies.knowledge.sources import resolve

    (tmp_path / "moves_nothing.py").write_text("")
    ids = []
    for plugins in ("", "plugins: [moves_nothing]\n"):
        study = tmp_path / "study.yaml"
        study.write_text(f"name: t\npocket: {{}}\n{plugins}")
        spec = load_study(study)
        ids.append([step.id for step, _ in Plan(spec, resolve(spec, tmp_path)).steps()])
    assert ids[0] == ids[1]
