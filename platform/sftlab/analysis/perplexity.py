"""Perplexity of a set of texts, from the log-likelihood of each.

`response` counts the tokens of responses given their prompts, `full` all tokens of a text after the first. They are the
same formula on other rows. Bits per byte do not depend on the tokenizer, so they compare models of different
vocabularies.
"""

from __future__ import annotations

from math import exp, fsum, inf, log

import numpy as np
import numpy.typing as npt

from sftlab.errors import UserError


def perplexity(log_likelihoods: npt.ArrayLike, tokens: npt.ArrayLike) -> float:
    """exp of the mean negative log-likelihood of a token, over all tokens of all texts.

    Args:
        log_likelihoods: [n], sum over the tokens of each text, in nats.
        tokens: [n], how many tokens each sum is of.

    Returns: at least 1 for a model whose probabilities are at most 1; infinite where a float cannot hold it.

    Raises UserError without tokens, and where a log-likelihood is not finite or is above 0.
    """
    mean = -_total(log_likelihoods, tokens, "tokens")
    return exp(mean) if mean < log(np.finfo(np.float64).max) else inf


def bits_per_byte(log_likelihoods: npt.ArrayLike, utf8_bytes: npt.ArrayLike) -> float:
    """Mean negative log-likelihood of a byte in bits, over all bytes of all texts.

    Args:
        log_likelihoods: [n], sum over the tokens of each text, in nats.
        utf8_bytes: [n], length of each text in UTF-8.

    Raises as `perplexity` does.
    """
    return -_total(log_likelihoods, utf8_bytes, "bytes") / log(2)


def perplexity_by_text(log_likelihoods: npt.ArrayLike, tokens: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """`perplexity` of each text alone: float64 [n]. Raises as `perplexity` does."""
    sums, counts = _checked(log_likelihoods, tokens, "tokens")
    with np.errstate(over="ignore"):
        found: npt.NDArray[np.float64] = np.exp(-sums / counts)
    return found


def _total(log_likelihoods: npt.ArrayLike, counts: npt.ArrayLike, what: str) -> float:
    """Mean log-likelihood of one unit."""
    sums, sizes = _checked(log_likelihoods, counts, what)
    return fsum(sums) / int(sizes.sum())


def _checked(
    log_likelihoods: npt.ArrayLike, counts: npt.ArrayLike, what: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    sums = np.asarray(log_likelihoods, dtype=np.float64)
    sizes = np.asarray(counts, dtype=np.int64)
    assert sums.ndim == 1 and sums.shape == sizes.shape
    if not sums.size:
        raise UserError(f"no text has {what}", expected="the log-likelihood of at least one")
    for wrong, why in ((~np.isfinite(sums), "is not finite"), (sums > 0, "is above 0")):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise UserError(
                f"the log-likelihood of row {row} (of {len(sums)}) {why}: {sums[row]}",
                value=float(sums[row]),
                expected="a finite number of at most 0",
                advice="check the model's weights for NaN or infinity.",
            )
    if (sizes < 1).any():
        row = int(np.flatnonzero(sizes < 1)[0])
        raise UserError(
            f"row {row} (of {len(sizes)}) has {sizes[row]} {what}",
            value=int(sizes[row]),
            expected="at least 1",
        )
    return sums, sizes
