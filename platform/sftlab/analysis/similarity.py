"""How alike two collections of texts are: cosine of their mean TF-IDF vectors, or of their mean embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def tfidf_similarity(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> float | None:
    """Cosine in [0, 1] of the mean TF-IDF vectors of two collections of texts, each given by its words.

    The inverse document frequency ln((1 + n) / (1 + df)) + 1 is that of both collections together, and every text has
    length 1. None where a collection has no words.
    """
    texts = [Counter(words) for words in (*one, *other)]
    frequency = Counter(word for text in texts for word in text)
    weight = {word: log((1 + len(texts)) / (1 + count)) + 1 for word, count in frequency.items()}
    means = [_mean(part, weight) for part in (texts[: len(one)], texts[len(one) :])]
    lengths = [sqrt(sum(value * value for value in mean.values())) for mean in means]
    if not all(lengths):
        return None
    first, second = means
    return sum(value * second.get(word, 0.0) for word, value in first.items()) / (lengths[0] * lengths[1])


def _mean(texts: Sequence[Counter[str]], weight: Mapping[str, float]) -> dict[str, float]:
    """The sum of the texts' vectors, which has the direction of their mean."""
    found: dict[str, float] = {}
    for text in texts:
        length = sqrt(sum((count * weight[word]) ** 2 for word, count in text.items()))
        for word, count in text.items():
            found[word] = found.get(word, 0.0) + count * weight[word] / length
    return found


def mean_embedding(
    texts: Iterable[Sequence[int]], table: npt.NDArray[np.floating[Any]], centre: Floats
) -> Floats | None:
    """The mean over texts of the direction of a text: the mean embedding of its tokens less `centre`, at length 1.

    Embeddings of all tokens share a large part, so that without a centre all texts are alike.

    Args:
        texts: token ids; a text without tokens is left out.
        table: [vocabulary, hidden], the input embeddings of a model.
        centre: [hidden], such as the mean of the table.

    None where no text has tokens.
    """
    total, found = np.zeros(table.shape[1], dtype=np.float64), 0
    for ids in texts:
        if not len(ids):
            continue
        mean = table[np.asarray(ids)].mean(axis=0, dtype=np.float64) - centre
        length = float(np.linalg.norm(mean))
        if length > 0:
            total += mean / length
            found += 1
    return total / found if found else None


def cosine(one: Floats | None, other: Floats | None) -> float | None:
    """Cosine of two vectors in [-1, 1]; None where one is not known or has no direction."""
    if one is None or other is None:
        return None
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths > 0 else None
