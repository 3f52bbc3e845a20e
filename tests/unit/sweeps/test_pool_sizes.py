"""How many engines a cluster holds beside training, and what the pools count."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from sftlab.execution.runtime import Runtime
from sftlab.studies.load import load_runtime
from sftlab.sweeps import usage
from sftlab.sweeps.pools import pool_sizes
from sftlab.sweeps.usage import Meter
from tests.support.refusals import refused
from tests.support.small_sweeps import CONFIGS


@pytest.mark.parametrize(
    ("gpus", "engines", "training", "expected"),
    [(0, 1, 0, 1), (8, 1, 2, 6), (8, 4, 0, 2), (2, 1, 1, 1)],
)
def test_engines_take_the_gpus_that_training_leaves(
    gpus: int, engines: int, training: int, expected: int
) -> None:
    runtime = Runtime.model_validate(
        {
            "engine": {"gpus_per_engine": engines if gpus else 0, "tensor_parallel": engines if gpus else 1},
            "training": {"workers": training or 1, "gpus_per_worker": 1 if training else 0},
        }
    )
    assert pool_sizes(runtime, {"GPU": float(gpus)}).engines == expected


def test_a_sweep_whose_training_leaves_no_gpu_to_an_engine_is_refused_before_it_waits_for_ever() -> None:
    runtime = Runtime.model_validate(
        {"engine": {"gpus_per_engine": 1}, "training": {"workers": 8, "gpus_per_worker": 1}}
    )
    with refused("come to 9 GPUs, and the cluster has 8", value=9.0, advice=r"training\.workers"):
        pool_sizes(runtime, {"GPU": 8.0})
    assert pool_sizes(runtime, {"GPU": 16.0}).engines == 8
    shipped = load_runtime(CONFIGS / "runtimes" / "8x-h100-80gb-sweep.yaml")
    assert pool_sizes(shipped, {"GPU": 8.0}).engines == 4


def test_on_cpus_every_node_has_an_engine() -> None:
    for engines, nodes, expected in ((1, 1, 1), (1, 3, 3), (4, 3, 4)):
        runtime = Runtime.model_validate({"engine": {"engines": engines}})
        assert pool_sizes(runtime, {"CPU": 64.0}, nodes).engines == expected
    fixed = Runtime.model_validate({"sweep": {"engines": 2}})
    assert pool_sizes(fixed, {"CPU": 64.0}, 3).engines == 2


def test_a_meter_integrates_busy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(100.0, 3.0)  # three seconds between any two looks at the clock
    monkeypatch.setattr(usage, "time", SimpleNamespace(monotonic=lambda: next(now)))
    meter = Meter(2)
    meter.add(busy=2, starts=1)
    meter.add(busy=-2, done=3)
    found = meter.read()
    assert found.busy == 0 and found.done == 3 and found.starts == 1
    assert (found.busy_seconds, found.elapsed) == (2 * 3.0, 9.0)
