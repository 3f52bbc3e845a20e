"""What the pipelines ask of an engine; `vllm_engine.VllmEngine` is the one that runs models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sftlab.inference.spec import EngineRuntime, EngineSpec

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class EngineSwapError(RuntimeError):
    """A swap of weights did not take: the live model does not compute with the tensors it was given."""


class WeightSource(Protocol):
    """All tensors of one model, under the names of its checkpoint; read again by every call."""

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor (on the CPU), one at a time."""


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
    """One model, ready to complete prompts. All results are in the order of the prompts."""

    @property
    def tokenizer(self) -> Any:
        """The model's transformers tokenizer."""

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus completion, in tokens."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """`sampling.samples` random completions of each prompt."""

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        """The greedy completion of each prompt."""

    def first_token_top(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[Ids, Floats]:
        """Ids (n, k) and logits (n, k) of the k largest first-token logits, the largest first."""

    def first_token_at(
        self, prompts: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[Floats]:
        """First-token logits of every prompt at the ids given for it, in their order."""

    def log_likelihoods(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Floats]:
        """Log-probability in nats of every token of each continuation, given its context and the tokens before it.

        A context has at least one token, for the first token of a text has no probability. A continuation has at
        least one, and both together have less than `max_model_len`.
        """

    def load_weights(self, source: WeightSource) -> None:
        """Put other weights of the same architecture in place. Raises EngineSwapError if that failed."""


# Starts an engine from a model folder in the calling process; travels to the actors by pickle.
EngineFactory = Callable[[str, EngineSpec, EngineRuntime], Engine]
