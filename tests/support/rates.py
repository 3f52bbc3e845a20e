"""Rates by which GPU hours of a plan can be computed by hand."""

from __future__ import annotations

from sftlab.execution.runtime import Rates

BILLION = 1_000_000_000
# A rate of 1 TFLOP/s makes 1 G weights x 2 operations x 500 tokens one second.
RATES = Rates(
    peak_tflops=1,
    training_share=1,
    prefill_share=1,
    decode_share=0.5,
    gigabytes_per_second=1,
    engine_start_seconds=10,
)
