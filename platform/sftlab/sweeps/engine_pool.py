"""The pool of inference engines of a sweep."""

from __future__ import annotations

import time

from sftlab.execution.runtime import Runtime
from sftlab.inference.engine import EngineFactory
from sftlab.inference.evaluator import EvaluationRequest, evaluate
from sftlab.inference.pool import EnginePool
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.sweeps.usage import Meter, Usage


class SweepEnginePool:
    """Engines that take the models of one trial after another. A threaded actor; see `evaluate`."""

    def __init__(self, engines: int, runtime: Runtime, engine: EngineFactory = VllmEngine) -> None:
        limited = runtime.engine
        if runtime.sweep.threads is not None:
            limited = limited.model_copy(update={"threads": runtime.sweep.threads})
        self.pool = EnginePool(engines, limited, engine)
        self.meter = Meter(engines)

    def evaluate(self, request: EvaluationRequest) -> float:
        """Answer with all models of a request on one engine; returns the seconds it took.

        Waiting for an engine, and for its start, is left out. Raises as `inference.evaluator.evaluate` does; the engine
        then starts again for the next request.
        """
        self.meter.add(waiting=1)
        with self.pool.lease(request.base) as engines:
            self.meter.add(waiting=-1, busy=1)
            try:
                asked = time.monotonic()
                starts = self.pool.start(engines, request.base)
                started = time.monotonic()
                self.meter.add(starts=starts, start_seconds=started - asked if starts else 0.0)
                evaluate(request, engines)
                self.meter.add(done=len(request.items))
                return time.monotonic() - started
            finally:
                self.meter.add(busy=-1)

    def stats(self) -> Usage:
        return self.meter.read()
