"""Hidden states of the last token of prompts after every layer, by a plain forward pass of transformers.

vLLM does not give them out. The state of a layer is what its block puts out, before the final norm. Of each batch only
the states of last tokens are kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.store.mirror import pull
from sftlab.weights.adapter import is_adapter
from sftlab.weights.delta_folder import is_packed
from sftlab.weights.regions import place
from sftlab.weights.restoration import ModelSource, write_source

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = (
    4096  # of one forward pass, padding included; what a batch holds may move the last bits of a state
)


def last_states(
    source: ModelSource, prompts: Sequence[Sequence[int]], dtype: str, device: str
) -> list[torch.Tensor]:
    """Of each layer the states after the last token of every prompt: [prompts, hidden], on the CPU.

    source: a base model, or a tuned model as it is. prompts: token ids, one or more each. Raises UserError where
    transformers cannot load the model.
    """
    import torch

    assert source.edit is None and all(prompts)
    with _plain_folder(source) as folder:
        model = _loaded(folder, dtype).to(device).eval()
    layers = layer_modules(model)
    states: list[torch.Tensor | None] = [None] * len(layers)
    rows: list[int] = []
    lasts = torch.zeros(0, dtype=torch.long)

    def keep(layer: int, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        found = hidden[torch.arange(len(rows), device=hidden.device), lasts.to(hidden.device)].cpu()
        if states[layer] is None:
            states[layer] = torch.empty(len(prompts), found.shape[-1], dtype=found.dtype)
        whole = states[layer]
        assert whole is not None
        whole[rows] = found

    for number, module in enumerate(layers):
        module.register_forward_hook(lambda _m, _i, output, layer=number: keep(layer, output))
    with torch.inference_mode():
        for rows in batches([len(ids) for ids in prompts]):
            lengths = torch.tensor([len(prompts[row]) for row in rows])
            lasts = lengths - 1
            ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
            for at, row in enumerate(rows):
                ids[at, : len(prompts[row])] = torch.tensor(prompts[row])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
            # Without the output layer, whose logits nobody reads.
            model.base_model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
    found = [one for one in states if one is not None]
    assert len(found) == len(layers), "a layer was not computed"
    return found


def layer_modules(model: Any) -> list[Any]:
    """The blocks of a model, in order: for each layer the outermost module of that number."""
    found: dict[int, Any] = {}
    for name, module in model.named_modules():  # a module comes before those in it
        layer = place(f"{name}.weight").layer if name else None
        if layer is not None:
            found.setdefault(layer, module)
    if sorted(found) != list(range(len(found))) or not found:
        raise UserError(
            "its layers are not found by their names",
            place=type(model).__name__,
            value=sorted(found),
            expected="numbered layers from 0 on",
            advice="leave measure.geometry out of the survey.",
        )
    return [found[layer] for layer in range(len(found))]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows in batches of at most BATCH_TOKENS tokens with padding, one row at least; shortest first."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@contextmanager
def _plain_folder(source: ModelSource) -> Iterator[Path]:
    """The folder of a model; of a packed one and of an adapter a folder that is written for the time of the context."""
    folder = pull(Path(source.folder))
    if not (is_packed(folder) or is_adapter(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="sftlab-model-") as written:
        yield write_source(pull(Path(source.base)), source, Path(written) / folder.name)


def _loaded(folder: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, dtype),
        )
    except Exception as error:  # of any kind, from the model's code; the cause stays attached
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"transformers cannot load the model ({type(error).__name__}: {reason})",
            place=folder,
            expected="a model that the installed transformers knows",
            advice="give such a model, or leave measure.geometry out of the survey.",
        ) from error
