"""GPU time and disk of a plan: arithmetic on `Rates` and the number of weights of a model. Nothing is measured.

With P the number of weights, a token that is read or written takes 2 P operations. A token that is trained on takes
6 P, and 4 P with LoRA, where the gradients of the frozen weights are not computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sftlab.execution.runtime import Rates

FULL, LORA, READ = 6, 4, 2  # operations a token and weight
# Share of a packed model, by the bytes of a weight: the larger trained pair of docs/results/deltas.md in bfloat16, and
# the largest change there in float32.
DELTA_SHARES = {"bfloat16": 0.31, "float32": 0.70}
BFLOAT16_BYTES = 2  # of a weight
SECONDS = 3600.0


@dataclass(frozen=True)
class Speed:
    """What one GPU does with a model of so many weights; all results are GPU seconds."""

    rates: Rates
    weights: int

    @property
    def _peak(self) -> float:
        return self.rates.peak_tflops * 1e12

    def train(self, tokens: float, adapters: bool = False) -> float:
        """Fine-tuning on so many tokens, of adapters or of all weights."""
        operations = (LORA if adapters else FULL) * self.weights * tokens
        return operations / (self._peak * self.rates.training_share)

    def read(self, tokens: float) -> float:
        """Reading so many tokens of prompts."""
        return READ * self.weights * tokens / (self._peak * self.rates.prefill_share)

    def write(self, tokens: float) -> float:
        """Writing so many tokens of answers."""
        return READ * self.weights * tokens / (self._peak * self.rates.decode_share)

    def move(self, size: float) -> float:
        """Reading or writing so many bytes of weights, while a GPU waits."""
        return size / (1e9 * self.rates.gigabytes_per_second)


@dataclass
class GPUTime:
    """Sums of GPU seconds by kind: of everything, and of what is left to build."""

    every: dict[str, float]
    left: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_kinds(cls, kinds: Iterable[str]) -> GPUTime:
        zero = dict.fromkeys(kinds, 0.0)
        return cls(dict(zero), dict(zero))

    def add(self, kind: str, seconds: float, missing: bool) -> None:
        self.every[kind] += seconds
        if missing:
            self.left[kind] += seconds


def hours(seconds: Mapping[str, float]) -> dict[str, float]:
    """Hours by kind."""
    return {kind: value / SECONDS for kind, value in seconds.items()}


def hours_lines(every: Mapping[str, float], left: Mapping[str, float], rates: Rates) -> list[tuple[str, str]]:
    """GPU hours by kind with the assumptions that they rest on, as lines of a name and a text; none without GPUs."""
    total, rest = sum(every.values()), sum(left.values())
    if not total:
        return []
    kinds = ", ".join(f"{kind} {value:,.0f}" for kind, value in every.items())
    to_build = "" if rest == total else f"; left to build: {rest:,.0f}"
    shares = (
        f"training {rates.training_share:g}, reading {rates.prefill_share:g}, writing {rates.decode_share:g}"
    )
    assumed = f"assumed, not measured: {rates.peak_tflops:g} TFLOP/s a GPU, of which {shares} (runtime.rates)"
    return [("GPU hours", f"about {total:,.0f} ({kinds}){to_build}"), ("", assumed)]


def aligned(lines: Iterable[tuple[str, str]]) -> str:
    """Names and texts in two columns."""
    shown = list(lines)
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in shown)
