"""The pool of engines: actors that take models of several base models one after another.

An engine starts once, from a base model's folder, and then loads the weights of one model after another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.inference.actors import LOST_TRIES, EngineLostError, StartWatch, actor_options, result
from sftlab.inference.engine import EngineFactory, EngineSwapError, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits, EngineMemoryError
from sftlab.inference.measurement import Measurement
from sftlab.inference.spec import EngineRuntime
from sftlab.inference.vllm_engine import VllmEngine, check_served
from sftlab.inference.worker import EngineBase, EngineWorker

if TYPE_CHECKING:
    import pyarrow as pa


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """Measurements of one model; `name` is that of the model in error messages."""

    name: str
    source: WeightSource
    measurements: Sequence[Measurement]


class PooledEngine:
    """A place of the pool: no engine, or one of a base model.

    swaps: whether the engine takes the weights of one model after another; one that does not is started with each.
    """

    def __init__(self, make: Callable[[EngineBase, WeightSource | None], Any]) -> None:
        """make: starts the actor of an engine, which has the methods of `EngineWorker`, with a model if it is not the
        base model.
        """
        self._make = make
        self._source: WeightSource | None = None
        self.swaps = True
        self.base: EngineBase | None = None
        self.actor: Any = None

    def serve(self, base: EngineBase) -> None:
        """Put an engine of this base in place; one of another base ends."""
        self.base, self._source, self.swaps = base, None, True
        self.renew()

    def renew(self) -> None:
        """After an engine ran out of memory, which is no death that `engine.max_restarts` counts."""
        assert self.base is not None
        self._kill()
        self.actor = self._make(self.base, self._source)

    def cannot_swap(self, source: WeightSource, reason: EngineSwapError) -> None:
        """From now on the engine starts again for each model, beginning with `source`; logs a warning."""
        log.warning(
            f"The engine cannot take over the weights of another model of this architecture ({reason}) A fresh engine "
            "is started for every model instead, which takes longer and gives the same answers."
        )
        self.swaps = False
        self.start_with(source)

    def start_with(self, source: WeightSource) -> None:
        """Where the engine cannot swap: one that holds this model."""
        if not self.swaps and self._source != source:
            self._source = source
            self.renew()

    def end(self) -> None:
        self._kill()
        self.actor = self.base = None

    def _kill(self) -> None:
        import ray

        if self.actor is not None:
            ray.kill(self.actor)


class EnginePool:
    """Places for `size` engines; those of a lease belong to one caller. Callable from any thread.

    The end of its context ends the engines. Without a context they end with the process.
    """

    def __init__(self, size: int, runtime: EngineRuntime, engine: EngineFactory = VllmEngine) -> None:
        self.runtime, self.factory = runtime, engine
        self._places = [PooledEngine(self.make_engine) for _ in range(size)]
        self._idle = list(self._places)  # the longest idle first
        self._returned = threading.Condition()
        self._watch = StartWatch(runtime)

    def __enter__(self) -> EnginePool:
        return self

    def __exit__(self, *_: object) -> None:
        for place in self._places:
            place.end()
        self._watch.close()

    @contextmanager
    def lease(self, base: EngineBase, count: int = 1) -> Iterator[list[PooledEngine]]:
        """Wait for as many places, and hold them: those with an engine of this base first, then those without any,
        then those longest idle. `start` puts engines in place. An exception in the context ends them, for an
        engine that failed is in an unknown state.
        """
        assert count <= len(self._places)
        with self._returned:
            self._returned.wait_for(lambda: len(self._idle) >= count)
            ranked = sorted(self._idle, key=lambda place: (place.base != base, place.base is not None))
            held = ranked[:count]
            self._idle = [place for place in self._idle if place not in held]
        try:
            yield held
        except BaseException:
            for place in held:
                place.end()
            raise
        finally:
            with self._returned:
                self._idle += held
                self._returned.notify_all()

    def start(self, places: Sequence[PooledEngine], base: EngineBase) -> int:
        """Put engines of a base in those places that have none; returns how many were started.

        Returns when they answer. Raises UserError where the folder or the runtime cannot be served.
        """
        lacking = [place for place in places if place.base != base]
        if lacking:
            check_served(base.model_dir, self.runtime)
            for place in lacking:
                place.serve(base)
            for started in [place.actor.start.remote() for place in lacking]:
                with suppress(EngineLostError):  # Ray starts it again, and the first call waits for it
                    result(started)
        return len(lacking)

    def make_engine(self, base: EngineBase, source: WeightSource | None) -> Any:
        import ray

        remote = ray.remote(EngineWorker).options(**actor_options(self.runtime))
        actor = remote.remote(base, self.runtime, self.factory, source)
        self._watch.add(actor)
        return actor


def measure_all(
    engines: Sequence[PooledEngine], tasks: Mapping[str, Task]
) -> Iterator[tuple[str, list[pa.Table]]]:
    """The key and the tables of every task, in the order in which they finish. Each engine takes the next when free.

    Repeats a task with smaller batches where the engine runs out of memory, with an engine that starts with the model
    where weights cannot be swapped, and where the engine is lost. Raises UserError where no smaller batch is left to
    try, where engines are lost repeatedly, and naming the model that even such an engine does not hold.
    """
    import ray

    queue = iter(tasks)
    running: dict[Any, tuple[PooledEngine, str, BatchLimits]] = {}
    tries = LOST_TRIES

    def give(engine: PooledEngine, key: str, limits: BatchLimits) -> None:
        task = tasks[key]
        engine.start_with(task.source)
        running[engine.actor.measure.remote(task.source, task.measurements, limits)] = (engine, key, limits)

    for engine, key in zip(engines, queue, strict=False):
        give(engine, key, WHOLE)
    while running:
        (ready,), _ = ray.wait(list(running), num_returns=1)
        engine, key, limits = running.pop(ready)
        try:
            tables = result(ready)
        except EngineMemoryError as error:
            limits = limits.after(error)
            engine.renew()
            give(engine, key, limits)
            continue
        except EngineSwapError as error:
            if not engine.swaps:
                raise UserError(
                    f"an engine did not take in the weights of {tasks[key].name}, although it was started with "
                    f"them: {error}",
                    value=tasks[key].name,
                    advice="finished models are kept; that is a bug to report.",
                ) from error
            engine.cannot_swap(tasks[key].source, error)
            give(engine, key, limits)
            continue
        except EngineLostError:
            tries -= 1
            if not tries:
                raise
            give(engine, key, limits)
            continue
        tries = LOST_TRIES
        following = next(queue, None)
        if following is not None:
            give(engine, following, BatchLimits(limits.rows))  # the others may fit there
        yield key, tables
