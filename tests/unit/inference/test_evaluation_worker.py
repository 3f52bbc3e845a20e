"""What the driver reports of an engine that refuses a model, and what the worker returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from sftlab.errors import UserError
from sftlab.inference import evaluator
from sftlab.inference.actors import EngineActor
from sftlab.inference.engine import EngineSwapError
from sftlab.inference.evaluation_worker import EvaluationWorker
from sftlab.inference.evaluator import EvaluationItem
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.inference.spec import EngineRuntime, EngineSpec
from tests.support.weights_models import write_checkpoint


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


@dataclass(frozen=True)
class Source:
    """A model of one tensor."""

    value: float

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "model.norm.weight", torch.tensor([self.value])


class Started(Holding):
    """An engine that reads the folder it is started with, and takes no other weights."""

    def __init__(self, folder: str, *_: object) -> None:
        self.held = float(load_file(Path(folder) / "model.safetensors")["model.norm.weight"][0])
        self.files = sorted(file.name for file in Path(folder).iterdir())

    def load_weights(self, source: object) -> None:
        raise EngineSwapError(f"{source} cannot be swapped.")


def test_an_engine_that_cannot_swap_is_started_with_the_model_itself(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", {"model.norm.weight": torch.tensor([1.0])})
    engine: Any = Started
    worker = EvaluationWorker(str(base), EngineSpec(), EngineRuntime(), engine, Source(2.0))
    (table,) = worker.evaluate(Source(2.0), [Named("b")])
    assert table.to_pydict() == {"b": [2.0], "rows": [None]}
    assert worker.engine.files == ["config.json", "model.safetensors", "tokenizer.json"]  # type: ignore[attr-defined]
    with pytest.raises(EngineSwapError):
        EvaluationWorker(str(base), EngineSpec(), EngineRuntime(), engine).measure_base(
            Source(3.0), Named("c")
        )


class Calls:
    """Stands for Ray's actors: `actor.method.remote` answers at once, `result` returns or raises the answer."""

    def __init__(self, swaps: bool, broken: bool = False) -> None:
        self.swaps, self.broken, self.starts = swaps, broken, list[Any]()

    def start(self, _before: int, source: Any) -> Any:
        self.starts.append(source)

        def call(asked: Any, *_: object) -> tuple[Any, Any]:
            return source, asked

        return SimpleNamespace(
            evaluate=SimpleNamespace(remote=call), measure_base=SimpleNamespace(remote=call)
        )

    def result(self, task: tuple[Any, Any]) -> list[Any]:
        started, asked = task
        if self.broken or (not self.swaps and started is None):
            raise EngineSwapError("lm_head.weight: the live model still computes with other weights.")
        assert started in (None, asked)
        return [asked]


def engines(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> EngineActor:
    import ray

    monkeypatch.setattr(evaluator, "result", calls.result)
    monkeypatch.setattr(ray, "wait", lambda tasks, num_returns: (tasks[:num_returns], tasks[num_returns:]))
    monkeypatch.setattr(ray, "kill", lambda _actor: None)
    return EngineActor(calls.start)


def items(*values: float) -> list[EvaluationItem]:
    return [EvaluationItem(f"{value:g}", Source(value), {}, Path(f"store/{value:g}")) for value in values]


def test_where_weights_cannot_be_swapped_every_model_gets_a_fresh_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls(swaps=False)
    worker = engines(calls, monkeypatch)
    base: Any = Source(0.0)
    assert evaluator.call_with_retry(worker, base, Named("a")) == [base]
    found = [tables for _, tables in evaluator.spread([worker], items(1, 2), None)]
    assert found == [[Source(1.0)], [Source(2.0)]]
    assert calls.starts == [None, base, Source(1.0), Source(2.0)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "A fresh engine is started for every model" in caplog.text and "lm_head.weight" in caplog.text


def test_an_engine_that_swaps_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(swaps=True)
    assert len(list(evaluator.spread([engines(calls, monkeypatch)], items(1, 2, 3), None))) == 3
    assert calls.starts == [None]


def test_a_model_that_even_a_fresh_engine_does_not_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"the weights of 1, although it was started with them: lm_head.weight"
    ):
        list(evaluator.spread([engines(Calls(False, broken=True), monkeypatch)], items(1), None))
    with pytest.raises(UserError, match="the weights of the base model, although"):
        evaluator.call_with_retry(engines(Calls(False, broken=True), monkeypatch), Source(0.0), Named("a"))
