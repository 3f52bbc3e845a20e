"""What a fine-tuning run computes (SFTSpec, hashed), and where and how (TrainingRuntime, never hashed)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sftlab.config.frozen import Frozen
from sftlab.config.words import AUTO, NEVER
from sftlab.errors import UserError
from sftlab.weights.cut import Order, Region
from sftlab.weights.spec import LayerRange


class LoRASpec(Frozen):
    """Low-rank adapters in place of full fine-tuning (Hu et al. 2021); merged into the weights at export."""

    rank: int = Field(default=8, ge=1, description="Rank r of the update B A.")
    alpha: float = Field(default=16.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before A.")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        default="all-linear",
        description="Ends of the names of the linear layers to adapt, or all but the output layer.",
    )


class MaskSpec(Frozen):
    """Weights that are never updated: those which a restoration of a short probe run would take back."""

    percent: float = Field(gt=0, le=100, description="Share of the region's weights that is masked.")
    size: int = Field(ge=1, description="Facts of the probe, nested in the training set.")
    region: Region = Field(default="layers", description="Part of the model that is masked.")
    order: Order = Field(default="top", description="Which changes of the probe are masked: the largest.")


class SFTSpec(Frozen):
    """Settings of supervised fine-tuning; the defaults are the study's (paper, section 3.3)."""

    batch_size: int = Field(default=8, ge=1, description="Examples of one optimiser step, over all workers.")
    epochs: int = Field(default=1, ge=1, description="Passes over the training set.")
    learning_rate: float = Field(default=1e-5, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Decay to zero after the warm-up, or none."
    )
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1, description="Share of the steps with a rising rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW decay of matrices; vectors have none.")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="AdamW's averaging coefficients.")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon.")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="Clip the gradient's global norm; null does not clip."
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16",
        description="Arithmetic of forward and backward; the optimiser always keeps float32 weights.",
    )
    max_length: int = Field(
        default=256, ge=2, description="Longest example in tokens; a longer one is an error, never cut."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the order of examples, adapters and dropout.")
    lora: LoRASpec | None = Field(default=None, description="Train adapters in place of all weights.")
    freeze_layers: LayerRange | None = Field(
        default=None, description="Transformer layers that are not trained, such as 0-1 or 0,2,5-7."
    )
    l2_sp: float | None = Field(
        default=None, gt=0, description="Strength of the pull of all trained weights to the base (L2-SP)."
    )
    clip_relative: float | None = Field(
        default=None,
        gt=0,
        description="After each step every trained weight is at most this share of its base weight away from it.",
    )
    kl_to_base: float | None = Field(
        default=None, gt=0, description="Weight of the mean KL(base || model) over the answer tokens."
    )
    mask: MaskSpec | None = Field(
        default=None, description="Never update the weights whose change in a probe run would be restored."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> SFTSpec:
        if (error := contradiction(self)) is not None:
            raise ValueError(str(error))
        return self


def contradiction(spec: SFTSpec) -> UserError | None:
    """Why two fields of the spec do not go together, or None."""
    if spec.mask is not None and spec.weight_decay > 0:
        return UserError(
            "decay would move the masked weights",
            place=f"sft.mask with sft.weight_decay = {spec.weight_decay:g}",
            value=spec.weight_decay,
            advice="set weight_decay to 0 or leave mask out.",
        )
    for name in ("l2_sp", "clip_relative", "mask"):
        if getattr(spec, name) is not None and spec.lora is not None:
            return UserError(
                "adapters have no weights in the base",
                place=f"sft.{name} with sft.lora",
                advice="leave one of the two out.",
            )
    if spec.l2_sp is not None and spec.learning_rate * spec.l2_sp > 1:
        return UserError(
            f"is {spec.l2_sp:g}, and a step takes the share learning_rate * l2_sp of the way back to the base",
            place="sft.l2_sp",
            value=spec.l2_sp,
            expected=f"at most {1 / spec.learning_rate:g} at a rate of {spec.learning_rate:g}",
        )
    return None


class TrainingRuntime(Frozen):
    """Where and how runs are computed. Another number of workers or another micro-batch changes the last
    bits of float sums, and nothing else."""

    workers: int = Field(default=1, ge=1, description="Ranks of the Ray Train worker group.")
    gpus_per_worker: int = Field(default=0, ge=0, le=1, description="1 for a GPU a rank, 0 for CPU.")
    cpus_per_worker: float = Field(default=0.5, gt=0, description="Logical CPUs that Ray reserves a rank.")
    threads: int = Field(default=1, ge=1, description="Torch threads of a rank.")
    placement: Literal["pack", "spread", "strict_spread"] = Field(
        default="pack",
        description="Ranks on as few nodes as hold them, on many, or each on a node of its own.",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        default=0, description="ZeRO: share nothing, optimiser, also gradients, also weights among ranks."
    )
    micro_batch_size: Annotated[int | None, Field(ge=1), AUTO] = Field(
        default=None, description="Examples a rank holds at once; auto is its whole share of the batch."
    )
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations to spare memory.")
    offload: Literal["none", "optimizer", "parameters"] = Field(
        default="none", description="Keep optimiser states, or weights too (ZeRO-3), in CPU memory."
    )
    checkpoint_every_steps: Annotated[int | None, Field(ge=1), NEVER] = Field(
        default=500, description="Steps between two checkpoints of a run; never for none by steps."
    )
    checkpoint_every_seconds: Annotated[float | None, Field(gt=0), NEVER] = Field(
        default=600.0, description="Seconds between two checkpoints of a run; never for none by time."
    )
    max_failures: int = Field(default=2, ge=0, description="Restarts of the worker group before giving up.")
    timeout_seconds: float = Field(
        default=1800.0,
        ge=1,
        description="Longest wait of one rank for another, and longest silence of a rank's process (600 at most); "
        "after it the group is started again.",
    )


def accumulation_steps(spec: SFTSpec, runtime: TrainingRuntime) -> tuple[int, int]:
    """Micro-batch size and the number of micro-batches a rank computes for one full batch.

    batch_size = workers x micro-batch x accumulation. Raises UserError where that does not come out even,
    naming the values that would.
    """
    if spec.batch_size % runtime.workers:
        legal = [n for n in range(1, spec.batch_size + 1) if spec.batch_size % n == 0]
        raise UserError(
            f"{runtime.workers} does not divide sft.batch_size = {spec.batch_size}",
            place="training.workers",
            value=runtime.workers,
            expected=f"one of {', '.join(map(str, legal))}",
        )
    share = spec.batch_size // runtime.workers
    micro = runtime.micro_batch_size or share
    if share % micro:
        legal = [n for n in range(1, share + 1) if share % n == 0]
        raise UserError(
            f"{micro} does not divide a worker's share of {share} examples (sft.batch_size {spec.batch_size} / "
            f"{runtime.workers} workers)",
            place="training.micro_batch_size",
            value=micro,
            expected=f"one of {', '.join(map(str, legal))}",
        )
    return micro, share // micro


def check_runtime(runtime: TrainingRuntime) -> None:
    """Raises UserError where two fields of the runtime contradict each other."""
    if runtime.offload == "parameters" and runtime.zero_stage != 3:
        raise UserError(
            f"parameters needs training.zero_stage = 3, not {runtime.zero_stage}",
            place="training.offload",
            value=runtime.offload,
        )
    if runtime.offload == "optimizer" and runtime.zero_stage == 0:
        raise UserError(
            "optimizer needs training.zero_stage 1, 2 or 3, not 0",
            place="training.offload",
            value=runtime.offload,
        )


def check_spec(spec: SFTSpec, runtime: TrainingRuntime) -> None:
    """Raises UserError where fields of the spec contradict each other or do not work with the ZeRO stage."""
    if (error := contradiction(spec)) is not None:
        raise error
    for name in ("l2_sp", "clip_relative", "kl_to_base", "mask"):
        if getattr(spec, name) is not None and runtime.zero_stage == 3:
            raise UserError(
                "works with training.zero_stage 0, 1 and 2, not 3",
                place=f"sft.{name}",
                advice=f"lower the stage or leave {name} out.",
            )
