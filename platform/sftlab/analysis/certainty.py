"""How sure the mastery of a fact is: an interval of R, and the probability of its bucket.

A fact has hits h_t of N completions on each of T templates. Completions of one template are alike, so templates are the
units (clusters). All formulas take one fact a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVEL = 0.05
ROWS = 8192  # facts that are computed at a time


@dataclass(frozen=True)
class Certainty:
    """One number a fact. low, high: the 95 % interval of R.

    probability: that a re-draw of templates and completions gives the same bucket. redraw: that a re-draw of the
    completions of the same templates does.
    """

    low: Floats
    high: Floats
    probability: Floats
    redraw: Floats


def certainty(hits: npt.ArrayLike, samples: int) -> Certainty:
    """The certainty of facts that were asked by the same number of templates.

    hits: int [facts, templates], right completions of `samples`.
    """
    found = np.asarray(hits, np.int64)
    assert found.ndim == 2 and found.shape[1] and found.size == ((found >= 0) & (found <= samples)).sum()
    low, high = rate_interval(found, samples)
    both = np.empty((2, len(found)))
    for start in range(0, len(found), ROWS):
        both[:, start : start + ROWS] = _probabilities(found[start : start + ROWS], samples)
    return Certainty(low, high, both[0], both[1])


def rate_interval(hits: npt.ArrayLike, samples: int) -> tuple[Floats, Floats]:
    """The 95 % interval of R, templates as clusters: Student's t over the rates of the templates, within [0, 1].

    Where all templates have the same rate, which shows no spread, a template counts as one completion: at R = 0 and 1
    the interval is the exact binomial one (Clopper and Pearson 1934) of T completions, and else Wilson's.
    """
    from scipy.stats import beta, norm, t

    rates = np.asarray(hits, np.float64) / samples
    templates = rates.shape[1]
    mean = rates.mean(axis=1)
    spread = rates.std(axis=1, ddof=1) if templates > 1 else np.zeros(len(rates))
    half = (
        (float(t.ppf(1 - LEVEL / 2, templates - 1)) if templates > 1 else 0.0) * spread / np.sqrt(templates)
    )
    low, high = np.maximum(mean - half, 0.0), np.minimum(mean + half, 1.0)
    alike, z = spread == 0, float(norm.ppf(1 - LEVEL / 2))
    middle = (mean + z * z / (2 * templates)) / (1 + z * z / templates)
    around = z * np.sqrt(mean * (1 - mean) / templates + z * z / (4 * templates**2)) / (1 + z * z / templates)
    end = float(beta.ppf(1 - LEVEL / 2, 1, templates))
    low = np.where(alike, np.where(mean == 0, 0.0, np.where(mean == 1, 1 - end, middle - around)), low)
    high = np.where(alike, np.where(mean == 1, 1.0, np.where(mean == 0, end, middle + around)), high)
    return low, high


def _probabilities(hits: npt.NDArray[np.int64], samples: int) -> tuple[Floats, Floats]:
    """Probability of the same bucket when templates and completions are drawn again, and completions alone.

    The distribution of the sum of hits is exact: the characteristic function of a sum is the product of those of its
    parts. Every template is right with probability (h + 1 / 2T) / (N + 1 / T), which adds one completion, half of it
    right, to a fact (Jeffreys' prior), so that R = 0 is not taken for certain.
    """
    from scipy.stats import binom

    templates = hits.shape[1]
    total = templates * samples
    length = 1 << int(total).bit_length()
    levels = np.arange(samples + 1)
    rates = (levels + 0.5 / templates) / (samples + 1 / templates)
    waves = np.fft.rfft(binom.pmf(levels, samples, rates[:, None]), length)  # [level, frequency]
    counts = np.stack([(hits == level).sum(axis=1) for level in levels], axis=1)  # [fact, level]
    again = ((counts / templates) @ waves) ** templates
    same = np.ones((len(hits), waves.shape[1]), np.complex128)
    for level in levels:
        same *= waves[level] ** counts[:, level, None]
    buckets = -(-4 * np.arange(total + 1) // total)
    own = -(-4 * hits.sum(axis=1) // total)
    mine = buckets == own[:, None]
    found = (np.fft.irfft(wave, length)[:, : total + 1] for wave in (again, same))
    first, second = (np.clip((pmf * mine).sum(axis=1), 0.0, 1.0) for pmf in found)
    return first, second
