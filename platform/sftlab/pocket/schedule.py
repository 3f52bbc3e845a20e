"""The learning-rate schedule of pre-training."""

from __future__ import annotations

from math import cos, pi

FLOOR = 0.1


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at `step` in [0, steps): linear warm-up, then cosine down to FLOOR."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    share = (step - rising) / max(1, steps - rising)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + cos(pi * share))
