"""Runs in several worker groups: equal shares, one report, and what happens when a group fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.training import side_by_side
from sftlab.training.records import SFTResult, SFTRun, TrainingEvent
from sftlab.training.side_by_side import cut, fitting_groups, shares, train_side_by_side
from sftlab.training.spec import SFTSpec, TrainingRuntime

SECONDS = 30  # a wait that takes longer hangs


@pytest.fixture
def runs(tmp_path: Path) -> list[SFTRun]:
    """Six runs of a small base, and one of a base of four times the size on twice the examples for three epochs."""
    for name, size in (("small", 1000), ("large", 4000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({"w": np.zeros(size, np.float32)}, tmp_path / name / "model.safetensors")
    for rows in (5, 10):
        table = pa.table({"prompt": ["Who?"] * rows, "target": ["Wales"] * rows})
        pq.write_table(table, tmp_path / f"{rows}.parquet")

    def run(name: str, base: str, rows: int, epochs: int) -> SFTRun:
        train, output = str(tmp_path / f"{rows}.parquet"), str(tmp_path / f"out-{name}")
        return SFTRun(name, str(tmp_path / base), train, output, SFTSpec(epochs=epochs))

    return [*(run(f"r{i}", "small", 5, 1) for i in range(6)), run("long", "large", 10, 3)]


class Group:
    """Trains nothing: reports each of its runs as finished, and fails at one of them."""

    def __init__(self, failing: str = "") -> None:
        self.parts: list[list[str]] = []
        self.failing = failing
        self.failed = threading.Event()
        self.stopped: list[str] = []

    def __call__(
        self,
        runs: Sequence[SFTRun],
        runtime: TrainingRuntime,
        on_progress: Callable[[TrainingEvent], None] | None = None,
        storage_dir: str = "",
    ) -> list[SFTResult]:
        assert on_progress is not None and storage_dir == "scratch" and runtime == TrainingRuntime()
        names = [run.run_id for run in runs]
        self.parts.append(names)
        if self.failing in names:
            on_progress(event(self.failing, "step"))
            self.failed.set()
            raise UserError(f"{self.failing} cannot be trained.")
        for run in runs:
            if self.failing:
                assert self.failed.wait(SECONDS)
            try:
                on_progress(event(run.run_id, "finished"))
                while self.failing:  # until the error of the other group has come through
                    on_progress(event(run.run_id, "step"))
            except BaseException:
                self.stopped.append(run.run_id)
                raise
        return [SFTResult(run.run_id, run.output_dir, 1, 1, [1.0], [1e-5], 1, 1, 1.0, 1.0) for run in runs]


def event(run_id: str, kind: str) -> TrainingEvent:
    return TrainingEvent(run_id, kind, 1, 1, 1.0, 1e-5, 1.0)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "check_runs", lambda *_: None)
    monkeypatch.setattr(side_by_side, "check_resources", lambda *_: None)


def names(parts: Sequence[Sequence[SFTRun]]) -> list[list[str]]:
    return [[run.run_id for run in part] for part in parts]


def test_parts_have_about_equal_work_in_the_order_of_the_runs(runs: list[SFTRun]) -> None:
    assert names(cut(runs[:6], [1, 1, 1, 1, 1, 1], 3)) == [["r0", "r1"], ["r2", "r3"], ["r4", "r5"]]
    assert names(cut(runs[:4], [5, 1, 1, 2], 2)) == [["r0"], ["r1", "r2", "r3"]]
    assert names(cut(runs[:2], [1, 9], 4)) == [["r0"], ["r1"]]  # no group without a run


def test_work_is_examples_times_epochs_times_the_size_of_the_base(runs: list[SFTRun]) -> None:
    # 'long' costs about 2 * 3 * 4 times a small run, so that it is more than half of all.
    assert names(shares(runs, 2)) == [["r0", "r1", "r2", "r3", "r4", "r5"], ["long"]]
    assert names(shares(runs, 1)) == [[run.run_id for run in runs]] and shares([], 2) == []


def test_all_groups_report_to_the_caller_and_results_come_in_order(runs: list[SFTRun]) -> None:
    group, seen = Group(), set[tuple[str, str]]()
    caller = threading.get_ident()

    def report(found: TrainingEvent) -> None:
        assert threading.get_ident() == caller
        seen.add((found.run_id, found.kind))

    results = train_side_by_side(runs, TrainingRuntime(), 2, report, "scratch", group)
    assert [result.run_id for result in results] == [run.run_id for run in runs]
    assert seen == {(run.run_id, "finished") for run in runs}
    assert sorted(group.parts, key=len) == [["long"], ["r0", "r1", "r2", "r3", "r4", "r5"]]


def test_the_group_that_fails_ends_the_others_and_what_they_finished_is_reported(runs: list[SFTRun]) -> None:
    group, finished = Group(failing="long"), list[str]()

    def report(found: TrainingEvent) -> None:
        if found.kind == "finished":
            finished.append(found.run_id)

    with pytest.raises(UserError, match="long cannot be trained"):
        train_side_by_side(runs, TrainingRuntime(), 2, report, "scratch", group)
    assert finished == ["r0"] and group.stopped == ["r0"]


def test_an_error_of_the_caller_ends_all_groups(runs: list[SFTRun]) -> None:
    group = Group(failing="none of them")
    group.failed.set()

    def report(found: TrainingEvent) -> None:
        raise OSError(f"cannot commit {found.run_id}")

    with pytest.raises(OSError, match="cannot commit"):
        train_side_by_side(runs, TrainingRuntime(), 2, report, "scratch", group)
    assert sorted(group.stopped) == ["long", "r0"]


@pytest.mark.parametrize(
    ("training", "resources", "cores", "expected"),
    [
        ({"workers": 1}, {"CPU": 4, "memory": 2**34}, 2, 2),
        ({"workers": 2}, {"CPU": 4, "memory": 2**34}, 2, 1),
        ({"workers": 1, "threads": 4}, {"CPU": 64, "memory": 2**36}, 32, 8),
        ({"workers": 1}, {"CPU": 64, "memory": 2**33}, 32, 4),  # 2 GiB a rank
        ({"workers": 1, "cpus_per_worker": 2}, {"CPU": 4, "memory": 2**36}, 32, 2),
        ({"workers": 4, "gpus_per_worker": 1}, {"GPU": 8, "CPU": 1}, 1, 2),
        ({"workers": 8, "gpus_per_worker": 1}, {"GPU": 4}, 64, 1),
    ],
)
def test_as_many_groups_as_fit(
    training: dict[str, int], resources: dict[str, float], cores: int, expected: int
) -> None:
    assert fitting_groups(TrainingRuntime.model_validate(training), resources, cores) == expected


def test_groups_have_their_number_of_workers_and_ask_for_the_gpus_of_all() -> None:
    given = {"training": {"workers": 8, "gpus_per_worker": 1}, "fine_tuning": {"groups": 3, "workers": 4}}
    runtime = Runtime.model_validate(given)
    assert runtime.group_training.workers == 4 and runtime.group_training.gpus_per_worker == 1
    assert len(runtime.group_bundles) == len(runtime.most_bundles) == 12
    alone = Runtime.model_validate({"training": {"workers": 8, "gpus_per_worker": 1}})
    assert alone.group_training == alone.training and len(alone.group_bundles) == 8
