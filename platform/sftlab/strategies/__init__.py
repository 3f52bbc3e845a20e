"""Strategies: what one may do about the harm of fine-tuning, one file each, side by side.

A custom strategy is a class in your module:

    from dataclasses import dataclass

    from sftlab.strategies import EditStrategy, register
    from sftlab.weights.edits import TensorEdit


    @dataclass(frozen=True)
    class Clipped(TensorEdit):
        percent: float

        def edit(self, name, base, tuned):
            limit = (1 - self.percent / 100) * (tuned - base).abs().max()
            return base + (tuned - base).clamp(-limit, limit)


    @register
    class ClippedUpdates(EditStrategy):
        name = "clip"
        title = "Largest updates clipped"
        source = "our idea"
        region: str = "all"

        def edit(self, percent, cut):
            return Clipped(percent, region=self.region)
"""

from sftlab.strategies import (  # noqa: F401  (importing registers them)
    clip_relative,
    dare,
    divided,
    freeze_layers,
    kl_to_base,
    l2_sp,
    lora,
    low_rate,
    masked_update,
    mixed,
    replay,
    restore,
    ties,
    wise_ft,
)
from sftlab.strategies.base import EditStrategy, Strategy
from sftlab.strategies.registry import (
    edit_for,
    get_edit_strategy,
    get_strategy,
    known_strategies,
    load_plugins,
    register,
    source_of,
    with_method,
)
from sftlab.strategies.treatment import RestoreSpec, TrainingSetsSpec, Treatment

__all__ = [
    "EditStrategy",
    "RestoreSpec",
    "Strategy",
    "TrainingSetsSpec",
    "Treatment",
    "edit_for",
    "get_edit_strategy",
    "get_strategy",
    "known_strategies",
    "load_plugins",
    "register",
    "source_of",
    "with_method",
]
