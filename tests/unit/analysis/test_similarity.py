"""Similarity of the words of two collections."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from sftlab.analysis.similarity import cosine, mean_embedding, tfidf_similarity


def test_equal_collections_are_alike_and_disjoint_ones_are_not() -> None:
    texts = [["a", "b"], ["c"]]
    assert tfidf_similarity(texts, texts) == pytest.approx(1.0)
    assert tfidf_similarity(texts, [["x", "y"]]) == 0.0


def test_cosine_of_two_texts_by_hand() -> None:
    # "a" is in both texts, "b" and "c" in one each: weights 1 and ln(3 / 2) + 1.
    rare = log(3 / 2) + 1
    length = sqrt(1 + rare * rare)
    assert tfidf_similarity([["a", "b"]], [["a", "c"]]) == pytest.approx(1 / (length * length))


def test_long_text_counts_as_much_as_a_short_one() -> None:
    other = [["a"], ["z"]]
    assert tfidf_similarity([["a"], ["b"] * 50], other) == pytest.approx(
        tfidf_similarity([["a"], ["b"]], other)
    )


def test_collection_without_words_has_no_similarity() -> None:
    assert tfidf_similarity([[]], [["a"]]) is None


TABLE = np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 2.0]])
CENTRE = np.array([1.0, 0.0])


def test_mean_embedding_gives_every_text_length_1_by_hand() -> None:
    # Less the centre, the tokens are (0, 0), (2, 0) and (0, 2); the first text has the mean (1, 1).
    found = mean_embedding([[1, 2], [2, 2, 2], []], TABLE, CENTRE)
    assert found == pytest.approx([sqrt(0.5) / 2, (sqrt(0.5) + 1) / 2])


def test_texts_without_tokens_or_direction_have_no_embedding() -> None:
    assert mean_embedding([[], [0]], TABLE, CENTRE) is None


def test_cosine_of_vectors_and_of_what_is_not_known() -> None:
    assert cosine(np.array([1.0, 0.0]), np.array([2.0, 2.0])) == pytest.approx(sqrt(0.5))
    assert cosine(None, CENTRE) is None and cosine(CENTRE, np.zeros(2)) is None
