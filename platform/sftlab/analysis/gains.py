"""Gains of fine-tuned models over their base models, and the treatments that make gains comparable.

Axes everywhere: models, training sets, benchmarks. Scores are in the units of their benchmark.

Four treatments, from the gain as it is to one that no baseline can change:

    raw             g = s - s0
    standardised    g / sd_b, with sd_b the population standard deviation of the benchmark's gains
    baseline-free   g less its mean over the training sets of the same model and benchmark, then divided by the
                    population standard deviation of the benchmark: s0 drops out
    double-centred  the baseline-free gain less its mean over the benchmarks of the same model and training set

Raw gains of benchmarks with different units (a share, a grade from 1 to 10, per cent) do not average.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from sftlab.errors import UserError

Floats = npt.NDArray[np.float64]

RAW: Final = "raw"
STANDARDISED: Final = "standardised"
BASELINE_FREE: Final = "baseline-free"
DOUBLE_CENTRED: Final = "double-centred"
TREATMENTS: Final = (RAW, STANDARDISED, BASELINE_FREE, DOUBLE_CENTRED)


def gains(scores: npt.ArrayLike, base: npt.ArrayLike) -> Floats:
    """g(m, d, b) = s(m, d, b) - s0(m, b) (Harada et al. 2025, section 4.1).

    Args:
        scores: [models, sets, benchmarks].
        base: [models, benchmarks], the scores before fine-tuning.

    Raises UserError where the shapes do not match.
    """
    tuned, before = np.asarray(scores, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if tuned.ndim != 3 or before.shape != (tuned.shape[0], tuned.shape[2]):
        raise UserError(
            f"scores of shape {tuned.shape} do not match baselines of shape {before.shape}",
            value=(tuned.shape, before.shape),
            expected="[models, sets, benchmarks] and [models, benchmarks]",
        )
    return tuned - before[:, None, :]


def spread_by_benchmark(values: npt.ArrayLike) -> Floats:
    """sd_b: the population standard deviation over all but the last axis; 1 where a benchmark is constant."""
    cells = np.asarray(values, dtype=np.float64)
    spread: Floats = cells.reshape(-1, cells.shape[-1]).std(axis=0)
    # A constant benchmark has deviations of rounding alone, which must not be blown up to 1.
    scale = np.abs(cells).reshape(-1, cells.shape[-1]).max(axis=0)
    return np.where(spread > 1e-12 * np.maximum(scale, 1e-300), spread, 1.0)


def standardised(values: npt.ArrayLike) -> Floats:
    """Gains in standard deviations of their benchmark: g / sd_b, [models, sets, benchmarks]."""
    cells = np.asarray(values, dtype=np.float64)
    result: Floats = cells / spread_by_benchmark(cells)
    return result


def centred_over_sets(values: npt.ArrayLike) -> Floats:
    """g less its mean over the sets of the same model and benchmark, in the units of the benchmark."""
    cells = np.asarray(values, dtype=np.float64)
    result: Floats = cells - cells.mean(axis=1, keepdims=True)
    return result


def baseline_free(values: npt.ArrayLike) -> Floats:
    """Centred over sets, then standardised: the same for any baseline, [models, sets, benchmarks]."""
    return standardised(centred_over_sets(values))


def double_centred(values: npt.ArrayLike) -> Floats:
    """The baseline-free gain less its mean over benchmarks of the same model and set."""
    free = baseline_free(values)
    result: Floats = free - free.mean(axis=2, keepdims=True)
    return result


def treated(name: str, values: npt.ArrayLike) -> Floats:
    """The gains [models, sets, benchmarks] in the named treatment of `TREATMENTS`."""
    treatments = {
        RAW: lambda cells: np.asarray(cells, dtype=np.float64),
        STANDARDISED: standardised,
        BASELINE_FREE: baseline_free,
        DOUBLE_CENTRED: double_centred,
    }
    return treatments[name](values)


def min_max_scaled(means: npt.ArrayLike) -> Floats:
    """Each column scaled to [-1, 1] by 2 (x - min) / (max - min) - 1 (Figures 2a and 2b); 0 where constant.

    Args:
        means: [sets, benchmarks].
    """
    table = np.asarray(means, dtype=np.float64)
    low, high = table.min(axis=0), table.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    return np.where(high > low, 2 * (table - low) / width - 1, 0.0)
