"""What a worker answers where its engine does not start, and after it has run out of memory."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch

from sftlab.errors import UserError
from sftlab.inference.actors import PASSED
from sftlab.inference.engine import EngineSwapError
from sftlab.inference.limits import EngineMemoryError
from sftlab.inference.spec import EngineSpec
from sftlab.inference.start_errors import SHOWN
from sftlab.inference.worker import EngineBase, EngineWorker
from sftlab.weights.restoration import ModelSource
from tests.support.inference_toys import RUNTIME
from tests.support.weights_models import save_model


def test_every_call_after_out_of_memory_raises_the_same_error_and_leaves_the_engine_alone(
    tmp_path: Path,
) -> None:
    calls: list[str] = []
    factory: Any = lambda *_: "engine"  # noqa: E731
    runtime = RUNTIME.model_copy(update={"timeout_seconds": None})
    worker = EngineWorker(EngineBase(str(tmp_path), EngineSpec()), runtime, factory)

    def exceed(engine: Any) -> None:
        calls.append(engine)
        raise EngineMemoryError(["a", "b"], "CUDA out of memory")

    def succeed(engine: Any) -> None:
        calls.append(engine)

    with pytest.raises(EngineMemoryError) as first:
        worker.use(exceed)
    with pytest.raises(EngineMemoryError) as second:
        worker.use(succeed)
    assert second.value is first.value and second.value.keys == ("a", "b")
    assert calls == ["engine"]


def invalid() -> Exception:
    """What vLLM's configuration raises."""
    try:
        pydantic.TypeAdapter(int).validate_python("heads")
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


OF_A_MODEL = [
    ValueError("Model architectures ['X'] are not supported\n  for now."),
    KeyError("model.layers.0.mlp.weight"),
    IndexError("list index out of range"),
    AttributeError("'Config' object has no attribute 'rope_theta'"),
    TypeError("unsupported operand"),
    AssertionError("hidden size"),
    NotImplementedError("Unsupported head size 24"),
    ImportError("einops is not installed"),
    RuntimeError("shape mismatch: expected 64, got 48"),
    OSError("Can't load the configuration of 'x'"),
    ValueError("x" * 10_000),
    invalid(),
]
OF_THE_MACHINE = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError(),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("NCCL error in: x.cpp"),
    RuntimeError("WorkerProc initialization failed"),
    torch.AcceleratorError("unspecified launch failure"),
    OSError(28, "No space left on device"),
    ConnectionResetError(104, "Connection reset by peer"),
    EngineMemoryError(["a"], "CUDA out of memory"),
    UserError("no config.json", place="m"),
]


def worker_that_raises(error: BaseException, folder: Path) -> EngineWorker:
    def factory(*_: Any) -> Any:
        raise error

    runtime = RUNTIME.model_copy(update={"timeout_seconds": None})
    return EngineWorker(EngineBase(str(folder), EngineSpec()), runtime, factory)


@pytest.mark.parametrize("error", OF_A_MODEL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["start", "use"])
def test_an_error_of_the_engine_about_the_base_model_is_one_line_with_the_folder_and_the_reason(
    error: Exception, call: str, tmp_path: Path
) -> None:
    worker = worker_that_raises(error, tmp_path / "model")
    with pytest.raises(UserError) as caught:
        worker.start() if call == "start" else worker.use(lambda _: None)
    found = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(found, PASSED) and str(found).startswith(f"{tmp_path}/model: the engine does not start")
    assert "\n" not in str(found) and len(str(found)) < len(str(tmp_path)) + SHOWN + 300
    assert f"({type(error).__name__}: " in found.problem
    assert " ".join(str(error).split())[:40] in found.problem
    assert "run again" not in str(found) and "memory" not in str(found)


@pytest.mark.parametrize("error", OF_THE_MACHINE, ids=lambda error: type(error).__name__)
def test_an_error_of_the_machine_passes_as_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        worker_that_raises(error, tmp_path).start()
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_the_end_of_a_process_is_no_error_of_a_model(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        worker_that_raises(error, tmp_path).start()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    save_model(folder, "llama", 0)
    return folder


@pytest.mark.parametrize("error", [*OF_A_MODEL, *OF_THE_MACHINE], ids=lambda error: type(error).__name__)
def test_the_same_errors_are_of_another_model_where_the_engine_starts_with_one(
    error: Exception, base: Path
) -> None:
    worker = worker_that_raises(error, base)
    worker.source = ModelSource(str(base), None)
    with pytest.raises(EngineSwapError if error in OF_A_MODEL else type(error)) as caught:
        worker.start()
    if error in OF_A_MODEL:
        assert str(caught.value).startswith(f"{type(error).__name__}: ") and "\n" not in str(caught.value)
    else:
        assert caught.value is error
