"""The scripts in jobs/ are what a submitted job calls: a study, a sweep, a survey, and a single stage."""

from __future__ import annotations

import runpy
import signal
import sys
from pathlib import Path

import pytest

from sftlab.cli import app as cli
from sftlab.cluster.session import own_sigterm

JOBS = Path(__file__).parents[3] / "jobs"
OPTIONS = ["--store", "/shared/store", "--set", "name=x"]


def called(script: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that a script hands to the command line, which ends the process."""
    seen: list[list[str]] = []

    def main(arguments: list[str]) -> None:
        seen.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr(sys, "argv", [f"jobs/{script}.py", *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(JOBS / f"{script}.py"), run_name="__main__")
    (found,) = seen
    return found


@pytest.mark.parametrize(
    ("script", "words", "before"),
    [
        ("run_study", [], ["run"]),
        ("sweep", [], ["sweep"]),
        ("survey", [], ["survey"]),
        ("stage", ["mastery"], ["run", "--until", "mastery"]),
    ],
)
def test_a_job_takes_its_file_by_config_or_by_place(
    script: str, words: list[str], before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (["F.yaml"], ["--config", "F.yaml"], ["--config=F.yaml"]):
        assert called(script, [*words, *file, *OPTIONS], monkeypatch) == [*before, "F.yaml", *OPTIONS]


def test_the_options_of_a_stage_s_job_may_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = called("stage", ["mastery", *OPTIONS, "--config", "F.yaml"], monkeypatch)
    assert found == ["run", "--until", "mastery", *OPTIONS, "F.yaml"]


@pytest.mark.parametrize("words", [["--help"], ["mastery", "--help"], []])
def test_a_job_s_help_shows_how_a_job_is_called(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("stage", words, monkeypatch) == ["run", "--help"]
    assert "stage.py STAGE --config FILE.yaml [OPTIONS]" in capsys.readouterr().out


def test_every_script_of_the_folder_is_one_of_these() -> None:
    assert {path.stem for path in JOBS.glob("*.py")} == {"run_study", "sweep", "survey", "stage"}


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
