"""Pure formulas: accuracy, divergence, effects, statistics, gains, agreement. They take and return numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftlab.lazy import lazily

if TYPE_CHECKING:
    from sftlab.analysis.accuracy import accuracy_by_bucket, paired_by_bucket
    from sftlab.analysis.divergence import first_token_kl
    from sftlab.analysis.statistics import paired_difference, score_interval

__all__ = ["accuracy_by_bucket", "first_token_kl", "paired_by_bucket", "paired_difference", "score_interval"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "accuracy": ["accuracy_by_bucket", "paired_by_bucket"],
        "divergence": ["first_token_kl"],
        "statistics": ["paired_difference", "score_interval"],
    },
)
