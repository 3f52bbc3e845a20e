"""What the pipelines ask of an engine; `vllm_engine.VllmEngine` is the one that runs models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch


class EngineSwapError(RuntimeError):
    """A swap of weights did not take: the live model does not compute with the tensors it was given."""


@dataclass(frozen=True)
class Prompt:
    """Token ids to complete; a completion ends once it contains one of `stop`, which it keeps."""

    token_ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """Sample i of a prompt is drawn with the seed `prompt.seed + i`."""

    samples: int
    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True)
class Completion:
    """Text without special tokens, and the number of tokens that were generated for it."""

    text: str
    tokens: int


class Engine(Protocol):
    """One model, ready to complete prompts. All lists are in the order of the prompts."""

    tokenizer: Any
    max_model_len: int

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """`sampling.samples` random completions of each prompt."""

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        """The greedy completion of each prompt."""

    def first_token_top(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (n, k) int64 and logits (n, k) float32 of the k largest first-token logits, falling."""

    def first_token_at(self, prompts: Sequence[Sequence[int]], token_ids: np.ndarray) -> np.ndarray:
        """First-token logits (n, k) float32 at the ids (n, k) of each prompt."""

    def load_weights(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Put other weights of the same architecture in place. Raises EngineSwapError if that failed."""
