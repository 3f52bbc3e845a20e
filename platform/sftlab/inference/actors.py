"""What every Ray actor that holds an engine has in common."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.inference.engine import EngineSwapError, WeightSource
from sftlab.inference.limits import EngineMemoryError
from sftlab.inference.spec import EngineRuntime
from sftlab.inference.watchdog import START_FACTOR

LOST_TRIES = 5  # how often a call is repeated that was lost with a node, a connection or an object
LOST = "An engine's work was lost {tries} times in a row ({detail}). What is finished is kept; run again to go on."
DIED = (
    "An engine died and was started again, more often than engine.max_restarts allows ({detail}). What is finished is "
    "kept; run again to go on. If it comes back: the machine may lack memory (lower engine.engines, "
    "engine.max_num_seqs or engine.kv_cache_gib), a batch may take longer than engine.timeout_seconds, or nodes were "
    "lost; Ray's log of the worker says which."
)
# Where its memory monitor ended an actor, Ray fails to read the reason, with this in the trace.
KILLED_FOR_MEMORY = 'HasField("actor_died_error")'
BOOT_SECONDS = 30  # of a process, before an engine's start is timed
PASSED = (UserError, EngineSwapError, EngineMemoryError, OSError)  # what a driver makes something of


class EngineLostError(UserError):
    """A call to an engine was lost on the way, with a node or a connection; the engine itself is started again."""


def actor_options(runtime: EngineRuntime) -> dict[str, Any]:
    """Ray options of an actor that holds an engine: its resources, its environment, its restarts."""
    from sftlab.inference.vllm_engine import environment

    return {
        "num_cpus": runtime.cpus_per_engine,
        "num_gpus": runtime.gpus_per_engine,
        # On CPUs an engine takes all cores of its machine, whatever it reserves.
        "scheduling_strategy": "DEFAULT" if runtime.gpus_per_engine else "SPREAD",
        "max_restarts": runtime.max_restarts,
        "max_task_retries": runtime.max_restarts,
        "runtime_env": {"env_vars": environment(runtime)},
    }


class DyingWithEngine:
    """Context that ends the process where the engine inside failed.

    After an error of the machine (memory, disk, CUDA, torch) an in-process engine is in an unknown state. Ray
    restarts an actor whose process died and repeats its task; an exception would send the retry to the
    same broken engine. Every other exception passes: it is a finding or a fault, and would come again.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        broken = isinstance(error, RuntimeError | MemoryError | OSError)
        if error is not None and broken and not isinstance(error, EngineSwapError):
            traceback.print_exception(error)
            os._exit(1)


class DyingAfterMemory(DyingWithEngine):
    """As `DyingWithEngine`; after an EngineMemoryError, which passes, the next call ends the process.

    Whoever drives it ends it too, but Ray may hand it a call before that.
    """

    def __init__(self) -> None:
        self.broken = False

    def __enter__(self) -> None:
        if self.broken:
            os._exit(1)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.broken = isinstance(error, EngineMemoryError)
        super().__exit__(kind, error, trace)


class WrappedError(Exception):
    """Holds an error on its way through Ray Data, which writes advice into the text of errors."""


@contextmanager
def wrap_error() -> Iterator[None]:
    """In an actor of Ray Data: lets errors that mean something to the driver arrive there unchanged."""
    try:
        yield
    except PASSED as error:
        raise WrappedError(error) from error


@contextmanager
def as_raised() -> Iterator[None]:
    """Lets an actor's errors pass as they were raised there, and explains where actors were lost.

    Raises EngineLostError where the call may be repeated, and UserError where an engine died more often than
    `engine.max_restarts` allows.
    """
    import ray.exceptions as lost

    try:
        yield
    except lost.RayTaskError as error:
        cause = error.cause.args[0] if isinstance(error.cause, WrappedError) else error.cause
        if isinstance(cause, PASSED):
            raise cause from None
        raise
    except (lost.ActorUnavailableError, lost.ObjectLostError, lost.NodeDiedError) as error:
        raise EngineLostError(LOST.format(tries=LOST_TRIES, detail=first_line(error))) from error
    except lost.RaySystemError as error:
        if KILLED_FOR_MEMORY not in str(error):
            raise
        raise EngineLostError(
            LOST.format(tries=LOST_TRIES, detail="Ray ended it for want of memory")
        ) from error
    except (lost.RayActorError, lost.OutOfMemoryError) as error:
        raise UserError(DIED.format(detail=first_line(error))) from error


def result(reference: Any) -> Any:
    """`ray.get`, with the actor's error `as_raised`."""
    import ray

    with as_raised():
        return ray.get(reference)


class EngineActor:
    """An engine in an actor, and how to put a fresh one in its place.

    swaps: whether the engine takes the weights of one model after another; one that does not is started with each.
    """

    def __init__(self, start: Callable[[int, WeightSource | None], Any]) -> None:
        """start: makes the actor; it is given how many were before it, and the model to start with where that is not
        the base model.
        """
        self._start, self._before = start, 0
        self._source: WeightSource | None = None
        self.swaps = True
        self.actor = start(0, None)

    def renew(self) -> None:
        """After an engine ran out of memory, which is no death that `engine.max_restarts` counts."""
        self.end()
        self._before += 1
        self.actor = self._start(self._before, self._source)

    def cannot_swap(self, source: WeightSource, reason: EngineSwapError) -> None:
        """From now on the engine starts again for each model, beginning with `source`; logs a warning."""
        logging.getLogger(__name__).warning(
            f"The engine cannot take over the weights of another model of this architecture ({reason}) A fresh engine "
            "is started for every model instead, which takes longer and gives the same answers."
        )
        self.swaps, self._source = False, source
        self.renew()

    def start_with(self, source: WeightSource) -> None:
        """Where the engine cannot swap: one that holds this model."""
        if not self.swaps and self._source != source:
            self._source = source
            self.renew()

    def end(self) -> None:
        import ray

        ray.kill(self.actor)


def restart_actor(worker: Any) -> None:
    """End the process of an actor, which Ray then starts again as long as its `max_restarts` last."""
    import ray

    ray.kill(worker, no_restart=False)


def start_seconds(runtime: EngineRuntime) -> float | None:
    """How long an engine may take from its actor's making until it answers; None for ever."""
    if runtime.timeout_seconds is None:
        return None
    return runtime.timeout_seconds * START_FACTOR + BOOT_SECONDS


def await_start(workers: Sequence[Any], runtime: EngineRuntime) -> None:
    """Return when actors take calls, or cannot start at all; the first call to one then raises the reason.

    One that takes longer than its engine's start may is restarted, `max_restarts` times at most: what stops a
    process before its watcher runs (`watchdog`) is seen only from outside.
    """
    import ray

    seconds = start_seconds(runtime)
    late = list(workers)
    for tries_left in reversed(range(runtime.max_restarts + 1)):
        started = {worker.__ray_ready__.remote(): worker for worker in late}
        waiting = ray.wait(list(started), num_returns=len(started), timeout=seconds)[1] if started else []
        late = [started[task] for task in waiting]
        for worker in late if tries_left else ():
            restart_actor(worker)


@contextmanager
def watched_pool(runtime: EngineRuntime) -> Iterator[Callable[[], dict[str, Any]]]:
    """Sees to the starts of actors that Ray Data keeps to itself, until the context ends.

    Yields what gives the Ray options of one more actor: a name to find it by. See `await_start` for what is seen to.
    """
    names: list[str] = []
    over = threading.Event()

    def name() -> dict[str, Any]:
        names.append(f"sftlab-pool-{uuid4().hex}")
        return {"name": names[-1]}

    thread = threading.Thread(target=_watch_pool, args=(names, over, runtime), name="pool-watch", daemon=True)
    thread.start()
    try:
        yield name
    finally:
        over.set()
        thread.join()  # a call after Ray has ended would start another Ray


@dataclass
class _Asked:
    """An actor that has not answered yet."""

    actor: Any
    answer: Any
    since: float
    restarts: int


def _watch_pool(names: Sequence[str], over: threading.Event, runtime: EngineRuntime) -> None:
    import ray

    seconds = start_seconds(runtime)
    asked: dict[str, _Asked] = {}
    started: set[str] = set()
    while seconds is not None and not over.wait(1.0):
        for name in [name for name in names if name not in started]:
            if name not in asked:
                with suppress(ValueError):  # is not there yet, or was never made
                    actor = ray.get_actor(name)
                    asked[name] = _Asked(
                        actor, actor.__ray_ready__.remote(), time.monotonic(), runtime.max_restarts
                    )
                continue
            one = asked[name]
            if ray.wait([one.answer], timeout=0)[0]:
                started.add(name)
            elif time.monotonic() - one.since > seconds and one.restarts:
                restart_actor(one.actor)
                one.answer, one.since = one.actor.__ray_ready__.remote(), time.monotonic()
                one.restarts -= 1


def first_line(error: BaseException) -> str:
    """The first line of an error that holds letters, without its final dot."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
