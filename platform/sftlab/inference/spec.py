"""What is measured by inference (hashed) and with how much hardware (never hashed)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sftlab.config.frozen import Frozen
from sftlab.config.words import AUTO, NEVER


class EngineSpec(Frozen):
    """What of the engine changes results."""

    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        default="auto", description="dtype of weights and activations; auto is that of the checkpoint."
    )


class EngineRuntime(Frozen):
    """Where and how engines run."""

    engines: int = Field(default=1, ge=1, description="Engines that work side by side.")
    gpus_per_engine: float = Field(default=0, ge=0, description="GPUs of one engine; 0 runs on the CPU.")
    cpus_per_engine: float = Field(default=1, ge=0, description="CPUs that Ray reserves for one engine.")
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs over which each layer is split.")
    max_model_len: Annotated[int | None, Field(ge=2), AUTO] = Field(
        default=None, description="Longest prompt plus completion, in tokens; auto is that of the model."
    )
    max_num_seqs: Annotated[int | None, Field(ge=1), AUTO] = Field(
        default=None,
        description="Completions that run at a time; auto is 256 on CPU and vLLM's choice for the GPU.",
    )
    kv_cache_gib: Annotated[float | None, Field(gt=0), AUTO] = Field(
        default=None, description="Key-value cache; auto is 0.25 GiB on CPU and vLLM's share on GPU."
    )
    threads: Annotated[int | None, Field(ge=1), AUTO] = Field(
        default=None, description="CPU threads of an engine; auto is all cores."
    )
    enforce_eager: Annotated[bool | None, AUTO] = Field(
        default=None, description="Run without compilation and graphs; auto is yes on CPU and no on GPU."
    )
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="Share of a GPU's memory used."
    )
    max_restarts: int = Field(default=3, ge=0, description="How often a dead engine is started again.")
    timeout_seconds: Annotated[float | None, Field(gt=0), NEVER] = Field(
        default=1800.0,
        description="Longest time of one batch and of one swap of weights; an engine's start may take four times as "
        "long. One that takes longer is taken for hung and started again. never waits without end.",
    )
