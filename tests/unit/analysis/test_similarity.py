"""Similarity of the words of two collections."""

from __future__ import annotations

from math import log, sqrt

import pytest

from sftlab.analysis.similarity import tfidf_similarity


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
