"""Grid, random and sampler over trials of any study: what they list, run, count and cost."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.execution.cost import Cost
from sftlab.files import write_text
from sftlab.sweeps.outcome import Outcome
from sftlab.sweeps.records import done_marker, write_record
from sftlab.sweeps.search import HalvingSpec, Range
from sftlab.sweeps.searches import SEARCHES, Grid, Random, Sampler, Search, search_of
from tests.support.toy_sweep import Toy, ToySearch, ToyTrials

FOUR = [(left, right) for left in (1.0, 2.0) for right in (10, 20)]


def search(tmp_path: Path, toys: ToyTrials | None = None, halving: int = 0, **spec: Any) -> Search[Toy]:
    """A search over toy trials. halving: its greatest number of epochs, 0 for none."""
    rungs = HalvingSpec(max_epochs=halving) if halving else None
    made = toys or ToyTrials((1,) if rungs is None else rungs.rungs)
    return search_of(made, ToySearch(**spec), rungs, "toy", tmp_path / "trials")


@dataclass(frozen=True)
class Prices:
    """A toy trial generates its right number of tokens and has a ladder of a tenth of it."""

    def trials(self, trials: Iterable[Toy]) -> Cost:
        return Cost(generated_tokens=sum(toy.right for toy in trials))

    def models(self, trial: Toy) -> int:
        return trial.right // 10

    def missing(self, trials: Iterable[Toy]) -> tuple[list[str], Cost]:
        found = list(trials)
        return [f"{len(found)} toys"], self.trials(found)


def test_every_kind_of_search_has_a_class() -> None:
    kinds = ToySearch.model_fields["kind"].annotation
    assert {"grid": Grid, "random": Random, "optuna": Sampler} == SEARCHES
    assert set(SEARCHES) == set(kinds.__args__)  # type: ignore[union-attr]


def test_a_grid_lists_each_trial_once(tmp_path: Path) -> None:
    twice = ToyTrials(left=(1.0, 2.0, 1.0))
    listed = list(search(tmp_path, twice).listed())
    assert [(toy.left, toy.right, toy.seed) for toy in listed] == [(*two, s) for s in (0, 1) for two in FOUR]
    assert not search(tmp_path).spec.walks_ranges


def test_random_draws_are_those_of_their_number_and_seed(tmp_path: Path) -> None:
    made = search(tmp_path, ToyTrials(left=Range(low=1, high=3)), kind="random", trials=3, seed=7)
    expected = []
    for number in range(3):
        draw = random.Random(f"7/{number}")
        left = 1 + 2 * draw.random()
        right = (10, 20)[draw.randrange(2)]
        expected += [(left, right, 0), (left, right, 1)]
    assert [(toy.left, toy.right, toy.seed) for toy in made.listed()] == expected
    assert made.spec.walks_ranges


def test_halving_runs_the_seeds_of_a_point_as_one_entry(tmp_path: Path) -> None:
    assert [len(entry) for entry in search(tmp_path).entries()] == [1] * 8
    entries = list(search(tmp_path, halving=2, metric="total").entries())
    assert [[(toy.left, toy.right, toy.seed) for toy in entry] for entry in entries] == [
        [(*two, 0), (*two, 1)] for two in FOUR
    ]


def test_listed_points_are_the_pending_entries_also_in_another_process(tmp_path: Path) -> None:
    made = search(tmp_path)
    pending = list(made.entries())[5:]
    points = pickle.loads(pickle.dumps(made.points(pending)))
    assert points.count == 3 and points.trials_of({"trial": 1}) == pending[1]
    assert points.done_markers({"trial": 1}, "draw") == [done_marker(made.records, pending[1][0])]
    space, algorithm, samples = points.draw([{"trial": 2}])
    assert (space["trial"], algorithm, samples) == ({"grid_search": [2]}, None, 1)
    assert points.draw(None)[0]["trial"] == {"grid_search": [0, 1, 2]}


def test_a_sampler_lists_nothing_and_counts_points_by_their_marks(tmp_path: Path) -> None:
    made = search(tmp_path, kind="optuna", trials=3, metric="total")
    assert list(made.listed()) == list(made.entries()) == []
    config = {"left": 1.0, "right": 10}
    assert made.points(()).count == made.left((), bool) == 3
    for draw in ("one", "two"):  # the same point, drawn twice
        (marker,) = made.points(()).done_markers(config, draw)
        write_text(marker, "")
    points = pickle.loads(pickle.dumps(made.points(())))
    assert points.count == made.left((), bool) == 1
    assert [toy.seed for toy in points.trials_of(config)] == [0, 1]


def test_finished_trials_of_a_listed_search_are_all_or_with_halving_the_recorded_rungs(
    tmp_path: Path,
) -> None:
    plain = search(tmp_path)
    assert plain.finished(list(plain.listed())) == list(plain.listed())
    halved = search(tmp_path, halving=4, metric="total")
    first = next(halved.listed())
    for rung in halved.trials.rungs_of(first)[:2]:
        write_record(halved.records, rung, {"trial": 0}, Outcome({0.0: 0.1}, 0.0, 0.1))
    assert [(toy.name, toy.epochs) for toy in halved.finished(list(halved.listed()))] == [
        ("1+10-seed0-epochs1", 1),
        ("1+10-seed0-epochs2", 2),
    ]


def test_finished_trials_of_a_sampler_are_those_of_its_records(tmp_path: Path) -> None:
    made = search(tmp_path, kind="optuna", trials=3, metric="total")
    config = {"left": 2.0, "right": 20}
    for toy in made.trials.trials_of(config):
        write_record(made.records, toy, config, Outcome({0.0: 0.2}, 0.0, 0.2))
    assert made.finished([]) == [Toy(2.0, 20, 0), Toy(2.0, 20, 1)]


def test_a_listed_search_costs_its_trials_and_a_sampler_its_most_expensive_point(tmp_path: Path) -> None:
    grid = search(tmp_path)
    assert grid.cost(Prices()).generated_tokens == 2 * 2 * (10 + 20)
    assert grid.sizes(Prices()) == (8, 4 * (1 + 2))
    assert search(tmp_path, halving=4, metric="total").sizes(Prices()) == (
        24,
        3 * 4 * (1 + 2),
    )  # rungs of 1, 2, 4 epochs
    assert (grid.plan(Prices()).lines, grid.plan(Prices()).at_most) == (["8 toys"], False)
    sampler = search(tmp_path, kind="optuna", trials=5, metric="total")
    assert sampler.cost(Prices()).generated_tokens == 5 * 2 * 20
    assert sampler.sizes(Prices()) == (10, 10 * 2)
    write_text(done_marker(sampler.records, Toy(1.0, 10, 0), "a"), "")
    plan = sampler.plan(Prices())
    assert plan.lines == ["sweep toy: Optuna chooses 5 points, 1 are finished"]
    assert (plan.cost.generated_tokens, plan.at_most) == (4 * 2 * 20, True)
