"""Candidates before training: read, ordered by what is known, with honest ties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sftlab.analysis.ranking import Known
from sftlab.cli.rank import spread
from sftlab.errors import UserError
from sftlab.studies.survey.known_gains import KnownGains
from sftlab.studies.survey.rank import Candidate, names_of, rank, ranking_json, ties
from sftlab.studies.survey.rank_text import ranking_text

NOTHING = KnownGains(Known([], [], np.zeros((0, 2)), np.zeros(0)), (), ())


class Table:
    """Log-likelihoods of responses, as an engine measures them."""

    def __init__(self, losses: list[float]) -> None:
        self.rows = [
            {"key": f"response/{n}/0", "log_likelihood": -2 * loss, "tokens": 2, "bytes": 8, "error": None}
            for n, loss in enumerate(losses)
        ]

    def to_pylist(self) -> list[dict[str, Any]]:
        return self.rows


def candidate(name: str, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "name": name,
        "source": f"{name}.jsonl",
        "distinct": 40,
        "repeated": 0,
        "examples": 40,
        "too_long": 0,
        "tokens": 400,
        "conversations": (),
        "overlap": {"b.jsonl": (3, 20)},
        "similarity": {"b.jsonl": 0.25},
    }
    return Candidate(**{**values, **changes})


def ranked(losses: dict[str, list[float]], known: KnownGains = NOTHING) -> Any:
    return rank([candidate(name) for name in losses], [Table(found) for found in losses.values()], known)  # type: ignore[arg-type]


def test_without_surveys_the_order_is_by_perplexity_and_ties_are_said() -> None:
    rng = np.random.default_rng(0)
    alike = {name: (1 + 0.3 * rng.random(40)).tolist() for name in ("one", "two")}
    found = ranked({"far": [5.0 + 0.1 * n for n in range(40)], **alike})
    assert [one.candidate.name for one in found.ranked][2] == "far"
    assert [one.places for one in found.ranked] == [(1, 2), (1, 2), (3, 3)]
    assert ties(found) == "not distinguishable: 1-2" and found.prediction is None
    text = ranking_text(found, [None] * 3)
    assert "by perplexity" in text and "no survey" in text and "3 of 20, similarity 0.25" in text


def test_set_that_is_alone_at_the_top_is_named() -> None:
    found = ranked({"far": [5.0] * 40, "near": [1.0] * 40})
    assert ties(found) == "distinguishable: near is the first"
    assert found.ranked[0].perplexity["response"] == pytest.approx(np.e)
    assert found.ranked[0].response_interval == pytest.approx((np.e, np.e))


def test_surveys_predict_a_gain_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 4, (4, 8, 2))
    gains = 1 - 0.5 * x[..., 0] + 0.1 * rng.normal(size=8)
    names = [(f"m{m}", f"s{s}") for m in range(4) for s in range(8)]
    known = Known([m for m, _ in names], [s for _, s in names], x.reshape(-1, 2), gains.reshape(-1))
    found = ranked({"far": [3.0] * 40, "near": [1.0] * 40}, KnownGains(known, ("pocket",), ()))
    assert [one.candidate.name for one in found.ranked] == ["near", "far"]
    gain, low, high = found.ranked[0].gain
    assert low < gain < high and gain == pytest.approx(0.5, abs=0.15)
    assert ties(found) == "distinguishable: near is the first"
    data = json.loads(json.dumps(ranking_json(found, "m", [0.5, None])))
    assert data["by"] == "predicted gain" and data["prediction"]["r2_leave_one_model_out"] > 0.9
    assert data["candidates"][0]["predicted_gain"]["low"] == low
    assert "R2 for a base that the fit has not seen" in ranking_text(found, [0.5, None])


def test_set_of_which_nothing_can_be_scored_is_refused_by_name() -> None:
    table = Table([1.0])
    table.rows[0] |= {"log_likelihood": None, "tokens": None, "bytes": None, "error": "too long: 900 tokens"}
    with pytest.raises(UserError, match=r"one\.jsonl.*too long: 900 tokens"):
        rank([candidate("one")], [table], NOTHING)  # type: ignore[list-item]


def test_sets_of_one_name_are_called_by_their_paths_and_none_is_given_twice() -> None:
    assert names_of([Path("a/x.jsonl"), Path("b/x.jsonl"), Path("y.json.gz")]) == [
        "a/x.jsonl",
        "b/x.jsonl",
        "y",
    ]
    with pytest.raises(UserError, match="twice"):
        names_of([Path("x.jsonl"), Path("./x.jsonl")])


def test_options_of_rank_take_several_words() -> None:
    words = ["rank", "--model", "m", "--data", "a", "b", "c", "--benchmarks", "x", "y", "--json"]
    assert spread(words) == [
        "rank", "--model", "m", "--data", "a", "--data", "b", "--data", "c", "--benchmarks", "x", "--benchmarks", "y",
        "--json",
    ]  # fmt: skip
    assert spread(["rank", "--data", "a", "--data", "b"]) == ["rank", "--data", "a", "--data", "b"]
