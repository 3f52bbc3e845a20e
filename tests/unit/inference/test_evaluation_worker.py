"""What the driver reports of an engine that refuses a model, and what the worker returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from sftlab.errors import UserError
from sftlab.inference import evaluator
from sftlab.inference.actors import EngineActor
from sftlab.inference.engine import EngineSwapError
from sftlab.inference.evaluation_worker import EvaluationWorker
from sftlab.inference.evaluator import EvaluationItem
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.inference.spec import EngineRuntime, EngineSpec


class Holding:
    """An engine that holds the name of the last weights."""

    held: Any = "the folder's"

    def __init__(self, *_: object) -> None: ...

    def load_weights(self, source: object) -> None:
        self.held = source


@dataclass(frozen=True)
class Named:
    """Measures which weights the engine holds, and the size of its batches."""

    column: str

    def measure(self, engine: Any, limits: BatchLimits = WHOLE) -> pa.Table:
        return pa.table({self.column: [engine.held], "rows": [limits.rows]})


def test_a_worker_measures_after_loading_the_weights_of_each_call_in_the_order_of_the_measurements() -> None:
    engine: Any = Holding
    worker = EvaluationWorker("model", EngineSpec(), EngineRuntime(), engine)
    tuned: Any = "tuned"
    base: Any = "base"
    tables = worker.evaluate(tuned, [Named("b"), Named("a")], BatchLimits(2))
    assert [table.to_pydict() for table in tables] == [
        {"b": ["tuned"], "rows": [2]},
        {"a": ["tuned"], "rows": [2]},
    ]
    assert worker.measure_base(base, Named("c")).to_pydict() == {"c": ["base"], "rows": [None]}


class Swapped:
    """An actor whose engine takes in no weights."""

    def __init__(self, before: int) -> None:
        assert before == 0

    def __getattr__(self, _method: str) -> Any:
        return SimpleNamespace(remote=lambda *_: "task")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(_task: object) -> None:
        raise EngineSwapError("lm_head.weight: the live model still computes with other weights.")

    monkeypatch.setattr(evaluator, "result", refuse)
    monkeypatch.setattr(ray, "wait", lambda tasks, num_returns: (tasks[:num_returns], tasks[num_returns:]))


@pytest.mark.usefixtures("refusing")
def test_a_model_that_an_engine_did_not_take_in_is_named_with_the_way_on() -> None:
    source: Any = None
    item = EvaluationItem("0123", source, {}, Path("store/evaluation/b0-n25-s0-r10-0123456789ab"))
    why = r"lm_head.weight: the live model .* Finished models are kept; run again"
    with pytest.raises(UserError, match=rf"the weights of b0-n25-s0-r10-0123456789ab.* {why}"):
        list(evaluator.spread([EngineActor(Swapped)], [item], None))
    with pytest.raises(UserError, match=rf"the weights of the base model.* {why}"):
        evaluator.call_with_retry(EngineActor(Swapped), source, Named("a"))
