"""The process of an engine: the class that Ray and Ray Data make actors of."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sftlab.errors import UserError
from sftlab.inference.engine import Engine, EngineFactory, EngineSwapError, WeightSource
from sftlab.inference.limits import WHOLE, BatchLimits, EngineMemoryError
from sftlab.inference.measurement import Measurement
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.start_errors import reason_of
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.inference.watchdog import process_watchdog
from sftlab.store.mirror import pull
from sftlab.weights.pairs import parameters
from sftlab.weights.restoration import write_source
from sftlab.weights.shards import Checkpoint

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


@dataclass(frozen=True)
class EngineBase:
    """What an engine starts from: the folder of a base model, and the dtype. Engines of equal bases are alike."""

    model_dir: str
    spec: EngineSpec


class EngineWorker:
    """One engine of a base model. Every call loads the weights that it needs, so that a retry in a new process gives
    the same result.
    """

    def __init__(
        self,
        base: EngineBase,
        runtime: EngineRuntime,
        engine: EngineFactory = VllmEngine,
        source: WeightSource | None = None,
    ) -> None:
        """source: the model to start with; None for the base model, from which other weights are swapped in."""
        process_watchdog(runtime.timeout_seconds)
        self.base, self.runtime, self.factory, self.source = base, runtime, engine, source
        self.out_of_memory: EngineMemoryError | None = None

    @cached_property
    def engine(self) -> Engine:
        """Started by the first call: Ray keeps the type of a call's error, and not that of an actor's start."""
        folder = pull(Path(self.base.model_dir))
        if self.source is None:
            return self._start(folder)
        # The engine reads the folder once, while it starts.
        with tempfile.TemporaryDirectory(prefix="sftlab-model-") as place:
            written = write_source(folder, self.source, Path(place) / folder.name)
            _check_whole(folder, written)
            return self._start(written)

    def _start(self, folder: Path) -> Engine:
        """Raises UserError where the engine refuses the base model, and EngineSwapError where another one."""
        try:
            return self.factory(str(folder), self.base.spec, self.runtime)
        except Exception as error:
            reason = reason_of(error)
            if reason is None:
                raise
            traceback.print_exception(error)  # into Ray's log of this process
            if self.source is not None:
                raise EngineSwapError(reason) from error
            raise UserError(
                f"the engine does not start with this model ({reason})",
                place=self.base.model_dir,
                advice="change what the reason names: a setting of the runtime's engine, or the model. Ray's log of "
                "the worker has the traceback.",
            ) from error

    def start(self) -> None:
        """Return when the engine has started. Raises UserError where the folder or the runtime cannot be served."""
        assert self.engine is not None

    def measure(
        self, source: WeightSource, measurements: Sequence[Measurement], limits: BatchLimits = WHOLE
    ) -> list[pa.Table]:
        """The tables of one model, in the order of the measurements.

        Raises EngineMemoryError where a batch exceeds the engine's memory; the worker must be replaced then.
        """

        def measure(engine: Engine) -> list[pa.Table]:
            if self.source is None:
                engine.load_weights(source)
            assert self.source in (None, source), "this engine was started with another model"
            return [measurement.measure(engine, limits) for measurement in measurements]

        return self.use(measure)

    def use(self, work: Callable[[Engine], T]) -> T:
        """`work` on the engine; ends this process where the engine fails.

        After an error of the machine (memory, disk, CUDA, torch) an in-process engine is in an unknown state. Ray
        restarts an actor whose process died and repeats its task; an exception would send the retry to the same
        broken engine. Every other exception passes: it is a finding or a fault, and would come again. An
        EngineMemoryError passes too, and is the answer to every later call: the driver replaces this worker, but Ray
        may have queued a call for it before that.
        """
        engine = self.engine
        if self.out_of_memory is not None:
            raise self.out_of_memory
        try:
            return work(engine)
        except EngineMemoryError as error:
            self.out_of_memory = error
            raise
        except EngineSwapError:
            raise
        except (RuntimeError, MemoryError, OSError) as error:
            traceback.print_exception(error)
            os._exit(1)


def _check_whole(base: Path, written: Path) -> None:
    """Raises EngineSwapError where a model lacks a tensor of its base model: vLLM would start with random numbers."""
    with Checkpoint.open(base) as whole, Checkpoint.open(written) as model:
        lacking = sorted(set(parameters(whole)) - set(model.names))
    if lacking:
        raise EngineSwapError(f"{lacking[0]}: the model has no tensor for it.")
