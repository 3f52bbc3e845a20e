"""How alike two collections of texts are in their words: cosine of their mean TF-IDF vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log, sqrt


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
