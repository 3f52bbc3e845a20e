"""The engine side of an evaluation.

Ray wraps the class in `evaluator`. Every method loads the weights that it needs, so that a retry in a new process gives
the same result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.inference.actors import DyingAfterMemory
from sftlab.inference.engine import EngineFactory, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits
from sftlab.inference.measurement import Measurement
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.store.mirror import pull
from sftlab.weights.restore import write_source

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
        source: WeightSource | None = None,
    ) -> None:
        """source: the model to start with; None for that of `model_dir`, from which other weights are swapped in."""
        self.life = DyingAfterMemory()
        self.started_with = source
        base = pull(Path(model_dir))
        if source is None:
            self.engine = engine(str(base), engine_spec, runtime)
            return
        # The engine reads the folder once, while it starts.
        with tempfile.TemporaryDirectory(prefix="sftlab-model-") as place:
            written = write_source(base, source, Path(place) / base.name)
            self.engine = engine(str(written), engine_spec, runtime)

    def load(self, source: WeightSource) -> None:
        """Makes the engine compute with a model's weights."""
        if self.started_with is None:
            self.engine.load_weights(source)
        assert self.started_with in (None, source), "this engine was started with another model"

    def evaluate(
        self, source: WeightSource, measurements: Sequence[Measurement], limits: BatchLimits = WHOLE
    ) -> list[pa.Table]:
        """The tables of one of the models to evaluate, in the order of the measurements."""
        with self.life:
            self.load(source)
            return [measurement.measure(self.engine, limits) for measurement in measurements]

    def measure_base(
        self, source: WeightSource, measurement: Measurement, limits: BatchLimits = WHOLE
    ) -> pa.Table:
        """The table of the base model, which a comparison asks for."""
        with self.life:
            self.load(source)
            return measurement.measure(self.engine, limits)
