"""Whether a model folder holds a decoder that the engine serves: from its config.json, before anything is computed."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.weights.shards import read_json_object

# What vLLM's attention on the CPU computes; tests compare it with the installed vLLM.
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
_TABLES = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")


CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def check_model(folder: str | Path, on_cpu: bool) -> None:
    """Raises UserError that names the folder and the reason where a model cannot be served or trained: quantised
    weights, code of its own, an encoder, an architecture or a head size that the engine lacks.
    """
    path = Path(folder) / "config.json"
    config = read_json_object(path, "a Hugging Face model folder with its config.json")
    if (quantised := config.get("quantization_config")) is not None:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise UserError(
            f"the weights are quantised ({method})", place=path, advice="give the model before quantisation."
        )
    kind = config.get("model_type")
    known = _causal_classes(kind) if isinstance(kind, str) else ()
    if not known:
        own = ", and its code (auto_map) is never run" if config.get("auto_map") else ""
        raise UserError(
            f"model_type {kind!r} is no causal language model of the installed transformers{own}",
            place=path,
            value=kind,
            advice="give a decoder-only model, such as Llama, Qwen, Mistral, GPT-NeoX or GPT-2.",
        )
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    if config.get("is_encoder_decoder") or not set(names) & set(known):
        raise UserError(
            f"architectures is {names or 'missing'}, and the causal language model of {kind} is {known[0]}",
            place=path,
            advice=(
                "encoders and bare backbones write no answers. Save the model with AutoModelForCausalLM."
            ),
        )
    _check_served(path, next(name for name in names if name in known))
    if on_cpu:
        _check_head_size(path, config)


def _causal_classes(kind: str) -> tuple[str, ...]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind, ())
    return (found,) if isinstance(found, str) else tuple(found)


def _check_served(path: Path, architecture: str) -> None:
    import transformers

    served = served_architectures()
    backend = getattr(getattr(transformers, architecture, None), "is_backend_compatible", None)
    if served and architecture not in served and not (backend is not None and backend()):
        raise UserError(
            f"the installed vLLM does not serve {architecture}", place=path, advice="give another model."
        )


@cache
def served_architectures() -> frozenset[str]:
    """The architectures that the installed vLLM names, read from its source: importing it takes many seconds."""
    spec = find_spec("vllm")
    origin = spec.origin if spec is not None else None
    file = Path(origin).parent / "model_executor/models/registry.py" if origin else None
    if file is None or not file.is_file():
        return frozenset()
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
        value = getattr(node, "value", None)
        if set(names) & set(_TABLES) and isinstance(value, ast.Dict):
            found |= {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}
    return frozenset(found)


def _check_head_size(path: Path, config: dict[str, Any]) -> None:
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and "kv_lora_rank" not in part and (size := _head_size(part)) is not None:
            check_head_size(size, path)


def _head_size(config: dict[str, Any]) -> int | None:
    hidden = config.get("hidden_size", config.get("n_embd"))
    heads = config.get("num_attention_heads", config.get("n_head"))
    size = config.get("head_dim")
    if size is None and isinstance(hidden, int) and isinstance(heads, int) and heads:
        size = hidden // heads
    return size if isinstance(size, int) else None


def check_head_size(size: int, place: object) -> None:
    """Raises UserError where vLLM has no attention on the CPU for heads of this size."""
    if size not in CPU_HEAD_SIZES:
        raise UserError(
            (
                f"heads of size {size} are not computed by vLLM on the CPU, which has "
                f"{', '.join(map(str, CPU_HEAD_SIZES))}"
            ),
            place=place,
            value=size,
            advice="give another model, or run on a GPU (engine.gpus_per_engine).",
        )


def context_length(folder: str | Path) -> int | None:
    """Tokens of a model's context by its config.json; None where that names none."""
    config = read_json_object(
        Path(folder) / "config.json", "expected a Hugging Face model folder with its config.json"
    )
    for part in (config, config.get("text_config")):
        for name in CONTEXT_FIELDS:
            if isinstance(part, dict) and isinstance(part.get(name), int) and part[name] > 0:
                return int(part[name])
    return None
