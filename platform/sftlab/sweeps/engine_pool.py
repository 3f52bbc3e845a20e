"""The pool of inference engines of a sweep."""

from __future__ import annotations

import queue
import time

from sftlab.execution.runtime import Runtime
from sftlab.inference.actors import EngineActor, await_start
from sftlab.inference.engine import EngineFactory
from sftlab.inference.evaluator import EvaluationRequest
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.sweeps.usage import Meter, Usage


class EnginePool:
    """Engines that take the models of one trial after another. A threaded actor; see `evaluate`."""

    def __init__(self, engines: int, runtime: Runtime, name: str, engine: EngineFactory = VllmEngine) -> None:
        self.name, self.engine = name, engine
        self.runtime = runtime.engine
        if runtime.sweep.threads is not None:
            self.runtime = runtime.engine.model_copy(update={"threads": runtime.sweep.threads})
        self.free: queue.Queue[int] = queue.Queue()
        for number in range(engines):
            self.free.put(number)
        self.workers: dict[int, EngineActor] = {}
        self.meter = Meter(engines)

    def evaluate(self, request: EvaluationRequest) -> float:
        """Answer with all models of a request on one engine; returns the seconds it took.

        Waiting for an engine, and for its start, is left out. Raises as `inference.evaluator.evaluate` does; the engine
        then starts again for the next request.
        """
        from sftlab.inference.evaluator import evaluate

        self.meter.add(waiting=1)
        number = self.free.get()
        self.meter.add(waiting=-1, busy=1)
        try:
            worker = self._worker(number, request)
            started = time.monotonic()
            evaluate(request, [worker])
            self.meter.add(done=len(request.items))
        except BaseException:  # raised again: an engine that failed is in an unknown state
            self._drop(number)
            raise
        finally:
            self.meter.add(busy=-1)
            self.free.put(number)
        return time.monotonic() - started

    def stats(self) -> Usage:
        return self.meter.read()

    def _worker(self, number: int, request: EvaluationRequest) -> EngineActor:
        """The engine of this number, started if there is none."""
        from sftlab.inference.evaluator import start_worker

        if number not in self.workers:
            name, asked = f"{self.name}-engine-{number}", time.monotonic()
            self.workers[number] = start_worker(request, self.runtime, name, self.engine)
            self.meter.add(starts=1)
            await_start([self.workers[number].actor], self.runtime)
            self.meter.add(start_seconds=time.monotonic() - asked)
        return self.workers[number]

    def _drop(self, number: int) -> None:
        worker = self.workers.pop(number, None)
        if worker is not None:
            worker.end()
