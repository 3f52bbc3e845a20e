"""Supervised fine-tuning on Ray Train and DeepSpeed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.training.records import SFTResult, SFTRun
    from sftlab.training.sft import train_runs
    from sftlab.training.spec import LoRASpec, MaskSpec, SFTSpec, TrainingRuntime

__all__ = ["LoRASpec", "MaskSpec", "SFTResult", "SFTRun", "SFTSpec", "TrainingRuntime", "train_runs"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "records": ["SFTResult", "SFTRun"],
        "sft": ["train_runs"],
        "spec": ["LoRASpec", "MaskSpec", "SFTSpec", "TrainingRuntime"],
    },
)
