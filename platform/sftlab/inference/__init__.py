"""Engines: one model that completes prompts, scores texts, and takes other weights of its architecture in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.inference.engine import Completion, Engine, EngineSwapError, Prompt, Sampling, WeightSource
    from sftlab.inference.spec import EngineRuntime, EngineSpec
    from sftlab.inference.vllm_engine import VllmEngine

__all__ = [
    "Completion",
    "Engine",
    "EngineRuntime",
    "EngineSpec",
    "EngineSwapError",
    "Prompt",
    "Sampling",
    "VllmEngine",
    "WeightSource",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "engine": ["Completion", "Engine", "EngineSwapError", "Prompt", "Sampling", "WeightSource"],
        "spec": ["EngineRuntime", "EngineSpec"],
        "vllm_engine": ["VllmEngine"],
    },
)
