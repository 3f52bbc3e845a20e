"""What every Ray actor that holds an engine has in common."""

from __future__ import annotations

import os
import traceback
from typing import Any

from sftlab.errors import UserError
from sftlab.inference.engine import EngineSwapError
from sftlab.inference.spec import EngineRuntime


def actor_options(runtime: EngineRuntime) -> dict[str, Any]:
    """Ray options of an actor that holds an engine: its resources, its environment, its restarts."""
    from sftlab.inference.vllm_engine import environment

    return {
        "num_cpus": runtime.cpus_per_engine,
        "num_gpus": runtime.gpus_per_engine,
        "max_restarts": runtime.max_restarts,
        "max_task_retries": runtime.max_restarts,
        "runtime_env": {"env_vars": environment(runtime)},
    }


class DyingWithEngine:
    """Context that ends the process where the engine inside failed.

    After an error of the machine (memory, disk, CUDA, torch) an in-process engine is in an unknown state. Ray
    starts an actor whose process died anew and repeats its task; an exception would send the retry to the
    same broken engine. Every other exception passes: it is a finding or a fault, and would come again.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        broken = isinstance(error, RuntimeError | MemoryError | OSError)
        if error is not None and broken and not isinstance(error, EngineSwapError):
            traceback.print_exception(error)
            os._exit(1)


def result(reference: Any) -> Any:
    """`ray.get`, with the actor's UserError or EngineSwapError as it was raised there."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError | EngineSwapError):
            raise error.cause from None
        raise
