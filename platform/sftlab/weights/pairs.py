"""A base model and a model tuned from it: that they fit each other, and what they share."""

from __future__ import annotations

import numpy as np

from sftlab.errors import UserError
from sftlab.weights.bits import RANKED, Raw, is_finite, raw_type, type_name
from sftlab.weights.regions import is_buffer
from sftlab.weights.shards import Checkpoint

_INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight")
_STRETCH = 1 << 20


def tied_aliases(checkpoint: Checkpoint) -> dict[str, str]:
    """Tensors stored a second time under another name: output embedding -> input embedding.

    Some writers store a tied output embedding beside the input embedding. It is one parameter: it is
    counted once, and the alias is written with the contents of its source. Raises UserError where
    config.json says that the two are tied and the stored ones differ.
    """
    tied = checkpoint.config.get("tie_word_embeddings")
    heads = [name for name in checkpoint.names if name.endswith(_OUTPUT_EMBEDDINGS)]
    sources = [name for name in checkpoint.names if name.endswith(_INPUT_EMBEDDINGS)]
    if tied is False or len(heads) != 1 or len(sources) != 1:
        return {}
    head, source = heads[0], sources[0]
    if _same(checkpoint, head, source):
        return {head: source}
    if tied is True:
        raise UserError(
            f"{checkpoint.path}: config.json says tie_word_embeddings, yet {head} and {source} differ; save "
            "the model again with transformers, or set tie_word_embeddings to false."
        )
    return {}


def parameters(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Names of the parameters in sorted order: each tied tensor once, and no buffers."""
    aliases = tied_aliases(checkpoint)
    return tuple(name for name in checkpoint.names if name not in aliases and not is_buffer(name))


def check_pair(base: Checkpoint, tuned: Checkpoint) -> tuple[str, ...]:
    """The names of the parameters that both models have, sorted.

    Raises UserError that names the first parameter which differs in presence, shape or type, or which is of a
    type that cannot be ranked. Contents are checked while they are streamed (`check_finite`).
    """
    old, new = parameters(base), parameters(tuned)
    for name in sorted(set(old) ^ set(new)):
        has, lacks = (base, tuned) if name in old else (tuned, base)
        raise UserError(
            f"{lacks.path}: has no parameter {name}, but {has.path} has it; a base model and a model tuned "
            "from it must have the same parameters."
        )
    for name in old:
        if base.shape(name) != tuned.shape(name):
            raise UserError(
                f"{tuned.path}: {name} has shape {list(tuned.shape(name))}, but {list(base.shape(name))} in "
                f"{base.path}; was the vocabulary or the model resized?"
            )
        if base.code(name) != tuned.code(name):
            raise UserError(
                f"{tuned.path}: {name} is {type_name(tuned.code(name))}, but {type_name(base.code(name))} in "
                f"{base.path}; save both models in one type."
            )
        if base.code(name) not in RANKED:
            raise UserError(
                f"{base.path}: {name} is {type_name(base.code(name))}; only bfloat16, float16 and float32 weights "
                "can be ranked, so use the model before quantisation."
            )
    return old


def check_finite(checkpoint: Checkpoint, name: str, weights: Raw) -> None:
    """Raises UserError that names the parameter if any of these weights of it is NaN or infinite."""
    if not is_finite(weights, checkpoint.code(name)):
        raise UserError(
            f"{checkpoint.path}: {name} holds NaN or infinite weights; the model is broken (did training "
            "diverge?), use a sound checkpoint."
        )


def _same(checkpoint: Checkpoint, one: str, other: str) -> bool:
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
