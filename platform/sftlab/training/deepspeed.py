"""DeepSpeed: its configuration (a pure function), and the traps of running it without an accelerator."""

from __future__ import annotations

import os
from typing import Any

from sftlab.cluster.environment import without_mpi
from sftlab.training.spec import SFTSpec, TrainingRuntime, accumulation_steps, check_runtime

BUCKET_ELEMENTS = 50_000_000


def deepspeed_config(spec: SFTSpec, runtime: TrainingRuntime) -> dict[str, Any]:
    """The configuration of one run, as deepspeed.initialize takes it.

    Gradients are summed among ranks in float32, and from ZeRO-1 on accumulated in float32, so that bf16
    training does not depend on how the batch is cut. (DeepSpeed has no such accumulation for stage 0.)
    Raises UserError where the batch does not divide.
    """
    check_runtime(runtime)
    micro, accumulation = accumulation_steps(spec, runtime)
    zero: dict[str, Any] = {
        "stage": runtime.zero_stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
    }
    if runtime.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if runtime.offload == "parameters":
        zero["offload_param"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_batch_size": spec.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": spec.max_grad_norm or 0.0,
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if spec.precision == "bf16":
        config["bf16"] = {"enabled": True}
        if runtime.zero_stage > 0:
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def prepare_process(runtime: TrainingRuntime) -> None:
    """Settings to make before `import deepspeed`, once in each rank.

    Without an accelerator DeepSpeed would otherwise look for one, and compile C++ for minutes. It would take the rank
    of a process of MPI for the worker's.
    """
    import logging

    for name in without_mpi(os.environ):
        del os.environ[name]
    if runtime.gpus_per_worker == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)


def disable_shared_memory_op() -> None:
    """Keep DeepSpeed from compiling its shared-memory collective (over a minute) where gloo does as well.

    The table is private to DeepSpeed; a test proves that this name still takes effect.
    """
    import deepspeed

    table = deepspeed.ops.__compatible_ops__
    assert "deepspeed_shm_comm" in table, (
        "DeepSpeed renamed its shared-memory op; see disable_shared_memory_op"
    )
    table["deepspeed_shm_comm"] = False


def start_deepspeed(runtime: TrainingRuntime) -> None:
    """Join DeepSpeed to the process group that Ray Train has made; call once in each rank.

    Sets the number of torch threads, and deterministic algorithms, so that a rerun gives the same bits.
    """
    import logging

    import torch

    prepare_process(runtime)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if runtime.gpus_per_worker == 0:
        disable_shared_memory_op()
    torch.set_num_threads(runtime.threads)
    repeat_bits(on_gpu=runtime.gpus_per_worker > 0)
    deepspeed.init_distributed(dist_backend="nccl" if runtime.gpus_per_worker else "gloo", verbose=False)


def repeat_bits(on_gpu: bool) -> None:
    """Deterministic algorithms in this process, so that a rerun gives the same bits; call before the first product.

    torch only warns where an operation has none. cuBLAS repeats its sums where its workspace has a fixed size, which it
    reads when it starts.
    """
    import torch

    if on_gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def adamw(model: Any, spec: SFTSpec) -> Any:
    """torch's AdamW over the trainable parameters: decay on matrices, none on vectors (biases, norms).

    Its rate is 0 until the loop sets that of the first step.
    """
    import torch

    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trainable if len(getattr(p, "ds_shape", p.shape)) >= 2]
    vectors = [p for p in trainable if len(getattr(p, "ds_shape", p.shape)) < 2]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}]
    groups.append({"params": vectors, "weight_decay": 0.0})
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.0,
        betas=spec.betas,
        eps=spec.eps,
    )


def make_engine(model: Any, spec: SFTSpec, runtime: TrainingRuntime) -> tuple[Any, Any]:
    """A DeepSpeed engine around `model`, and the torch optimizer whose learning rate is set by hand."""
    import deepspeed

    optimizer = adamw(model, spec)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=deepspeed_config(spec, runtime), dist_init_required=False
    )
    if runtime.zero_stage == 0 and spec.precision == "bf16":
        # DeepSpeed takes a step on zero gradients here to make the states, which spoils AdamW's bias
        # correction: the first true step would count as the second.
        optimizer.state.clear()
    if runtime.zero_stage == 0 and spec.precision == "fp32" and runtime.workers == 1:
        # It would copy all gradients to a buffer and back to average them over one rank. `take_step` fills gaps.
        engine.enable_backward_allreduce = False
    return engine, optimizer
