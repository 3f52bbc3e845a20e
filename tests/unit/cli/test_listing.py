"""`sftlab list` names what exists, in the order of its source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sftlab.cli.app import app
from sftlab.cli.listing import Kind
from sftlab.datasets.spec import FORMAT_NAMES
from sftlab.errors import UserError
from sftlab.facts.prepare import SOURCES
from sftlab.strategies import known_strategies
from sftlab.studies.knowledge.pipeline import STAGES
from sftlab.studies.knowledge.results.choice import METRICS
from sftlab.studies.survey.pipeline import STAGES as SURVEY_STAGES

MODELS = Path(__file__).parents[3] / "jobs" / "configs" / "models"


def listed(*arguments: str) -> dict[str, str]:
    done = CliRunner().invoke(
        app, ["list", *arguments, "--models", str(MODELS), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("strategies", list(known_strategies())),
        ("metrics", list(METRICS)),
        (
            "stages",
            [f"knowledge: {stage.name}" for stage in STAGES]
            + [f"survey: {stage.name}" for stage in SURVEY_STAGES],
        ),
        ("models", ["llama2-13b", "llama2-70b", "llama2-7b", "llama3-70b", "llama3-8b"]),
        ("data", list(SOURCES)),
        ("formats", list(FORMAT_NAMES)),
        ("studies", ["knowledge", "survey"]),
    ],
)
def test_every_name_is_listed_with_an_explanation(kind: str, names: list[str]) -> None:
    found = listed(kind)
    assert list(found) == names
    assert all(len(text) > 10 and "\n" not in text for text in found.values())


def test_a_name_is_the_first_word_of_its_line() -> None:
    lines = CliRunner().invoke(app, ["list", "metrics"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(METRICS)


def test_a_custom_strategy_of_a_plugin_is_listed(tmp_path: Path) -> None:
    text = (
        "from sftlab.strategies import Strategy, register\n\n\n@register\nclass Mine(Strategy):\n"
        '    name = "listed-here"\n    title = "Listed"\n    source = "a test"\n\n'
        "    def apply(self, treatment):\n        return treatment\n"
    )
    (tmp_path / "listed_plugin.py").write_text(text)
    words = ["list", "strategies", "--plugin", "listed_plugin", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from sftlab.cli.app import main; main()", *words],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(done.stdout)["listed-here"] == "Listed (a test)"


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    done = CliRunner().invoke(app, ["list", "lunch"])
    assert done.exit_code == 2 and all(kind in done.output for kind in Kind)


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["list", "models", "--models", str(tmp_path)])
    assert isinstance(done.exception, UserError) and "name the folder of a catalogue" in str(done.exception)
