"""Numbers that the results of a survey are made of."""

from __future__ import annotations

from math import exp, log

import pytest

from sftlab.studies.survey.stages.results import perplexities


def test_perplexities_count_tokens_of_all_texts_and_leave_errors_out() -> None:
    rows = [
        {"key": "response/0/0", "log_likelihood": -2.0, "tokens": 2, "bytes": 4, "error": None},
        {"key": "response/1/0", "log_likelihood": -4.0, "tokens": 1, "bytes": 2, "error": None},
        {"key": "full/0", "log_likelihood": -9.0, "tokens": 3, "bytes": 9, "error": None},
        {"key": "full/1", "log_likelihood": None, "tokens": None, "bytes": None, "error": "too long"},
    ]
    found = perplexities(rows)
    assert found["response"] == pytest.approx(exp(6 / 3))
    assert found["full"] == pytest.approx(exp(3))
    assert found["bits_per_byte"] == pytest.approx(6 / (6 * log(2)))
    assert (found["tokens"], found["errors"]) == (1.5, 1)


def test_set_without_scored_texts_has_no_perplexity() -> None:
    row = {"key": "response/0/0", "log_likelihood": None, "tokens": None, "bytes": None, "error": "too long"}
    assert perplexities([row]) == {
        "response": None,
        "full": None,
        "bits_per_byte": None,
        "tokens": None,
        "errors": 1,
    }
