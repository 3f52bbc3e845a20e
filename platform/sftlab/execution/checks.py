"""Checks that every study makes before anything is computed: its runtime, its paths and its base models."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from sftlab.errors import UserError
from sftlab.execution.runtime import Keep, Runtime
from sftlab.execution.stage import Stage
from sftlab.inference.model_check import check_head_size, check_model
from sftlab.inference.spec import EngineSpec
from sftlab.inference.vllm_engine import check_engine_runtime, checkpoint_dtype
from sftlab.pocket.spec import Shape
from sftlab.reporting.text import listed
from sftlab.store.objects import is_address, parse_address
from sftlab.strategies import RestoreSpec
from sftlab.training.spec import SFTSpec, accumulation_steps, check_runtime, check_spec
from sftlab.weights.companions import companions
from sftlab.weights.pairs import check_ranked, require_embeddings, tied_aliases
from sftlab.weights.regions import check_layers
from sftlab.weights.shards import Checkpoint

RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in the process that `ray job submit` starts


def check_resources(runtime: Runtime, trained: Iterable[SFTSpec]) -> None:
    """Raises UserError where fields of the runtime contradict each other or do not go with what is trained."""
    check_store(runtime)
    check_engine_runtime(runtime.engine)
    check_runtime(runtime.training)
    for sft in trained:
        check_spec(sft, runtime.training)
        accumulation_steps(sft, runtime.training)


def check_store(runtime: Runtime) -> None:
    """Raises UserError for an address that is none, and for a relative folder in a submitted job.

    Ray deletes the working folder of such a job.
    """
    if is_address(runtime.store):
        parse_address(runtime.store)
    elif RAY_JOB in os.environ and not Path(runtime.store).is_absolute():
        raise UserError(
            "a submitted job runs in a temporary folder that Ray deletes, and the results with it",
            place=f"runtime.store={runtime.store}",
            value=runtime.store,
            advice=(
                "give an absolute folder that every node reaches, as --store /shared/sftlab/store, or an address, as "
                "--store s3://BUCKET/PREFIX."
            ),
        )


def check_keep(runtime: Runtime, known: Collection[Keep]) -> None:
    """Raises UserError where tuned models cannot be kept as the runtime says. known: what this kind of study can."""
    if runtime.keep not in known:
        raise UserError(
            place="runtime.keep",
            value=runtime.keep,
            expected=f"{listed(sorted(known), 'or')} for this kind of file",
        )
    if runtime.keep != "full" and is_address(runtime.store):
        raise UserError(
            f"models are packed or deleted in a folder alone, and runtime.store is the address {runtime.store}",
            place="runtime.keep",
            value=runtime.keep,
            advice="set keep to full, or use a store that is a folder.",
        )


def check_paths(named: Mapping[str, str | None]) -> None:
    """Raises UserError where a field that is a path, by its name, has the address of an object store."""
    for field, path in named.items():
        if path and is_address(path):
            raise UserError(
                "an address is for --store alone",
                place=f"{field}={path}",
                value=path,
                advice="copy it to a folder that every node sees, and name that.",
            )


def engines_on_cpu(stages: Iterable[Stage], runtime: Runtime) -> bool:
    """Whether one of these stages starts engines without GPUs."""
    return not runtime.engine.gpus_per_engine and any(stage.starts_engines for stage in stages)


def check_pocket_model(
    shape: Shape, trained: Iterable[SFTSpec], restore: RestoreSpec | None = None, on_cpu: bool = False
) -> None:
    """Raises UserError where the pocket model of this shape cannot be served on the CPU (where `on_cpu` says so), or
    lacks layers that one of `trained` freezes or adapts or `restore` names.
    """
    if on_cpu:
        check_head_size(shape.hidden // shape.heads, "shape of the pocket model (hidden / heads)")
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(shape.layers)]
    shapes = dict.fromkeys((sft.freeze_layers, sft.lora) for sft in trained)
    for frozen, _ in shapes:
        check_layers(frozen, names, "sft.freeze_layers: the pocket model (shape.layers)")
    for frozen, lora in shapes:
        if frozen or lora:
            from sftlab.pocket.pretrain import model_without_weights
            from sftlab.training.hf_model import check_adapted

            check_adapted(model_without_weights(shape), SFTSpec(freeze_layers=frozen, lora=lora))
    if restore is not None:
        check_layers(restore.layers, names, "restore.layers: the pocket model (shape.layers)")


def check_base_model(
    path: str,
    engine: EngineSpec,
    trained: Iterable[SFTSpec],
    restore: RestoreSpec | None = None,
    on_cpu: bool = False,
) -> None:
    """Raises UserError where the base model of a folder cannot be served or trained.

    on_cpu: whether engines without GPUs serve it. What is refused: no sound safetensors checkpoint (headers are
    read, and embeddings that are stored twice), no dtype where the engine takes the checkpoint's, files besides
    the weights that cannot be copied, weights that do not fill the model of config.json, layers that cannot be
    adapted or frozen as one of `trained` says, parameters of a type that cannot be ranked where something is trained
    (its change is measured in all parameters), or layers that `restore` names and the model lacks.
    """
    runs = list(trained)
    with Checkpoint.open(path) as checkpoint:
        require_embeddings(checkpoint)
        tied_aliases(checkpoint)
        if runs:
            check_ranked(checkpoint)
        if restore is not None:
            check_layers(restore.layers, checkpoint.names, f"restore.layers: {path}")
    if engine.dtype == "auto":
        checkpoint_dtype(path)
    from sftlab.training.hf_model import check_trainable

    check_model(path, on_cpu)
    companions(Path(path))
    shapes = {
        (sft.freeze_layers, sft.lora): sft for sft in runs
    }  # what decides whether a model can be trained
    for sft in shapes.values():
        check_trainable(Path(path), sft)
