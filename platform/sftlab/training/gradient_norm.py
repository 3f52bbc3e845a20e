"""The norm of the gradients of one step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def l2_norm(gradients: Iterable[torch.Tensor | None]) -> float | None:
    """L2 norm of all gradients together, in float32; None where there is none."""
    import torch

    norms = [gradient.detach().float().norm() for gradient in gradients if gradient is not None]
    return torch.stack([norm.to(norms[0].device) for norm in norms]).norm().item() if norms else None


def take_step(engine: Any) -> float | None:
    """The optimiser step of a DeepSpeed engine; returns the L2 norm of the gradients before clipping.

    Optimisers that partition or widen gradients know the norm after the step. Others leave the summed gradients at the
    parameters until it.
    """
    known = hasattr(engine.optimizer, "_global_grad_norm")
    before = None if known else l2_norm(parameter.grad for parameter in engine.module.parameters())
    engine.step()
    if not hasattr(engine.optimizer, "_global_grad_norm"):
        return before
    norm = engine.get_global_grad_norm()
    return None if norm is None else float(norm)
