"""What a worker answers after its engine has run out of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftlab.inference.limits import EngineMemoryError
from sftlab.inference.spec import EngineSpec
from sftlab.inference.worker import EngineBase, EngineWorker
from tests.support.inference_toys import RUNTIME


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
