"""How far a tuned model's first answer token has moved from the base model's (paper, section 4.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sftlab.errors import UserError

Floats = npt.NDArray[np.float64]


def first_token_kl(tuned_logits: npt.ArrayLike, base_logits: npt.ArrayLike) -> Floats:
    """KL(p || p') in nats for every fact, p = softmax(tuned), p' = softmax(base) over the same k tokens.

    Args:
        tuned_logits: [n, k], the tuned model's k largest logits of a fact (the study: k = 10).
        base_logits: [n, k], the base model's logits at the same k tokens, in the same order.

    Returns: float64 [n], never negative; 0 exactly where the two rows differ by a constant alone.

    Raises UserError where a logit is not finite: one of the models is broken.
    """
    tuned = np.asarray(tuned_logits, dtype=np.float64)
    base = np.asarray(base_logits, dtype=np.float64)
    assert tuned.ndim == 2 and tuned.shape == base.shape and tuned.shape[1] > 0
    for name, logits in (("tuned", tuned), ("base", base)):
        wrong = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if wrong.size:
            raise UserError(
                f"the {name} model's logits of fact row {wrong[0]} (of {len(logits)}) are not finite",
                advice=f"check the {name} model's weights for NaN or infinity.",
            )
    log_p, log_q = _log_softmax(tuned), _log_softmax(base)
    divergence: Floats = np.sum(np.exp(log_p) * (log_p - log_q), axis=1)
    return np.maximum(divergence, 0.0)  # rounding alone can leave -1e-17


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
