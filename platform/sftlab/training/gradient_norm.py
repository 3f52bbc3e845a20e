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
    parameters until it. With one rank, which averages nothing, a parameter without a gradient gets zeros here, as with
    several; it may be of an expert that no token chose.
    """
    import torch

    before = None
    if not hasattr(engine.optimizer, "_global_grad_norm"):
        trained = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
        if not engine.enable_backward_allreduce:  # which would do so
            for parameter in trained:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        before = l2_norm(parameter.grad for parameter in trained)
    engine.step()
    if not hasattr(engine.optimizer, "_global_grad_norm"):
        return before
    norm = engine.get_global_grad_norm()
    return None if norm is None else float(norm)
