"""A DeepSpeed engine with its model, and how the next run of the same base starts with it.

Building an engine costs several times the steps of a small run. `restart` sets the weights to those of the base, the
optimiser's float32 weights to these, and its moments and step counts to 0. That is all that training changes, so the
run has the bits of one with a new engine; tests/ray/test_training_kept.py compares them for every ZeRO stage.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sftlab.training.deepspeed import deepspeed_config, make_engine
from sftlab.training.export import keep_float32_base
from sftlab.training.hf_model import add_lora, fill, load_model
from sftlab.training.prevention import (
    freeze_layers,
    frozen_base,
    limit_to_base,
    mask_gradients,
    pull_to_base,
)
from sftlab.training.records import SFTRun
from sftlab.training.spec import SFTSpec, TrainingRuntime
from sftlab.training.stored_tensors import Homes, assembled, by_parameter, homes

# What may differ between two runs of one engine.
_OF_A_RUN = SFTSpec().model_dump(
    include={"learning_rate", "schedule", "warmup_ratio", "epochs", "max_length"}
)


@dataclass
class Live:
    """A model in a DeepSpeed engine. `key` is what a run must have in common to use it; None for this run alone."""

    key: tuple[str, SFTSpec] | None
    engine: Any
    optimizer: Any
    places: Homes
    original: Any  # the frozen base model, where the spec asks for a KL term to it
    adapters: Mapping[Any, Any]  # the adapters' parameters and their first values


class Held:
    """The engine of a rank from run to run."""

    def __init__(self, runtime: TrainingRuntime, rank: int, device: Any) -> None:
        self.runtime, self.rank, self.device = runtime, rank, device
        self.live: Live | None = None

    def take(self, run: SFTRun) -> Live:
        """An engine with the weights of a run's base: that of the run before, where it can be used, or a new one."""
        if (
            self.live is not None
            and self.live.key is not None
            and self.live.key == live_key(run, self.runtime)
        ):
            restart(self.live, Path(run.base_model), self.rank)
        else:
            self.release()
            self.live = build(run, self.runtime, self.rank, self.device)
        return self.live

    def release(self) -> None:
        """Give back the engine's memory."""
        live, self.live = self.live, None
        if live is not None:
            release(live)


def live_key(run: SFTRun, runtime: TrainingRuntime) -> tuple[str, SFTSpec] | None:
    """What two runs have in common that can use one engine; None where a run needs a new one.

    L2-SP, a limit, a KL term and masks keep the base's weights in hooks. Offloaded states are in buffers of DeepSpeed.
    Adapters are drawn by the seed; the other weights do not depend on it.
    """
    spec = run.spec
    if any(kept is not None for kept in (spec.l2_sp, spec.clip_relative, spec.kl_to_base, spec.mask)):
        return None
    if runtime.offload != "none":
        return None
    seed = 0 if spec.lora is None else spec.seed
    return run.base_model, spec.model_copy(update={**_OF_A_RUN, "seed": seed})


def build(run: SFTRun, runtime: TrainingRuntime, rank: int, device: Any) -> Live:
    """The base model of a run in a new engine; all ranks call this together."""
    base, spec = Path(run.base_model), run.spec
    config = deepspeed_config(spec, runtime)
    model = load_model(base, spec, config if runtime.zero_stage == 3 else None)
    places = homes(base, model)
    model, original = prepare(model, spec)
    if runtime.gradient_checkpointing:
        # Under ZeRO-3 the other, non-reentrant kind sees weights as empty when it recomputes.
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": True})
    engine, optimizer = make_engine(model, spec, runtime)
    keep_float32_base(engine, base, places, rank)
    if spec.l2_sp is not None:
        pull_to_base(optimizer, spec.l2_sp)
    if spec.clip_relative is not None:
        limit_to_base(optimizer, spec.clip_relative)
    if run.mask is not None:
        mask_gradients(places, base, run.mask)
    key = live_key(run, runtime)
    adapters = {} if key is None or spec.lora is None else first_values(engine.module)
    return Live(key, engine, optimizer, places, None if original is None else original.to(device), adapters)


def prepare(model: Any, spec: SFTSpec) -> tuple[Any, Any]:
    """The loaded model as it is trained, and the frozen original where the spec asks for a KL term to it."""
    if spec.freeze_layers is not None:
        freeze_layers(model, spec.freeze_layers)
    original = None if spec.kl_to_base is None else frozen_base(model, shared=spec.lora is not None)
    if spec.lora is not None:
        model = add_lora(model, spec.lora)
        if spec.freeze_layers is not None:
            freeze_layers(model, spec.freeze_layers)
    return model, original


def first_values(model: Any) -> dict[Any, Any]:
    """The parameters that train, each with a copy of its whole value in CPU memory (a collective operation)."""
    import deepspeed

    found = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            with deepspeed.zero.GatheredParameters([parameter]):
                found[parameter] = parameter.detach().cpu().clone()
    return found


def restart(live: Live, base: Path, rank: int) -> None:
    """Bring a used engine to the state of a new one; all ranks call this together."""
    import torch

    engine = live.engine
    with torch.no_grad():
        if live.adapters:
            fill([(parameter, value.clone) for parameter, value in live.adapters.items()], rank)
        else:
            refill(base, live.places, rank)
        # Weights in float32 without ZeRO are the optimiser's; all other optimizers of DeepSpeed keep a copy.
        if hasattr(engine.optimizer, "refresh_fp32_params"):
            engine.optimizer.refresh_fp32_params()
        for state in live.optimizer.state.values():
            for value in state.values():
                value.zero_()
    keep_float32_base(engine, base, live.places, rank)
    engine.global_steps = engine.micro_steps = engine.global_samples = engine.skipped_steps = 0


def refill(base: Path, places: Homes, rank: int) -> None:
    """Copy the base's stored tensors into the parameters that train."""
    from sftlab.weights.shards import Checkpoint

    with Checkpoint.open(base) as checkpoint:
        values = (
            (parameter, partial(assembled, parameter, parts, checkpoint.read))
            for parameter, parts in by_parameter(places)
            if parameter.requires_grad
        )
        fill(values, rank)


def release(live: Live) -> None:
    """Give back an engine's memory."""
    import torch

    live.engine.destroy()
    live.engine = live.optimizer = live.original = None
    live.adapters, live.places = {}, {}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
