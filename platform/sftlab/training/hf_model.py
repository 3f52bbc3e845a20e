"""Load a plain Hugging Face folder for training, adapt it, and check that it can be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sftlab.config.documents import nearest
from sftlab.errors import UserError
from sftlab.reporting.text import listed
from sftlab.training.spec import LoRASpec, SFTSpec
from sftlab.training.stored_tensors import Homes, Stretch, assembled, by_parameter, homes
from sftlab.weights.pairs import OUTPUT_EMBEDDINGS, same_contents
from sftlab.weights.shards import Checkpoint


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, in order of their names. Raises UserError as Checkpoint.open."""
    with Checkpoint.open(folder) as checkpoint:
        return list(checkpoint.shards)


def tensor_files(folder: Path) -> dict[str, Path]:
    """Where each stored tensor is: name -> file, in the order of the files. Raises UserError as Checkpoint.open."""
    with Checkpoint.open(folder) as checkpoint:
        return checkpoint.files


def names_of(model: Any) -> dict[int, list[str]]:
    """id of a parameter -> all its names in `model`; a parameter that modules share has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def check_trainable(folder: Path, spec: SFTSpec) -> None:
    """Raises UserError where the model of `folder` cannot be trained as `spec` says, from its shape alone.

    The model is built without weights, and its layers are frozen and adapted as for training. Files are compared only
    where they store a shared parameter twice.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # of any kind, from the model's code; the cause stays attached
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"transformers cannot build the model of config.json ({type(error).__name__}: {reason})",
            place=folder,
            advice="fetch the model again, or give one that the installed transformers knows.",
        ) from error
    model.tie_weights()
    check_copies(folder, homes(folder, model))
    check_adapted(model, spec)


def check_adapted(model: Any, spec: SFTSpec) -> None:
    """Raises UserError where the layers of a model cannot be frozen or adapted as `spec` says; changes the model."""
    from sftlab.training.prevention import freeze_layers

    if spec.freeze_layers is not None:
        freeze_layers(model, spec.freeze_layers)
    if spec.lora is not None:
        add_lora(model, spec.lora)


def check_copies(folder: Path, places: Homes) -> None:
    """Raises UserError where numbers are stored under two names with different values; `places` is homes(...)."""
    first: dict[tuple[int, Stretch | None], str] = {}
    with Checkpoint.open(folder) as checkpoint:
        for name, parts in places.items():
            source = first.setdefault((id(parts[0].parameter), parts[0].place), name)
            if source != name and not same_contents(checkpoint, source, name):
                raise UserError(
                    f"{source} and {name} differ, but are one parameter of this model",
                    place=folder,
                    advice=(
                        "set tie_word_embeddings to false in config.json, or save the model again with "
                        "transformers."
                    ),
                )


def torch_dtype(spec: SFTSpec) -> Any:
    """The dtype of the weights in forward and backward."""
    import torch

    return torch.bfloat16 if spec.precision == "bf16" else torch.float32


def load_model(folder: Path, spec: SFTSpec, zero3_config: dict[str, Any] | None) -> Any:
    """The causal language model of `folder`, in train mode, in the dtype of the run, without a cache.

    With `zero3_config` (a DeepSpeed configuration of stage 3) the model is built in partitions and filled
    tensor by tensor, so that no rank ever holds it whole; all ranks must call this together. Remote code is
    never run. Raises UserError where the folder is not such a model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    weight_files(folder)
    options = {"trust_remote_code": False, "dtype": torch_dtype(spec)}
    if zero3_config is None:
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **options
        )
    else:
        import deepspeed
        from transformers.initialization import no_init_weights

        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with no_init_weights(), deepspeed.zero.Init(config_dict_or_path=zero3_config):
            model = AutoModelForCausalLM.from_config(config, **options)
        model.tie_weights()
        fill_partitions(folder, model)
    model.config.use_cache = False
    torch.manual_seed(spec.seed)
    return model.train()


def fill(values: Iterable[tuple[Any, Callable[[], Any]]], rank: int) -> None:
    """Copy a whole value into each parameter, which ZeRO-3 may have partitioned; all ranks call this together.

    Of partitioned parameters rank 0 alone reads the values, one at a time.
    """
    import deepspeed

    for parameter, read in values:
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if rank == 0 or not hasattr(parameter, "ds_id"):
                parameter.data.copy_(read())


def fill_partitions(folder: Path, model: Any) -> None:
    """Fill a model partitioned by ZeRO-3: rank 0 reads one tensor, all ranks keep their part, and so on."""
    import torch

    buffers = dict(model.named_buffers())
    with Checkpoint.open(folder) as checkpoint:
        values = (
            (parameter, partial(assembled, parameter, parts, checkpoint.read))
            for parameter, parts in by_parameter(homes(folder, model))
        )
        fill(values, torch.distributed.get_rank())
        for name in checkpoint.names:
            if name in buffers:
                buffers[name].copy_(checkpoint.read(name))


def add_lora(model: Any, lora: LoRASpec) -> Any:
    """`model` wrapped by peft: its own weights frozen, adapters on the target modules.

    Raises UserError where no module bears one of the names, where one that does is no linear layer, and where its
    weight is shared with another module: merged into the shared weight, the update would change both.
    """
    from peft import LoraConfig, get_peft_model

    names = names_of(model)
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    if not isinstance(targets, str):
        require_targets(model, targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type, unused-ignore]
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise UserError(f"{targets}: {error}", place="sft.lora.target_modules", value=targets) from error
    odd = [name for name, _ in wrapped.named_parameters() if "lora_embedding" in name]
    if odd:
        raise UserError(
            f"names an embedding ({odd[0]})",
            place="sft.lora.target_modules",
            value=targets,
            advice="name linear layers.",
        )
    for layer in adapted_layers(wrapped):
        refuse_shared(names[id(layer.base_layer.weight)], f"sft.lora.target_modules = {targets}")
    return wrapped


def require_targets(model: Any, targets: Sequence[str]) -> None:
    """Raises UserError where one of the names is that of no module; peft asks for a match of one of them alone."""
    import torch
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.named_modules())
    unknown = [name for name in targets if not any(f".{key}".endswith(f".{name}") for key in modules)]
    if targets and not unknown:
        return
    kinds = (torch.nn.Linear, Conv1D)
    linear = dict.fromkeys(key.rpartition(".")[2] for key, one in modules.items() if isinstance(one, kinds))
    near = [name for word in unknown if (name := nearest(word, linear)) is not None]
    meant = f"did you mean {listed(list(dict.fromkeys(near)))}? " if near else ""
    raise UserError(
        f"no module of the model is named {listed(unknown, 'or')}" if unknown else "names no module",
        place="sft.lora.target_modules",
        value=unknown or targets,
        advice=f"{meant}Its linear layers are {listed(list(linear))}.",
    )


def adapted_layers(model: Any) -> list[Any]:
    """The layers of `model` that hold a LoRA adapter."""
    return [module for module in model.modules() if getattr(module, "lora_A", None)]


def refuse_shared(names: Sequence[str], setting: str) -> None:
    """Raises UserError where the weight of an adapted layer has more than one name."""
    if len(names) == 1:
        return
    *others, adapted = sorted(names, key=lambda name: name.endswith(OUTPUT_EMBEDDINGS))
    layer = adapted.removesuffix(".weight")
    raise UserError(
        f"adapts {layer}, but {adapted} and {others[0]} are one shared tensor: the exported model would have the "
        f"update in both, and the trained one in {layer} alone",
        place=setting,
        value=layer,
        advice=(
            f"leave {layer} out of target_modules, or give a base model that stores both tensors and has "
            "tie_word_embeddings false in its config.json."
        ),
    )
