"""The engine side of an evaluation.

Ray wraps the class in `evaluator`. Every method loads the weights that it needs, so that a retry in a new process gives
the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftlab.inference.actors import DyingAfterMemory
from sftlab.inference.engine import EngineFactory, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.inference.measurement import Measurement
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.store.mirror import pull

if TYPE_CHECKING:
    import pyarrow as pa


class EvaluationWorker:
    """One engine, started from the base model's folder.

    The methods raise EngineMemoryError where a batch exceeds the engine's memory; the worker must be restarted then.
    """

    def __init__(
        self,
        model_dir: str,
        engine_spec: EngineSpec,
        runtime: EngineRuntime,
        engine: EngineFactory = VllmEngine,
    ) -> None:
        self.life = DyingAfterMemory()
        self.engine = engine(pull(model_dir), engine_spec, runtime)

    def evaluate(
        self, source: WeightSource, measurements: Sequence[Measurement], limits: BatchLimits = WHOLE
    ) -> list[pa.Table]:
        """The tables of one of the models to evaluate, in the order of the measurements."""
        with self.life:
            self.engine.load_weights(source)
            return [measurement.measure(self.engine, limits) for measurement in measurements]

    def measure_base(
        self, source: WeightSource, measurement: Measurement, limits: BatchLimits = WHOLE
    ) -> pa.Table:
        """The table of the base model, which a comparison asks for."""
        with self.life:
            self.engine.load_weights(source)
            return measurement.measure(self.engine, limits)
