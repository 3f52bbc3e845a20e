"""What every Ray actor that holds an engine has in common."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sftlab.errors import UserError
from sftlab.inference.engine import EngineSwapError
from sftlab.inference.limits import EngineMemoryError
from sftlab.inference.spec import EngineRuntime
from sftlab.inference.watchdog import START_FACTOR

LOST_TRIES = 5  # how often a call is repeated that was lost with a node, a connection or an object
KEPT = "what is finished is kept; run again to go on."
IF_AGAIN = (
    "If it comes back: the machine may lack memory (lower engine.engines, engine.max_num_seqs or "
    "engine.kv_cache_gib), a batch may take longer than engine.timeout_seconds, or nodes were lost; Ray's log of the "
    "worker says which."
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
        raise _lost(first_line(error)) from error
    except lost.RaySystemError as error:
        if KILLED_FOR_MEMORY not in str(error):
            raise
        raise _lost("Ray ended it for want of memory") from error
    except (lost.RayActorError, lost.OutOfMemoryError) as error:
        raise UserError(
            "an engine died and was started again, more often than engine.max_restarts allows "
            f"({first_line(error)})",
            advice=f"{KEPT} {IF_AGAIN}",
        ) from error


def _lost(detail: str) -> EngineLostError:
    return EngineLostError(f"an engine's work was lost {LOST_TRIES} times in a row ({detail})", advice=KEPT)


def result(reference: Any) -> Any:
    """`ray.get`, with the actor's error `as_raised`."""
    import ray

    with as_raised():
        return ray.get(reference)


class StartWatch:
    """Sees to the starts of actors that hold engines, until it is closed.

    An actor whose process takes longer to start than an engine may is restarted, `max_restarts` times at most: what
    stops a process before its watcher runs (`watchdog`) is seen only from outside.
    """

    def __init__(self, runtime: EngineRuntime) -> None:
        longest = runtime.timeout_seconds
        self._seconds = None if longest is None else longest * START_FACTOR + BOOT_SECONDS
        self._restarts = runtime.max_restarts
        self._names: list[str] = []
        self._starting: list[_Starting] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="start-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()  # a call after Ray has ended would start another Ray

    def add(self, actor: Any) -> None:
        """Watch an actor that has not been called yet: it answers calls in order."""
        self._starting.append(
            _Starting(actor, actor.__ray_ready__.remote(), time.monotonic(), self._restarts)
        )

    def options(self) -> dict[str, Any]:
        """Ray options of one more actor to watch: a name to find it by, for Ray Data keeps its actors to itself."""
        self._names.append(f"sftlab-engine-{uuid4().hex}")
        return {"name": self._names[-1]}

    def _run(self) -> None:
        while self._seconds is not None and not self._over.wait(1.0):
            if self._names or self._starting:
                self._look(self._seconds)

    def _look(self, seconds: float) -> None:
        import ray

        for name in list(self._names):
            with suppress(ValueError):  # is not there yet, or was never made
                self.add(ray.get_actor(name))
                self._names.remove(name)
        for one in list(self._starting):
            if ray.wait([one.answer], timeout=0)[0]:
                self._starting.remove(one)
            elif time.monotonic() - one.since > seconds and one.restarts:
                ray.kill(one.actor, no_restart=False)
                one.since, one.restarts = time.monotonic(), one.restarts - 1


@dataclass(eq=False)
class _Starting:
    """An actor that has not answered yet; Ray repeats the question after a restart."""

    actor: Any
    answer: Any
    since: float
    restarts: int


def first_line(error: BaseException) -> str:
    """The first line of an error that holds letters, without its final dot."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")
