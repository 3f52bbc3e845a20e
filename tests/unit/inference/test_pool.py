"""Which engines the pool leases, what a worker returns, and what is reported of an engine that refuses a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from sftlab.errors import UserError
from sftlab.inference import pool as pools
from sftlab.inference.engine import EngineSwapError
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.inference.pool import EnginePool, PooledEngine, Task, measure_all
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.worker import EngineBase, EngineWorker
from tests.support.weights_models import write_checkpoint

UNWATCHED = EngineRuntime(timeout_seconds=None)


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
    worker = EngineWorker(EngineBase("model", EngineSpec()), UNWATCHED, engine)
    tuned: Any = "tuned"
    base: Any = "base"
    tables = worker.measure(tuned, [Named("b"), Named("a")], BatchLimits(2))
    assert [table.to_pydict() for table in tables] == [
        {"b": ["tuned"], "rows": [2]},
        {"a": ["tuned"], "rows": [2]},
    ]
    assert worker.measure(base, [Named("c")])[0].to_pydict() == {"c": ["base"], "rows": [None]}


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
        if self.held < 0:
            raise ValueError("Following weights were not initialized: lm_head.weight")
        self.files = sorted(file.name for file in Path(folder).iterdir())

    def load_weights(self, source: object) -> None:
        raise EngineSwapError(f"{source} cannot be swapped.")


def test_an_engine_that_cannot_swap_is_started_with_the_model_itself(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "base", {"model.norm.weight": torch.tensor([1.0])})
    base, engine = EngineBase(str(folder), EngineSpec()), Started
    factory: Any = engine
    worker = EngineWorker(base, UNWATCHED, factory, Source(2.0))
    (table,) = worker.measure(Source(2.0), [Named("b")])
    assert table.to_pydict() == {"b": [2.0], "rows": [None]}
    assert worker.engine.files == ["config.json", "model.safetensors", "tokenizer.json"]  # type: ignore[attr-defined]
    with pytest.raises(EngineSwapError):
        EngineWorker(base, UNWATCHED, factory).measure(Source(3.0), [Named("c")])
    with pytest.raises(EngineSwapError, match=r"^ValueError: .* not initialized: lm_head\.weight"):
        EngineWorker(base, UNWATCHED, factory, Source(-1.0)).measure(Source(-1.0), [Named("c")])


def test_a_model_that_lacks_a_tensor_of_its_base_is_refused_where_vllm_would_fill_it_with_random_numbers(
    tmp_path: Path,
) -> None:
    tensors = {"model.norm.weight": torch.ones(1), "model.layers.0.mlp.down_proj.weight": torch.ones(1)}
    base, factory = EngineBase(str(write_checkpoint(tmp_path / "base", tensors)), EngineSpec()), Started
    engine: Any = factory
    with pytest.raises(EngineSwapError, match=r"^model\.layers\.0\.mlp\.down_proj\.weight: the model has no"):
        EngineWorker(base, UNWATCHED, engine, Source(2.0)).measure(Source(2.0), [Named("b")])


class Calls:
    """Stands for Ray's actors: `actor.measure.remote` answers at once, `result` returns or raises the answer."""

    def __init__(self, swaps: bool, broken: bool = False) -> None:
        self.swaps, self.broken, self.starts = swaps, broken, list[Any]()

    def start(self, _base: EngineBase, source: Any) -> Any:
        self.starts.append(source)

        def call(asked: Any, *_: object) -> tuple[Any, Any]:
            return source, asked

        return SimpleNamespace(measure=SimpleNamespace(remote=call))

    def result(self, task: tuple[Any, Any]) -> list[Any]:
        started, asked = task
        if self.broken or (not self.swaps and started is None):
            raise EngineSwapError("lm_head.weight: the live model still computes with other weights.")
        assert started in (None, asked)
        return [asked]


def engine_of(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> PooledEngine:
    import ray

    monkeypatch.setattr(pools, "result", calls.result)
    monkeypatch.setattr(ray, "wait", lambda tasks, num_returns: (tasks[:num_returns], tasks[num_returns:]))
    monkeypatch.setattr(ray, "kill", lambda _actor: None)
    engine = PooledEngine(calls.start)
    engine.serve(EngineBase("model", EngineSpec()))
    return engine


def tasks(*values: float) -> dict[str, Task]:
    return {f"{value:g}": Task(f"model-{value:g}", Source(value), [Named("a")]) for value in values}


def test_where_weights_cannot_be_swapped_every_model_gets_a_fresh_engine_until_another_base_is_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls(swaps=False)
    engine = engine_of(calls, monkeypatch)
    found: list[tuple[str, Any]] = list(measure_all([engine], tasks(0, 1)))
    assert found == [("0", [Source(0.0)]), ("1", [Source(1.0)])]
    assert [key for key, _ in measure_all([engine], tasks(1))] == ["1"]  # it holds this one
    assert calls.starts == [None, Source(0.0), Source(1.0)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "A fresh engine is started for every model" in caplog.text and "lm_head.weight" in caplog.text
    engine.serve(EngineBase("other", EngineSpec()))
    assert engine.swaps and calls.starts[-1] is None


def test_an_engine_that_swaps_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(swaps=True)
    assert len(list(measure_all([engine_of(calls, monkeypatch)], tasks(1, 2, 3)))) == 3
    assert calls.starts == [None]


def test_a_model_that_even_a_fresh_engine_does_not_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    why = r"the weights of model-1, although it was started with them: lm_head\.weight.* finished models are kept"
    with pytest.raises(UserError, match=why):
        list(measure_all([engine_of(Calls(False, broken=True), monkeypatch)], tasks(1)))


class Actors:
    """Actors by the order in which they are made: the base of each, and which were ended."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import ray

        self.made: list[str] = []
        self.ended: list[int] = []
        self.folder = folder
        monkeypatch.setattr(EnginePool, "make_engine", lambda _, base, _source: self.make(base))
        monkeypatch.setattr(pools, "result", lambda _: None)
        monkeypatch.setattr(ray, "kill", lambda actor: self.ended.append(actor.number))

    def make(self, base: EngineBase) -> Any:
        self.made.append(Path(base.model_dir).name)
        number = len(self.made) - 1
        return SimpleNamespace(number=number, start=SimpleNamespace(remote=lambda: None))

    def base(self, name: str) -> EngineBase:
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "config.json").write_text(
            '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
        )
        return EngineBase(str(self.folder / name), EngineSpec())


@pytest.fixture
def actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Actors:
    return Actors(tmp_path, monkeypatch)


@contextmanager
def leased(pool: EnginePool, base: EngineBase, count: int = 1) -> Iterator[list[int]]:
    """The numbers of the actors of a lease, once they are started."""
    with pool.lease(base, count) as engines:
        pool.start(engines, base)
        yield [engine.actor.number for engine in engines]


def test_an_engine_of_the_base_comes_before_an_empty_place_and_that_before_the_longest_idle_engine(
    actors: Actors,
) -> None:
    one, two, three = map(actors.base, ("one", "two", "three"))
    with EnginePool(3, UNWATCHED) as pool:
        with leased(pool, one) as first, leased(pool, two) as second:
            assert (first, second) == ([0], [1])
        with leased(pool, one) as again, leased(pool, one) as another:  # two engines of one base
            assert (again, another) == ([0], [2])
        assert actors.ended == []
        with leased(pool, three) as replaced:  # engine 1, of base two, is idle for longest
            assert (replaced, actors.ended) == ([3], [1])
        with leased(pool, one, count=2) as both:
            assert sorted(both) == [0, 2]
        assert actors.made == ["one", "two", "one", "three"]
    assert sorted(actors.ended) == [0, 1, 2, 3]


def test_engines_of_equal_folders_and_other_dtypes_are_of_other_bases(actors: Actors) -> None:
    base = actors.base("one")
    other = EngineBase(base.model_dir, EngineSpec(dtype="bfloat16"))
    with EnginePool(1, UNWATCHED) as pool:
        for each in (base, base, other, base):
            with leased(pool, each):
                pass
    assert len(actors.made) == 3


def test_a_failure_ends_the_engines_of_its_lease_and_the_next_lease_starts_one(actors: Actors) -> None:
    base = actors.base("one")
    with EnginePool(2, UNWATCHED) as pool:
        with pytest.raises(UserError, match="broken"), leased(pool, base):
            raise UserError("broken")
        assert actors.ended == [0]
        with leased(pool, base, count=2) as engines:
            assert engines == [1, 2]


def test_a_lease_waits_for_an_engine_of_another(actors: Actors) -> None:
    base, found = actors.base("one"), list[list[int]]()

    def wait() -> None:
        with leased(pool, base) as engines:
            found.append(engines)

    with EnginePool(1, UNWATCHED) as pool:
        with leased(pool, base):
            waiting = threading.Thread(target=wait, daemon=True)
            waiting.start()
            assert found == []
        waiting.join(30)
        assert found == [[0]]


def test_a_folder_that_cannot_be_served_starts_no_engine(actors: Actors, tmp_path: Path) -> None:
    base = EngineBase(str(tmp_path / "none"), EngineSpec())
    with EnginePool(1, UNWATCHED) as pool:
        with pytest.raises(UserError, match=r"none: has no config\.json"), leased(pool, base):
            pass
        with pool.lease(base, 0) as engines:
            assert pool.start(engines, base) == 0
    assert actors.made == []
