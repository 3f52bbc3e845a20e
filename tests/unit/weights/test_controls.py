"""The controls of a change: shuffled updates, change undone, and ladders of equal change, against whole arrays."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.weights.change_profile import controls_for, profile, read_profile
from sftlab.weights.cut import Ranking
from sftlab.weights.shuffle import shuffled
from tests.support.weights_models import (
    floor_count,
    ranked,
    shuffled_by_hand,
    small_stretches,
    write_checkpoint,
)

Tensors = dict[str, torch.Tensor]
PERCENTS = ("0", "10", "33.3", "60", "100")


@pytest.fixture(autouse=True)
def eight_weights_a_stretch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small_stretches(monkeypatch)
    yield


def name_of(index: int) -> str:
    return f"model.layers.{index}.mlp.{('up', 'down')[index % 2]}_proj.weight"


# Sums and squares of these are exact in float64, so that a boundary does not depend on how sums are grouped.
VALUES = st.sampled_from([0.0, -0.0, 0.25, 0.5, -0.5, 1.0, -1.0, 1.5, -2.0, 3.0])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensors, Tensors]:
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=3).filter(any))
    base, tuned = {}, {}
    for index, size in enumerate(sizes):
        base[name_of(index)], tuned[name_of(index)] = (
            torch.tensor(draw(st.lists(VALUES, min_size=size, max_size=size)), dtype=dtype) for _ in range(2)
        )
    return base, tuned


def written(folder: str, base: Tensors, tuned: Tensors) -> tuple[Path, Path]:
    return write_checkpoint(Path(folder) / "base", base), write_checkpoint(Path(folder) / "tuned", tuned)


def flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().numpy().ravel()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from(["a", "model.layers.0.w"]), st.integers(0, 60))
def test_a_shuffle_by_stretches_equals_the_definition_on_the_whole_parameter(seed, name, size) -> None:
    updates = np.arange(size, dtype=np.float32)
    found = shuffled(seed, name, updates)
    assert found.tolist() == shuffled_by_hand(seed, name, updates.tolist(), 8)
    assert sorted(found.tolist()) == updates.tolist()  # every update exactly once
    assert np.array_equal(shuffled(seed, name, updates), found)


def test_updates_come_from_all_of_the_parameter_and_differ_by_seed_and_name() -> None:
    updates = np.arange(800, dtype=np.float32)
    found = shuffled(1, "a", updates)
    came_from = found // 8 - updates // 8
    assert len(set(came_from.tolist())) > 50 and abs(np.corrcoef(found, updates)[0, 1]) < 0.35
    within = found.reshape(-1, 8) % 8
    assert len({tuple(row) for row in within.tolist()}) == 8  # all rotations of one order
    assert not np.array_equal(found, shuffled(2, "a", updates))
    assert not np.array_equal(found, shuffled(1, "b", updates))


@settings(max_examples=12, deadline=None)
@given(pairs(), st.sampled_from(["relative", "absolute"]), st.integers(0, 99))
def test_the_null_is_the_profile_of_shuffled_updates(pair, measure, seed) -> None:
    base, tuned = pair
    with TemporaryDirectory() as folder:
        one, two = written(folder, base, tuned)
        found = profile(one, two, PERCENTS, measure=measure, controls_seed=seed)
        assert controls_for(one, two, found, seed) == found.controls
    assert found.controls is not None
    null = found.controls.null
    assert null.seed == seed
    updates = {
        name: np.array(shuffled_by_hand(seed, name, (flat(tuned[name]) - flat(p)).tolist(), 8), np.float32)
        for name, p in base.items()
    }
    change = np.concatenate(
        [np.abs(updates[name]) / (np.abs(flat(p)) + np.float32(1e-8)) for name, p in base.items()]
    ).astype(np.float64)
    change = np.sort(change)[::-1]
    for percent, share in null.concentration.items():
        top = change[: floor_count(len(change), percent)].sum()
        assert share == pytest.approx(top / change.sum() if change.any() else 0.0, rel=1e-12)
    order = ranked(base, tuned, "shuffled", measure, seed, stretch=8)
    for percent in PERCENTS:
        chosen = order[: floor_count(len(order), percent)]
        expected = {
            str(index): sum(name == name_of(index) for name, _ in chosen) for index in range(len(base))
        }
        assert null.restored_by_layer[percent] == expected
        assert sum(null.restored_by_module[percent].values()) == len(chosen)


@settings(max_examples=12, deadline=None)
@given(
    pairs(), st.sampled_from(["top", "bottom", "smallest-base", "shuffled"]), st.sampled_from(["l1", "l2"])
)
def test_a_share_of_the_change_is_reached_by_as_few_first_weights_as_possible(pair, order, share_of) -> None:
    base, tuned = pair
    with TemporaryDirectory() as folder:
        one, two = written(folder, base, tuned)
        found = profile(one, two, PERCENTS, order=order, seed=3, share_of=share_of, controls_seed=0)
    places = ranked(base, tuned, order, seed=3, stretch=8)
    change = {name: np.abs(flat(tuned[name]) - flat(p)).astype(np.float64) for name, p in base.items()}
    amounts = {
        "relative": [
            float(change[name][at].astype(np.float32) / (abs(flat(base[name])[at]) + np.float32(1e-8)))
            for name, at in places
        ],
        "l1": [change[name][at] for name, at in places],
        "l2": [change[name][at] ** 2 for name, at in places],
    }
    total = sum(amounts[share_of])
    smaller = 0
    for percent in PERCENTS:
        cut = found.cuts[percent]
        target = float(np.float64(total) * float(percent) / 100)
        sums = np.cumsum([0.0, *amounts[share_of]])
        expected = next(count for count, amount in enumerate(sums) if amount >= min(target, total))
        assert (cut.count, cut.total) == (expected, len(places))
        assert smaller <= cut.count
        smaller = cut.count
        assert found.controls is not None
        undone = found.controls.undone[percent]
        for kind, values in amounts.items():
            whole = sum(values)
            share = sum(values[: cut.count]) / whole if whole else 0.0
            assert getattr(undone, kind) == pytest.approx(share, rel=1e-9, abs=1e-12)


def test_change_undone_by_hand(tmp_path: Path) -> None:
    base = {name_of(0): torch.tensor([1.0, 8.0, 2.0, 4.0])}
    tuned = {
        name_of(0): torch.tensor([2.0, 12.0, 2.5, 4.0])
    }  # changes 1, 4, 0.5, 0; relative 1, 0.5, 0.25, 0
    one, two = written(str(tmp_path), base, tuned)
    found = profile(one, two, ["25", "50"], controls_seed=0).controls
    assert found is not None
    quarter, half = found.undone["25"], found.undone["50"]
    assert (quarter.relative, half.relative) == pytest.approx((1 / 1.75, 1.5 / 1.75))
    assert (quarter.l1, half.l1) == pytest.approx((1 / 5.5, 5 / 5.5))
    assert (quarter.l2, half.l2) == pytest.approx((1 / 17.25, 17 / 17.25))
    by_change = profile(one, two, ["18", "19", "91"], share_of="l1")  # of 5.5: 0.99, 1.045 and 5.005
    assert [cut.count for cut in by_change.cuts.values()] == [1, 2, 3]
    assert profile(one, two, ["18"], order="smallest-base", share_of="l1").cuts["18"].count == 1
    assert profile(one, two, ["28"], order="smallest-base", share_of="l1").cuts["28"].count == 4


def test_a_pair_without_change_has_nothing_to_undo(tmp_path: Path) -> None:
    same = {name_of(0): torch.arange(20.0)}
    one, two = written(str(tmp_path), same, same)
    found = profile(one, two, ["50"], share_of="l2", controls_seed=0)
    assert found.cuts["50"].count == 0 and found.controls is not None
    assert vars(found.controls.undone["50"]) == {"relative": 0.0, "l1": 0.0, "l2": 0.0}
    assert set(found.controls.null.concentration.values()) == {0.0}


def test_controls_do_not_depend_on_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(5)
    base = {name_of(index): torch.randn(300, generator=draw).bfloat16() for index in range(3)}
    tuned = {
        name: (p.float() + 0.01 * torch.randn(300, generator=draw)).bfloat16() for name, p in base.items()
    }
    one, two = written(str(tmp_path), base, tuned)
    found = []
    for threads in (1, 4):
        monkeypatch.setattr("sftlab.weights.stream.thread_count", lambda threads=threads: threads)
        found.append(profile(one, two, ["5", "50"], order="random", share_of="l1", controls_seed=1).to_json())
    assert found[0] == found[1]


def test_controls_survive_json(tmp_path: Path) -> None:
    import json

    base = {name_of(0): torch.arange(9.0)}
    one, two = written(str(tmp_path), base, {name_of(0): torch.arange(9.0) * 1.5})
    found = profile(one, two, ["10"], share_of="l1", controls_seed=2)
    (tmp_path / "change.json").write_text(json.dumps(found.to_json()))
    assert read_profile(tmp_path / "change.json") == found
    assert not {"controls", "share_of"} & profile(one, two, ["10"]).to_json().keys()


def test_settings_without_effect_do_not_make_another_order() -> None:
    assert Ranking.of("smallest-base", 3, "absolute") == Ranking("smallest-base", 0, "relative")
    assert Ranking.of("shuffled", 3, "absolute") == Ranking("shuffled", 3, "absolute")
    assert Ranking.of("random", 3, "absolute") == Ranking("random", 3, "relative")
