"""Where the time of a sweep went: what runs keep in addition to the trials' records, and the table of all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from sftlab.errors import UserError
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.sweeps import times as sweep_times
from sftlab.sweeps.times import Timing, keep, keeping, keeping_starts, read_timings, time_table
from sftlab.sweeps.usage import Usage
from tests.support.refusals import refused
from tests.support.small_sweeps import AXES, sweep_of


def with_records(sweep: Sweep) -> Sweep:
    """Two trials, each of which was 6 s in its evaluation, 2 s of them waiting."""
    sweep.records.mkdir(parents=True)
    for name in ("a", "b"):
        times = {"evaluation": {"seconds": 6.0, "queued": 2.0, "hits": 1}}
        record = {
            "trial": name,
            "variant": "restore",
            "config": {},
            "percent": 0.0,
            "score": 0.5,
            "times": times,
        }
        (sweep.records / f"{name}.json").write_text(json.dumps(record))
    return sweep


def test_starts_of_all_runs_are_listed_after_the_trials(tmp_path: Path) -> None:
    sweep = with_records(sweep_of(tmp_path, axes=AXES))
    for starts in (1, 2):  # two runs
        use = {"engines": Usage(2, starts=starts, start_seconds=10.0 * starts), "training": Usage(1)}
        with keeping_starts(sweep.folder, lambda use=use: use):  # type: ignore[misc]
            pass
    keep(sweep.folder, Timing("tables", 1, 4.5))
    lines = time_table(sweep.spec.name, sweep.records, sweep.store).splitlines()
    found = {line[:13].strip(): line[13:].split() for line in lines if line}
    assert found["evaluation"] == ["6.00", "4.00", "2.00", "100%", "2"]
    assert found["engine starts"] == ["10.00", "3", "30.00"]
    assert found["tables"] == ["4.50", "1", "4.50"]
    assert "group starts" not in found and "MLflow" not in found


def test_a_sweep_that_kept_nothing_has_the_table_of_its_trials_alone(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, axes=AXES)
    with refused("no trial of the sweep", value=sweep.spec.name):
        time_table(sweep.spec.name, sweep.records, sweep.store)
    assert "outside" not in time_table(sweep.spec.name, with_records(sweep).records, sweep.store)


def test_a_run_that_fails_keeps_its_starts_and_what_is_not_finished_is_not_kept(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        keeping_starts(tmp_path, lambda: {"training": Usage(1, starts=1, start_seconds=7.0)}),
        keeping(tmp_path, "tables"),
    ):
        raise KeyboardInterrupt
    assert read_timings(tmp_path) == [Timing("group starts", 1, 7.0)]


def test_pools_that_are_gone_do_not_hide_why_a_run_failed(tmp_path: Path) -> None:
    def gone() -> Mapping[str, Usage]:
        raise RuntimeError("the actor died")

    with pytest.raises(UserError, match="the reason"), keeping_starts(tmp_path, gone):
        raise UserError("the reason")
    assert read_timings(tmp_path) == []


def test_seconds_are_those_of_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([5.0, 7.5])
    monkeypatch.setattr(sweep_times, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    with keeping(tmp_path, "report"):
        pass
    assert read_timings(tmp_path) == [Timing("report", 1, 2.5)]


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    keep(tmp_path, Timing("tables", 1, 1.0))
    (file,) = (tmp_path / "spent").iterdir()
    file.write_text('{"what": "tables", "times": 1}')
    with pytest.raises(UserError, match=f"{file.name}: field seconds"):
        read_timings(tmp_path)
