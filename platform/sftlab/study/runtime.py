"""Where and how a study runs. Never hashed: no field here changes a result."""

from __future__ import annotations

from pydantic import Field

from sftlab.frozen import Frozen
from sftlab.inference.spec import EngineRuntime
from sftlab.pocket.spec import PocketRuntime
from sftlab.tracking.settings import TrackingSettings
from sftlab.training.spec import TrainingRuntime


class Runtime(Frozen):
    """Resources of one cluster or laptop."""

    store: str = Field("runs/store", description="folder of the results; a shared mount on a cluster")
    logical_cpus: int | None = Field(
        None, ge=1, description="CPUs that a local Ray is told of; twice the real ones, at least 4, if unset"
    )
    engine: EngineRuntime = EngineRuntime()
    training: TrainingRuntime = TrainingRuntime()
    pocket: PocketRuntime = PocketRuntime()
    track: bool = Field(True, description="log the study to MLflow after it has run")
    tracking: TrackingSettings = TrackingSettings()
