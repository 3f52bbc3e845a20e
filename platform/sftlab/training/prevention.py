"""Prevention of harm during fine-tuning: frozen layers, a pull and a limit to the base, a KL term, masked weights.

docs/method.md, section Prevention, gives the formulas and their reasons. Everything that is kept
outside the engine is made from the base model when a run begins or is resumed, and never saved.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sftlab.errors import UserError
from sftlab.training.batches import answer_rows
from sftlab.training.stored_tensors import Homes, by_parameter, full_shape
from sftlab.weights.regions import check_layers, layer_numbers, place

if TYPE_CHECKING:
    from sftlab.training.records import ProbeMask


def freeze_layers(model: torch.nn.Module, text: str) -> None:
    """Take the parameters of these transformer layers, adapters included, out of training.

    Raises UserError where the model lacks one of the layers, where one of them shares a parameter with a layer that is
    trained, or where nothing is left to train.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    check_layers(text, parameters, "sft.freeze_layers")
    chosen = layer_numbers(text)
    trained = {
        id(parameter): name for name, parameter in parameters.items() if place(name).layer not in chosen
    }
    for name, parameter in parameters.items():
        if place(name).layer not in chosen:
            continue
        if other := trained.get(id(parameter)):
            raise UserError(
                f"{text} freezes {name}, but {other}, outside of these layers, is the same tensor",
                place="sft.freeze_layers",
                value=text,
                advice="freeze all layers that share it, or none of them.",
            )
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(
            f"{text} leaves nothing to train",
            place="sft.freeze_layers",
            value=text,
            advice="freeze fewer layers.",
        )


def frozen_base(model: torch.nn.Module, shared: bool) -> torch.nn.Module:
    """A second model with the weights that `model` has now, without dropout and without gradients.

    What does not train is shared with `model`: its frozen parameters, or with `shared` (LoRA) all of them.
    """
    memo = {id(p): p for p in model.parameters() if shared or not p.requires_grad}
    base: torch.nn.Module = copy.deepcopy(model, memo)
    for parameter in base.parameters():
        if id(parameter) not in memo:
            parameter.requires_grad_(False)
    return base.eval()


def original_logits(original: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the frozen model says about a micro-batch: (batch, length, vocabulary)."""
    with torch.no_grad():
        logits: torch.Tensor = original(**tensors).logits
    return logits


def kl_to_base(base_logits: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum over the labelled tokens of KL(base || model) in nats, over the whole vocabulary, in float32.

    `base_logits` and `logits` (batch, length, vocabulary) at position t predict `labels` (batch, length) at
    t + 1, as in batches.answer_loss; 0 where no token is labelled.
    """
    base = answer_rows(base_logits, labels).log_softmax(-1)
    model = answer_rows(logits, labels).log_softmax(-1)
    return torch.nn.functional.kl_div(model, base, reduction="sum", log_target=True)


def pull(weights: torch.Tensor, base: torch.Tensor, share: float) -> None:
    """weights <- weights - share * (weights - base), in place; equal weights keep their bits."""
    weights.sub_((weights - base).mul_(share))


def pull_to_base(optimizer: torch.optim.Optimizer, strength: float) -> None:
    """From now on take the share rate * strength of the way back to the present weights before every step.

    As for `limit_to_base`, the optimiser's float32 weights must be those of the base.
    """
    base = copies_of(optimizer)

    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # DeepSpeed steps one group at a time and shows the optimiser no other meanwhile.
        with torch.no_grad():
            for group in optimizer.param_groups:
                for weights in group["params"]:
                    pull(weights, base[weights], group["lr"] * strength)

    optimizer.register_step_pre_hook(before_step)


def limit(weights: torch.Tensor, base: torch.Tensor, share: float) -> None:
    """Clamp weights into [base - share * |base|, base + share * |base|], in place; weights within keep their bits."""
    most = base.abs().mul_(share)
    top = base + most
    torch.where(weights > top, top, weights, out=weights)
    bottom = torch.sub(base, most, out=most)
    torch.where(weights < bottom, bottom, weights, out=weights)


def limit_to_base(optimizer: torch.optim.Optimizer, share: float) -> None:
    """From now on clamp the weights after every step to the present weights plus or minus a share of their size.

    Call this while the optimiser's float32 weights are those of the base, before a checkpoint is loaded.
    Under ZeRO 1 and 2 they are this rank's partition, and so is the copy that is kept of them.
    """
    base = copies_of(optimizer)

    def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # DeepSpeed steps one group at a time, and copies the weights into the model afterwards.
        with torch.no_grad():
            for weights in weights_of(optimizer):
                limit(weights, base[weights], share)

    optimizer.register_step_post_hook(after_step)


def weights_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The tensors that an optimiser updates."""
    return [weights for group in optimizer.param_groups for weights in group["params"]]


def copies_of(optimizer: torch.optim.Optimizer) -> dict[torch.Tensor, torch.Tensor]:
    """A copy of each tensor that an optimiser updates."""
    return {weights: weights.detach().clone() for weights in weights_of(optimizer)}


def mask_gradients(places: Homes, base: Path, mask: ProbeMask) -> None:
    """Make the gradients of all weights that the mask's cut selects 0, before anything else sees them.

    `places` is stored_tensors.homes(...). Without decay AdamW then leaves these weights as they are, to the bit.
    Raises UserError where the probe and the base do not fit each other.
    """
    from sftlab.weights.delta_folder import open_tuned
    from sftlab.weights.pairs import check_pair
    from sftlab.weights.selection import is_restored_mask
    from sftlab.weights.shards import Checkpoint

    with Checkpoint.open(base) as old, open_tuned(mask.probe, base) as probe:
        known = set(check_pair(old, probe))
        for parameter, parts in by_parameter(places):
            whole = torch.zeros(full_shape(parameter), dtype=torch.bool)
            for name, part in parts:
                if name in known:
                    masked = is_restored_mask(name, old.read(name), probe.read(name), mask.cut)
                    part.in_parameter(whole).copy_(part.in_stored(masked))
            if bool(whole.any()):
                keep_out(parameter, whole)


def keep_out(parameter: torch.nn.Parameter, masked: torch.Tensor) -> None:
    """Zero the gradient of a parameter where `masked` (bool, of its shape)."""
    if parameter.requires_grad:
        masked = masked.to(parameter.device)
        parameter.register_hook(lambda gradient: gradient.masked_fill(masked, 0))
