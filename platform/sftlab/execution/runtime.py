"""Where and how a study runs. Never hashed: no field here changes a result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sftlab.cluster.session import Bundle, bundles_of, gpus_in
from sftlab.config.frozen import Frozen
from sftlab.config.words import ALL, AUTO
from sftlab.inference.spec import EngineRuntime
from sftlab.pocket.spec import PocketRuntime
from sftlab.tracking.settings import TrackingSettings
from sftlab.training.spec import TrainingRuntime

Keep = Literal["full", "delta", "recipe"]


class SweepRuntime(Frozen):
    """What the trials of a sweep share."""

    engines: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None,
        description="engines kept warm; auto: all GPUs but those of training, on CPUs one a node or engine.engines",
    )
    threads: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None, description="CPU threads of each of these engines; auto: those of engine.threads"
    )
    training_groups: int = Field(1, ge=1, description="worker groups that train at once")
    trials: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None,
        description="trials under way at once, each a waiting process of 230 MB; auto: 5 for 4 engines, at least 8",
    )
    max_failures: int = Field(
        2, ge=0, description="how often a trial is tried again that was lost with its process or node"
    )


class EvaluationRuntime(Frozen):
    """The engines that measure many models of one base, as those of a survey; other stages start those of `engine`."""

    engines: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None, description="engines of each base model; auto: engine.engines"
    )
    threads: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None, description="CPU threads of each of these engines; auto: engine.threads"
    )


class FineTuningRuntime(Frozen):
    """The worker groups that train many runs side by side, as those of a survey; other stages train in one group of
    `training`.
    """

    groups: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None,
        description="worker groups that train at once; auto: as many as the GPUs hold, or without GPUs the cores and "
        "the memory",
    )
    workers: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None, description="ranks of each of these groups; auto: training.workers"
    )


class Rates(Frozen):
    """What a plan estimates GPU hours from; no measurement of this machine. Replace them after a trial run."""

    peak_tflops: float = Field(
        989,
        gt=0,
        description="dense bfloat16 peak of a GPU; 989 is that of NVIDIA's data sheet of the H100 SXM",
    )
    training_share: float = Field(
        0.35,
        gt=0,
        le=1,
        description="share of the peak in fine-tuning; assumed, as large models reach 0.3 to 0.5",
    )
    prefill_share: float = Field(0.4, gt=0, le=1, description="share of the peak in reading prompts; assumed")
    decode_share: float = Field(
        0.15, gt=0, le=1, description="share of the peak in writing answers in large batches; assumed"
    )
    gigabytes_per_second: float = Field(
        1.0, gt=0, description="weights that are read from or written to the store in a second; assumed"
    )
    engine_start_seconds: float = Field(60.0, ge=0, description="from nothing to a warm engine; assumed")


class Runtime(Frozen):
    """Resources of one cluster or laptop."""

    store: str = Field(
        "runs/store",
        description="where results lie: a folder (a shared mount on a cluster), or s3://BUCKET/PREFIX or "
        "gs://BUCKET/PREFIX; credentials and endpoint come from the environment of every node",
    )
    mirror: Annotated[str | None, AUTO] = Field(
        None,
        description="folder on each node for the files of a store that is an address; auto: ~/.cache/sftlab/mirror",
    )
    hash_up_to_gib: Annotated[float | None, Field(ge=0), ALL] = Field(
        1,
        description="files above this are compared by size alone when they are read, and their shards of checkpoints "
        "have no hash; all hashes every file, which reads the weights of large models twice",
    )
    keep: Keep = Field(
        "full",
        description="how tuned models are kept: full, as folders; delta, as lossless differences from their bases, a "
        "fifth to a third of the size in bfloat16 (`sftlab unpack` writes the folder again), or as adapters; recipe, "
        "for studies and sweeps: deleted once all that needs them is computed (`sftlab materialize` trains a model "
        "again). delta and recipe need a store that is a folder",
    )
    logical_cpus: Annotated[int | None, Field(ge=1), AUTO] = Field(
        None, description="CPUs of a local Ray; auto: twice the real ones, at least 4"
    )
    gpu_wait_minutes: float = Field(
        0, ge=0, description="minutes to wait for GPUs that an autoscaler may still start; 0 refuses at once"
    )
    engine: EngineRuntime = EngineRuntime()
    training: TrainingRuntime = TrainingRuntime()
    fine_tuning: FineTuningRuntime = FineTuningRuntime()
    evaluation: EvaluationRuntime = EvaluationRuntime()
    sweep: SweepRuntime = SweepRuntime()
    pocket: PocketRuntime = PocketRuntime()
    rates: Rates = Rates()
    track: bool = Field(True, description="log the study to MLflow after it has run")
    tracking: TrackingSettings = TrackingSettings()

    @property
    def evaluation_engine(self) -> EngineRuntime:
        """`engine` with the number and threads of `evaluation`."""
        given = self.evaluation.model_dump(exclude_none=True)
        return self.engine.model_copy(update=given)

    @property
    def engine_bundles(self) -> list[Bundle]:
        """What the engines take together; empty on CPUs."""
        return bundles_of(self.engine.engines, self.engine.gpus_per_engine)

    @property
    def training_bundles(self) -> list[Bundle]:
        """What the training workers take together; empty on CPUs."""
        return bundles_of(self.training.workers, self.training.gpus_per_worker)

    @property
    def group_training(self) -> TrainingRuntime:
        """`training` with the workers of `fine_tuning`."""
        workers = self.fine_tuning.workers or self.training.workers
        return self.training.model_copy(update={"workers": workers})

    @property
    def group_bundles(self) -> list[Bundle]:
        """What the groups of `fine_tuning` take at least, all that are asked for together; empty on CPUs."""
        workers = (self.fine_tuning.groups or 1) * self.group_training.workers
        return bundles_of(workers, self.training.gpus_per_worker)

    @property
    def most_bundles(self) -> list[Bundle]:
        """What engines or training workers, whichever need more GPUs, take together; empty on CPUs."""
        evaluation = self.evaluation_engine
        many = bundles_of(evaluation.engines, evaluation.gpus_per_engine)
        return max(self.engine_bundles, many, self.training_bundles, self.group_bundles, key=gpus_in)
