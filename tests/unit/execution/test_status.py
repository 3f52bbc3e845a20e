"""The status of a study: steps that are built, begun and damaged, what the rest costs, and who builds now."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sftlab.execution.cost import Cost
from sftlab.execution.run import run_study
from sftlab.execution.runtime import Runtime
from sftlab.execution.status import Status, status_json, status_of, status_text
from sftlab.files import write_text
from sftlab.inference.spec import EngineRuntime
from sftlab.store.artifact import Store
from sftlab.store.locks import Holder
from tests.unit.execution.test_run import Letters, build_of

RUNTIME = Runtime(engine=EngineRuntime(engines=2))


def counts(status: Status) -> dict[str, tuple[int, int, int, int]]:
    return {stage.stage: (stage.steps, stage.built, stage.begun, stage.damaged) for stage in status.stages}


def test_steps_are_counted_by_state_and_only_missing_ones_cost(tmp_path: Path) -> None:
    plan, store = Letters(("one", "three")), Store(tmp_path)
    run_study(build_of(tmp_path, Letters(("one",))))
    write_text(store.path(plan.counted()[0]) / "length.txt", "33")  # of another size than recorded
    write_text(store.path(plan.written()[1]) / "word.txt", "thr")
    found = status_of(plan, store, RUNTIME)
    assert counts(found) == {"words": (2, 1, 1, 0), "lengths": (2, 0, 0, 1)}
    assert found.cost == Cost(engine_starts=2, completions=2)
    assert (found.steps, found.to_build) == (4, 3)
    assert status_text(found).splitlines()[1:] == [
        "  words    1 of 2 built, 1 begun",
        "  lengths  0 of 2 built, 1 damaged; to build: 2 engine starts, 2 completions (at most 0 tokens)",
        "1 of 4 steps are built; 3 to build: 2 engine starts, 2 completions (at most 0 tokens)",
        "building now: nothing",
    ]


def test_a_finished_study_costs_nothing(tmp_path: Path) -> None:
    plan = Letters(("one",))
    run_study(build_of(tmp_path, plan))
    found = status_of(plan, Store(tmp_path), RUNTIME)
    assert found.to_build == 0 and found.cost == Cost()
    assert "2 of 2 steps are built; finished" in status_text(found)


def test_the_process_that_builds_is_named_and_not_disturbed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.exclusive():
        (holder,) = status_of(Letters(("one",)), Store(tmp_path), RUNTIME).holders
        assert (holder.host, holder.process, holder.shared) == (socket.gethostname(), os.getpid(), False)
        assert store.holders() == [holder]
    assert store.holders() == []


def test_the_text_names_studies_and_sweeps_that_build() -> None:
    one = Holder("node1", 17, "2026-01-02T03:04:05Z", False)
    two = Holder("node2", 18, "2026-01-02T03:04:06Z", True)
    status = Status("s", "/store", (), (one, two), ("data/facts.zip",))
    assert status_text(status).splitlines()[2:] == [
        "not here yet: data/facts.zip",
        "building now: a study, process 17 on node1 since 2026-01-02T03:04:05Z",
        "building now: a sweep, process 18 on node2 since 2026-01-02T03:04:06Z",
    ]
    running = status_json(status)["running"]
    assert running[0] == {"host": "node1", "process": 17, "since": "2026-01-02T03:04:05Z", "shared": False}
