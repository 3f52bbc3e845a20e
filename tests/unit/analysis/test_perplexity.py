"""Perplexity and bits per byte by hand."""

from __future__ import annotations

from math import inf, log, nan

import pytest

from sftlab.analysis.perplexity import bits_per_byte, perplexity, perplexity_by_text
from tests.support.refusals import refused


def test_perplexity_weights_texts_by_their_tokens() -> None:
    # Three tokens of probability 1/2 and one of 1/16: the mean of their logarithms is -(3 + 4)/4 bits.
    sums = [3 * log(1 / 2), log(1 / 16)]
    assert perplexity(sums, [3, 1]) == pytest.approx(2 ** (7 / 4), rel=1e-15)
    assert perplexity_by_text(sums, [3, 1]).tolist() == pytest.approx([2.0, 16.0], rel=1e-15)


def test_bits_per_byte_are_those_of_all_texts_over_their_bytes() -> None:
    # 3 bits in 4 bytes and 4 bits in 10 bytes.
    assert bits_per_byte([3 * log(1 / 2), log(1 / 16)], [4, 10]) == pytest.approx(7 / 14, rel=1e-15)


def test_bits_per_byte_do_not_depend_on_how_a_text_is_cut_into_tokens() -> None:
    whole, halves = log(1 / 256), [log(1 / 16), log(1 / 16)]
    assert bits_per_byte([whole], [8]) == pytest.approx(bits_per_byte([sum(halves)], [8]), rel=1e-15) == 1.0
    assert perplexity([whole], [1]) == pytest.approx(256.0)
    assert perplexity([sum(halves)], [2]) == pytest.approx(16.0)


def test_a_certain_text_has_perplexity_1_and_an_impossible_one_is_infinite_and_not_an_overflow() -> None:
    assert perplexity([0.0], [5]) == 1.0 and bits_per_byte([0.0], [5]) == 0.0
    assert perplexity([-1e6], [1]) == inf and perplexity_by_text([-1e6], [1]).tolist() == [inf]


@pytest.mark.parametrize(
    ("sums", "counts", "message"),
    [
        ([], [], "no text has tokens"),
        ([-1.0, nan], [1, 1], r"row 1 \(of 2\) is not finite"),
        ([-1.0, -inf], [1, 1], r"row 1 \(of 2\) is not finite"),
        ([13.4, -1.0], [1, 1], r"row 0 \(of 2\) is above 0: 13\.4"),
        ([-1.0, -1.0], [2, 0], r"row 1 \(of 2\) has 0 tokens"),
    ],
)
def test_log_likelihoods_that_cannot_be_are_named(sums: list[float], counts: list[int], message: str) -> None:
    for measure in (perplexity, perplexity_by_text):
        with refused(message):
            measure(sums, counts)
    with refused(message.replace("tokens", "bytes")):
        bits_per_byte(sums, counts)
