"""A base model and a model tuned from it: that they fit each other, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sftlab.errors import UserError
from sftlab.weights.bits import RANKED, Raw, is_finite, raw_type, type_name
from sftlab.weights.cut import Region
from sftlab.weights.delta_folder import Folder, open_tuned
from sftlab.weights.regions import in_region, is_buffer, place
from sftlab.weights.shards import Checkpoint

_INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight")
# Modules that torch puts around others, at any depth; no model has modules of these names.
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"})
PARALLEL = "module"  # of data parallelism, around the whole model: a word that a model may have within it
_STRETCH = 1 << 20


def tied_aliases(checkpoint: Checkpoint) -> dict[str, str]:
    """Tensors stored a second time under another name: output embedding -> input embedding.

    Some writers store a tied output embedding in addition to the input embedding. It is one parameter: it is
    counted once, and the alias is written with the contents of its source. Raises UserError where
    config.json says that the two are tied and the stored ones differ, and where it says that they are not and no
    output embedding is stored.
    """
    heads, sources = _embeddings(checkpoint)
    if checkpoint.config.get("tie_word_embeddings") is False:
        require_embeddings(checkpoint)
    if len(heads) != 1 or len(sources) != 1:
        return {}
    head, source = heads[0], sources[0]
    tied = _says_tied(checkpoint.config)
    if tied is False:
        return {}
    if same_contents(checkpoint, head, source):
        return {head: source}
    if tied is True:
        raise UserError(
            f"config.json says tie_word_embeddings, yet {head} and {source} differ",
            place=checkpoint.path,
            advice="save the model again with transformers, or set tie_word_embeddings to false.",
        )
    return {}


def _says_tied(config: Mapping[str, Any]) -> bool | None:
    """What config.json says of the embeddings, by the default of the architecture where it says nothing.

    None for an architecture that transformers does not know: then the stored tensors decide.
    """
    said, kind = config.get("tie_word_embeddings"), config.get("model_type")
    if isinstance(said, bool):
        return said
    # Here, since it takes seconds, and by its module: threads that import names of `transformers` itself for the first
    # time side by side find it without them.
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None
    default = getattr(CONFIG_MAPPING[kind](), "tie_word_embeddings", None)
    return default if isinstance(default, bool) else None


def require_embeddings(checkpoint: Checkpoint) -> None:
    """Raises UserError where a model lacks an embedding that transformers or vLLM would then leave at random.

    Both are needed where they are not tied. Where they are, vLLM reads the input embedding alone.
    """
    heads, sources = _embeddings(checkpoint)
    tied = _says_tied(checkpoint.config) if heads or sources else None
    if tied is False and sources and not heads and not _has_rows_of(checkpoint, sources[0]):
        raise UserError(
            (
                f"its embeddings are not tied, yet {sources[0]} is stored without an output "
                "embedding, such as lm_head.weight, which would be random after every load"
            ),
            place=checkpoint.path,
            advice=(
                "set tie_word_embeddings to true in config.json if the two are one tensor, or fetch "
                "the model again."
            ),
        )
    if tied is True and heads and not sources and not _has_rows_of(checkpoint, heads[0]):
        raise UserError(
            (
                f"its embeddings are tied, yet {heads[0]} is stored without the input embedding, "
                "which vLLM reads"
            ),
            place=checkpoint.path,
            advice="load the model with transformers and save it again.",
        )


def _embeddings(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """The stored output and input embeddings."""
    heads = [name for name in checkpoint.names if name.endswith(OUTPUT_EMBEDDINGS)]
    return heads, [name for name in checkpoint.names if name.endswith(_INPUT_EMBEDDINGS)]


def _has_rows_of(checkpoint: Checkpoint, name: str) -> bool:
    """Whether another matrix, whatever its name, has a row for each word as the embedding `name` has."""
    shapes = [checkpoint.shape(other) for other in checkpoint.names if other != name]
    return any(len(shape) == 2 and shape[0] == checkpoint.shape(name)[0] for shape in shapes)


def parameters(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the parameters in sorted order: each tied tensor once, and no buffers."""
    aliases = tied_aliases(checkpoint)
    return tuple(name for name in checkpoint.names if name not in aliases and not is_buffer(name))


@contextmanager
def open_pair(base_dir: Folder, tuned_dir: Folder) -> Iterator[tuple[Checkpoint, Checkpoint]]:
    """A base model and a model tuned from it, from folders; both closed with the context.

    The names are the tuned model's. Raises UserError as `Checkpoint.open` and `open_tuned`.
    """
    with Checkpoint.open(base_dir) as base, open_tuned(tuned_dir, base_dir) as tuned:
        align(base, tuned)
        yield base, tuned


def align(base: Checkpoint, tuned: Checkpoint) -> None:
    """Gives the base model's tensors the tuned model's names, where these differ by a prefix alone.

    A backbone is stored with its prefix (`transformer.`, `model.`) or without. Wrappers (`unwrapped`) are left out on
    both sides, since no loader knows them. Raises UserError where two tensors of a model then have one name.
    """
    for checkpoint in (base, tuned):
        bare = unwrapped(checkpoint.names)
        taken: dict[str, str] = {}
        for name, new in bare.items():
            if new in taken:
                raise UserError(
                    f"holds {taken[new]} and {name}, which are both {new} without their wrappers",
                    place=checkpoint.path,
                    value=name,
                    advice="unwrap the model before it is saved, or fetch it again.",
                )
            taken[new] = name
        checkpoint.rename({name: new for name, new in bare.items() if name != new})
    lacking = [name for name in base.names if name not in tuned.names]
    there = set(tuned.names) - set(base.names)
    tries = [{name: f"{prefix}.{name}" for name in lacking} for prefix in {n.split(".")[0] for n in there}]
    tries.append({name: name.partition(".")[2] for name in lacking})
    found = max(tries, key=lambda renamed: len(there.intersection(renamed.values())))
    base.rename({old: new for old, new in found.items() if new in there})


def unwrapped(names: Sequence[str]) -> dict[str, str]:
    """Each name without the modules that torch.compile, FSDP, activation checkpointing and data parallelism add.

    >>> unwrapped(["module._orig_mod.h.0._fsdp_wrapped_module.weight"])
    {'module._orig_mod.h.0._fsdp_wrapped_module.weight': 'h.0.weight'}
    """
    paths = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in names}
    while paths and all(len(path) > 1 and path[0] == PARALLEL for path in paths.values()):
        paths = {name: path[1:] for name, path in paths.items()}
    return {name: ".".join(path) for name, path in paths.items()}


def check_pair(
    base: Checkpoint, tuned: Checkpoint, region: Region = "all", layers: str | None = None
) -> tuple[str, ...]:
    """The names of the parameters that both models have in one form, sorted; all of the region are among them.

    Outside of the region the models may differ: a resized vocabulary, layers for predicting further tokens. Raises
    UserError that names the first parameter of the region which differs in presence, shape or type, or which is of a
    type that cannot be ranked. Contents are checked while they are streamed (`check_finite`).
    """
    old, new = parameters(base), parameters(tuned)

    def matters(name: str) -> bool:
        return in_region(name, region, layers) and not (region != "all" and _is_beyond(name, base, tuned))

    for name in sorted(set(old) ^ set(new)):
        has, lacks = (base, tuned) if name in old else (tuned, base)
        if matters(name):
            raise UserError(
                f"has no parameter {name}, but {has.path} has it",
                place=lacks.path,
                advice="a base model and a model tuned from it must have the same parameters.",
            )
    found = []
    for name in old:
        if name not in tuned.names or name not in new:
            continue
        why = _difference(base, tuned, name)
        if why is None:
            found.append(name)
        elif matters(name):
            raise why
    return tuple(found)


def layer_count(checkpoint: Checkpoint) -> int:
    """Layers of a model, without those behind the ones that config.json counts."""
    names = [name for name in parameters(checkpoint) if not _is_beyond(name, checkpoint)]
    return 1 + max((layer for name in names if (layer := place(name).layer) is not None), default=-1)


def is_shared(base: Checkpoint, tuned: Checkpoint, name: str) -> bool:
    """Whether both models have the parameter in one form; where not, it stays as tuned."""
    return name in base.names and _difference(base, tuned, name) is None


def _is_beyond(name: str, *models: Checkpoint) -> bool:
    """Whether a parameter is in a layer behind those that config.json counts, such as one for further tokens."""
    layer = place(name).layer
    counts = [model.config.get("num_hidden_layers") for model in models]
    return layer is not None and any(isinstance(count, int) and layer >= count for count in counts)


def _difference(base: Checkpoint, tuned: Checkpoint, name: str) -> UserError | None:
    """Why a parameter that both models have cannot be compared, or None."""
    if base.shape(name) != tuned.shape(name):
        return UserError(
            f"{name} has shape {list(tuned.shape(name))}, but {list(base.shape(name))} in {base.path}",
            place=tuned.path,
            value=list(tuned.shape(name)),
            advice="was the vocabulary or the model resized?",
        )
    if base.code(name) != tuned.code(name):
        return UserError(
            f"{name} is {type_name(tuned.code(name))}, but {type_name(base.code(name))} in {base.path}",
            place=tuned.path,
            value=type_name(tuned.code(name)),
            advice="save both models in one type.",
        )
    return _unranked(base, name)


def check_ranked(checkpoint: Checkpoint) -> None:
    """Raises UserError that names the first parameter of a type that cannot be ranked.

    `check_pair` refuses it too, for the region "all"; a base model is checked before a model is tuned from it.
    """
    for name in parameters(checkpoint):
        why = _unranked(checkpoint, name)
        if why is not None:
            raise why


def _unranked(checkpoint: Checkpoint, name: str) -> UserError | None:
    if checkpoint.code(name) in RANKED:
        return None
    return UserError(
        f"{name} is {type_name(checkpoint.code(name))}",
        place=checkpoint.path,
        value=type_name(checkpoint.code(name)),
        expected="bfloat16, float16 or float32 weights, which alone can be ranked",
        advice="use the model before quantisation, or save it in one of these types.",
    )


def check_finite(checkpoint: Checkpoint, name: str, weights: Raw) -> None:
    """Raises UserError that names the parameter if any of these weights of it is NaN or infinite."""
    if not is_finite(weights, checkpoint.code(name)):
        raise UserError(
            f"{name} holds NaN or infinite weights",
            place=checkpoint.path,
            advice="the model is broken (did training diverge?), use a sound checkpoint.",
        )


def same_contents(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Whether two stored tensors have one type, one shape and the same bits."""
    if checkpoint.shape(one) != checkpoint.shape(other) or checkpoint.code(one) != checkpoint.code(other):
        return False
    size = checkpoint.numel(one)
    left, right = (np.empty(min(size, _STRETCH), dtype=raw_type(checkpoint.code(one))) for _ in range(2))
    for start in range(0, size, _STRETCH):
        length = min(_STRETCH, size - start)
        checkpoint.read_into(one, start, left[:length])
        checkpoint.read_into(other, start, right[:length])
        if not np.array_equal(left[:length], right[:length]):
            return False
    return True
