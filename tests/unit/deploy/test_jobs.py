"""The scripts in jobs/ are what a submitted job calls: thin, and each with a stage of its own."""

from __future__ import annotations

import runpy
import signal
import sys
from pathlib import Path

import pytest

from sftlab.cli import app as cli
from sftlab.cluster.session import own_sigterm
from sftlab.studies.knowledge.pipeline import STAGES

JOBS = Path(__file__).parents[3] / "jobs"
SCRIPTS = sorted(JOBS.glob("*.py"))
OPTIONS = ["--store", "/shared/store", "--set", "name=x"]


def called(script: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that a script hands to the command line."""
    seen: list[list[str]] = []
    monkeypatch.setattr(cli, "main", seen.append)
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    (found,) = seen
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_job_takes_its_study_by_config_or_by_place(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(script.read_text().splitlines()) <= 40
    spelled = [
        ["STUDY.yaml", *OPTIONS],
        ["--config", "STUDY.yaml", *OPTIONS],
        ["--config=STUDY.yaml", *OPTIONS],
    ]
    first, *others = [called(script, words, monkeypatch) for words in spelled]
    assert first[0] == ("sweep" if script.stem == "sweep" else "run")
    assert first[-len(spelled[0]) :] == spelled[0]
    assert others == [first, first]


def test_a_job_s_help_shows_how_a_job_is_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called(JOBS / "run_study.py", ["--help"], monkeypatch)
    assert "run_study.py --config FILE.yaml [OPTIONS]" in capsys.readouterr().out


def test_each_stage_has_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [called(script, ["STUDY.yaml"], monkeypatch) for script in SCRIPTS]
    stages = [found[found.index("--until") + 1] for found in words if "--until" in found]
    assert len(set(stages)) == len(stages) and set(stages) <= (known := {stage.name for stage in STAGES})
    assert known - set(stages) == {"results", "best"}  # quick, and built with the report


def test_ray_does_not_take_away_what_a_stopped_job_says() -> None:
    def of_ray(number: int, frame: object) -> None:
        raise AssertionError(number, frame)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with own_sigterm():
            signal.signal(signal.SIGTERM, of_ray)  # as ray.init does
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
