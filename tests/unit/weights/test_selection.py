"""The exact selection: against sorting all weights, nestedness, ties, zeros, the seeded order."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.weights import stream
from sftlab.weights.bits import code_of, is_finite, raw_view, widen
from sftlab.weights.change import absolute_change, relative_change
from sftlab.weights.change_profile import ChangeProfile, profile, read_profile
from sftlab.weights.cut import Cut, Measure, percent_label, percent_labels, restored_count
from sftlab.weights.draws import random_keys
from sftlab.weights.edits import Restoration
from sftlab.weights.restoration import ModelSource, write_restored
from sftlab.weights.selection import is_restored_mask, mix
from tests.support.refusals import refused
from tests.support.weights_models import (
    floor_count,
    hashed,
    ranked,
    restored_by_hand,
    same_bits,
    small_stretches,
    stored,
    write_checkpoint,
)

T = TypeVar("T")
MEASURES = get_args(Measure)
PERCENTS = ("0", "0.1", "1", "2.5", "10", "33.3", "60", "99.99", "100")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stretches of a few elements, so that small tensors have several."""
    small_stretches(monkeypatch)
    yield


def masks(base: dict[str, torch.Tensor], tuned: dict[str, torch.Tensor], cut: Cut) -> set[tuple[str, int]]:
    chosen = set()
    for name, old in base.items():
        mask = is_restored_mask(name, old, tuned[name], cut)
        assert mask.shape == old.shape and mask.dtype == torch.bool
        chosen |= {(name, int(position)) for position in mask.reshape(-1).nonzero()}
    return chosen


def name_of(index: int) -> str:
    return f"model.layers.{index}.mlp.up_proj.weight"


# few distinct values, so that ties within and across tensors, unchanged weights and zeros are the rule
VALUES = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.0, 2.0, 3.0, 1e-3, -1e-30, 1e30])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    dtype = draw(st.sampled_from(DTYPES))
    values = VALUES.filter(lambda value: dtype != torch.float16 or abs(value) < 1e4)
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any))
    base, tuned = {}, {}
    for index, size in enumerate(sizes):
        base[name_of(index)], tuned[name_of(index)] = (
            torch.tensor(draw(st.lists(values, min_size=size, max_size=size)), dtype=dtype) for _ in range(2)
        )
        # 1e30 against 0 overflows the float32 change: a case of its own below
        tuned[name_of(index)][base[name_of(index)].abs() < 1e-20] %= 5.0
    return base, tuned


@settings(max_examples=40, deadline=None)
@given(
    pairs(),
    st.sampled_from(["top", "bottom", "smallest-base", "shuffled"]),
    st.sampled_from(MEASURES),
    st.integers(1, 3),
)
def test_every_cut_holds_exactly_the_first_weights_of_a_full_sort(pair, order, measure, shards) -> None:
    base, tuned = pair
    expected = ranked(base, tuned, order, measure, seed=7, stretch=8)
    with TemporaryDirectory() as folder:
        one = write_checkpoint(Path(folder) / "base", base, shards=min(shards, len(base)))
        two = write_checkpoint(Path(folder) / "tuned", tuned)
        found = profile(one, two, PERCENTS, order=order, measure=measure, seed=7)
        edits = {percent: Restoration(cut) for percent, cut in found.cuts.items()}
        write_restored(one, two, edits, Path(folder) / "out", shard_bytes=64)
        assert found.weights == len(expected)
        for percent in PERCENTS:
            cut = found.cuts[percent]
            count = floor_count(len(expected), percent)
            assert (cut.count, cut.total) == (count, len(expected))
            chosen = masks(base, tuned, cut)
            assert chosen == set(expected[:count])
            assert sum(found.restored_by_layer[percent].values()) == count
            written = stored(Path(folder) / "out" / f"restored-{percent}")
            on_the_fly = dict(ModelSource(str(one), str(two), edits[percent]).tensors())
            for name in base:
                mask = is_restored_mask(name, base[name], tuned[name], cut)
                by_hand = torch.where(mask, base[name], tuned[name])
                assert same_bits(written[name], by_hand) and same_bits(on_the_fly[name], by_hand)


@settings(max_examples=20, deadline=None)
@given(pairs(), st.sampled_from(["top", "bottom"]), st.sampled_from(MEASURES), st.data())
def test_layers_narrow_the_region_and_nothing_else(pair, order, measure, data) -> None:
    base, tuned = pair
    full = [index for index in range(len(base)) if base[name_of(index)].numel()]
    chosen = data.draw(st.sets(st.integers(0, len(base) - 1)).filter(lambda some: some & set(full)))
    layers = ",".join(str(index) for index in data.draw(st.permutations(sorted(chosen))))
    inside = {name_of(index) for index in chosen}
    with TemporaryDirectory() as folder:
        one = write_checkpoint(Path(folder) / "base", base)
        two = write_checkpoint(Path(folder) / "tuned", tuned)
        found = profile(one, two, ["0", "40", "100"], order=order, measure=measure, layers=layers)
        edits = {percent: Restoration(cut) for percent, cut in found.cuts.items()}
        write_restored(one, two, edits, Path(folder) / "out")
        for percent, edit in edits.items():
            expected = restored_by_hand(base, tuned, percent, lambda name: name in inside, order, measure)
            written = stored(Path(folder) / "out" / f"restored-{percent}")
            on_the_fly = dict(ModelSource(str(one), str(two), edit).tensors())
            assert all(same_bits(written[name], expected[name]) for name in base)
            assert all(same_bits(on_the_fly[name], expected[name]) for name in base)
            assert {name for name, _ in masks(base, tuned, edit.cut)} <= inside


def test_cuts_of_different_measures_and_layers_are_written_in_one_pass(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    base = {name_of(index): torch.randn(30, generator=draw) for index in range(3)}
    tuned = {name: p + 0.1 * torch.randn(30, generator=draw) for name, p in base.items()}
    one, two = write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned)
    kinds = [(measure, layers) for measure in MEASURES for layers in ("0-2", "0", "1")]
    cuts = [profile(one, two, ["30"], measure=measure, layers=layers).cuts["30"] for measure, layers in kinds]
    write_restored(one, two, {f"{i}": Restoration(cut) for i, cut in enumerate(cuts)}, tmp_path / "out")
    results = [stored(tmp_path / "out" / f"restored-{i}") for i in range(len(kinds))]
    for written, (measure, layers) in zip(results, kinds, strict=True):
        inside = base.keys() if layers == "0-2" else {name_of(int(layers))}
        expected = restored_by_hand(base, tuned, "30", inside.__contains__, measure=measure)
        assert all(same_bits(written[name], expected[name]) for name in base)
    assert not torch.equal(results[0][name_of(0)], results[3][name_of(0)])


def test_concentration_is_of_the_relative_change_whatever_ranks(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", {name_of(0): torch.tensor([1.0, 100.0, 2.0])})
    tuned = write_checkpoint(tmp_path / "tuned", {name_of(0): torch.tensor([1.5, 110.0, 2.0])})
    by_size, by_share = (
        profile(base, tuned, ["34"], measure=measure) for measure in ("absolute", "relative")
    )
    assert by_size.concentration == by_share.concentration
    assert by_size.total_change == by_share.total_change == pytest.approx(0.6)
    assert (by_size.cuts["34"].tie_position, by_share.cuts["34"].tie_position) == (2, 1)


@pytest.mark.parametrize(
    ("layers", "message"), [("0,2", "layer 2.*2 layers, 0 to 1"), ("1-0", "such as 0-3")]
)
def test_layers_that_the_model_lacks_are_refused(layers: str, message: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "base", {name_of(index): torch.ones(3) for index in range(2)})
    with pytest.raises(UserError, match=message):
        profile(folder, folder, ["10"], layers=layers)


def test_layers_without_a_weight_of_the_region_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "base", {name_of(0): torch.ones(3), "lm_head.weight": torch.ones(3)})
    with refused("region embeddings within layers 0 selects no parameter"):
        profile(folder, folder, ["10"], region="embeddings", layers="0")


@settings(max_examples=8, deadline=None)
@given(pairs(), st.integers(0, 2**40))
def test_the_random_order_is_nested_complete_and_independent_of_values_and_shards(pair, seed) -> None:
    base, tuned = pair
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    with TemporaryDirectory() as folder:
        one = write_checkpoint(Path(folder) / "base", base, shards=len(base))
        two = write_checkpoint(Path(folder) / "tuned", tuned)
        three = write_checkpoint(Path(folder) / "zeros", zeros)
        found = profile(one, two, PERCENTS, order="random", seed=seed)
        blind = profile(three, three, PERCENTS, order="random", seed=seed)
    assert found.cuts == blind.cuts
    smaller: set[tuple[str, int]] = set()
    for percent in PERCENTS:
        chosen = masks(base, tuned, found.cuts[percent])
        assert len(chosen) == floor_count(found.weights, percent)
        assert smaller <= chosen
        smaller = chosen


def test_a_single_weight_is_restored_at_100_percent_alone(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", {name_of(0): torch.tensor([2.0])})
    tuned = write_checkpoint(tmp_path / "tuned", {name_of(0): torch.tensor([3.0])})
    found = profile(base, tuned, ["0", "99.999", "100"])
    counts = {percent: cut.count for percent, cut in found.cuts.items()}
    assert counts == {"0": 0, "99.999": 0, "100": 1}
    assert found.total_change == pytest.approx(0.5)


def test_ties_go_to_the_first_name_then_the_first_position(tmp_path: Path) -> None:
    names = [name_of(10), name_of(2), name_of(1)]  # sorted as text: 1, 10, 2
    base = {name: torch.ones(2, 3) for name in names}
    tuned = {name: torch.full((2, 3), 2.0) for name in names}
    found = profile(
        write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned), ["50"]
    )
    first, second = [(name_of(1), position) for position in range(6)], [(name_of(10), 0), (name_of(10), 1)]
    assert masks(base, tuned, found.cuts["50"]) == {*first, *second, (name_of(10), 2)}


def test_unchanged_models_have_no_change_and_can_be_cut(tmp_path: Path) -> None:
    weights = {name_of(0): torch.tensor([0.0, -1.0, 5.0, 7.0])}
    folder = write_checkpoint(tmp_path / "base", weights)
    found = profile(folder, folder, ["50"])
    assert (found.changed, found.total_change) == (0, 0.0)
    assert set(found.concentration.values()) == {0.0}
    assert masks(weights, weights, found.cuts["50"]) == {(name_of(0), 0), (name_of(0), 1)}


def test_relative_change_by_hand() -> None:
    base = np.array([1.0, -2.0, 0.0, 4.0], dtype=np.float32)
    tuned = np.array([1.5, -1.0, 3e-8, 4.0], dtype=np.float32)
    kept = base.copy()
    expected = np.array([0.5, 0.5, 3.0, 0.0], dtype=np.float32)
    change = relative_change(base, tuned)
    np.testing.assert_allclose(change, expected, rtol=1e-7)
    assert change.dtype == np.float32 and np.array_equal(base, kept)
    assert np.array_equal(relative_change(base, tuned, out=tuned, scratch=base), change)


def test_absolute_change_by_hand() -> None:
    base = np.array([1.0, -2.0, 0.0, 4.0], dtype=np.float32)
    tuned = np.array([1.5, -1.0, -3e-8, 4.0], dtype=np.float32)
    expected = np.array([0.5, 1.0, 3e-8, 0.0], dtype=np.float32)
    change = absolute_change(base, tuned)
    assert change.dtype == np.float32 and np.array_equal(change, expected)
    assert np.array_equal(absolute_change(base, tuned, out=tuned), change)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_widens_to_its_float32(dtype: torch.dtype) -> None:
    whole = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    tensor = whole.view(dtype) if dtype.itemsize == 2 else whole.float().exp2()
    wide = widen(raw_view(tensor), code_of(tensor), np.empty(tensor.numel(), dtype=np.float32))
    np.testing.assert_array_equal(wide, tensor.float().numpy())
    finite = [is_finite(raw_view(tensor[index : index + 1]), code_of(tensor)) for index in range(0, 2**16, 7)]
    assert finite == torch.isfinite(tensor[::7]).tolist()


def test_concentration_equals_sums_over_a_sort(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(3)
    base = {
        name_of(0): torch.randn(50, 40, generator=draw) * 0.02,
        name_of(1): torch.randn(777, generator=draw),
    }
    tuned = {name: p + torch.randn(p.shape, generator=draw) * 1e-3 for name, p in base.items()}
    found = profile(
        write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned), ["10"]
    )
    change = np.concatenate(
        [relative_change(base[n].numpy(), tuned[n].numpy()).ravel() for n in base]
    ).astype(np.float64)
    change = np.sort(change)[::-1]
    assert found.total_change == pytest.approx(change.sum(), rel=1e-12)
    for percent, share in found.concentration.items():
        top = change[: floor_count(len(change), percent)].sum()
        assert share == pytest.approx(top / change.sum(), rel=1e-12)


def test_random_keys_are_reproducible_positional_and_uniform() -> None:
    whole = random_keys(7, "a", 0, 100_000)
    assert np.array_equal(random_keys(7, "a", 40, 10), whole[40:50])
    assert not np.array_equal(random_keys(8, "a", 0, 100), whole[:100])
    assert not np.array_equal(random_keys(7, "b", 0, 100), whole[:100])
    counts = np.histogram(whole, bins=16, range=(0, 2**31))[0]
    assert counts.sum() == 100_000 and abs(counts - 6250).max() < 400  # five standard deviations


def test_splitmix64_finaliser_equals_python_integers() -> None:
    assert random_keys(5, "name", 0, 20).tolist() == [hashed(5, "name", position) for position in range(20)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_mix_takes_bits_not_numbers(dtype: torch.dtype) -> None:
    base = torch.tensor([-0.0, 1.0, -0.0, 3.0], dtype=dtype)
    tuned = torch.tensor([0.0, 2.0, 5.0, -7.0], dtype=dtype)
    old, new = raw_view(base), raw_view(tuned)
    mixed = mix(np.array([True, False, True, False]), old ^ new, new, np.empty_like(new))
    assert np.array_equal(mixed, raw_view(torch.tensor([-0.0, 2.0, -0.0, -7.0], dtype=dtype)))


def test_results_do_not_depend_on_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(5)
    base = {name_of(index): torch.randn(300, generator=draw).bfloat16() for index in range(3)}
    tuned = {name: (p.float() * 1.01).bfloat16() for name, p in base.items()}
    one, two = write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned)
    alone, several = (
        stream_with(monkeypatch, threads, lambda: profile(one, two).to_json()) for threads in (1, 4)
    )
    assert alone == several


def stream_with(monkeypatch: pytest.MonkeyPatch, threads: int, work: Callable[[], T]) -> T:
    with monkeypatch.context() as patch:
        patch.setattr("sftlab.weights.stream.thread_count", lambda: threads)
        return work()


def test_ray_and_users_bound_the_threads_by_omp_num_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert stream.thread_count() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert 1 <= stream.thread_count() <= 16


def test_an_error_of_a_worker_is_raised_and_stops_the_walk() -> None:
    class Worker(stream.Worker):
        def __call__(self, chunk: stream.Chunk) -> int:
            raise UserError(chunk.name)

    with pytest.raises(UserError, match="first"):
        stream.walk(stream.chunks({"first": 9}), Worker, stream.Progress(1))


def test_percentages_are_decimal() -> None:
    assert percent_labels("1, 2.50,1e-1,100,0.0") == ("1", "2.5", "0.1", "100", "0")
    assert percent_labels([1, 2.5, "40"]) == ("1", "2.5", "40")
    # in binary floating point 1000 * 0.1 / 100 and 3000 * 2.3 / 100 lie below the whole number
    assert restored_count(1000, "0.1") == 1 and restored_count(3000, "2.3") == 69


@pytest.mark.parametrize("wrong", ["101", "-1", "nan", "inf", "ten", "", "5,5.0"])
def test_wrong_percentages_are_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="--percent"):
        percent_labels(wrong)


def test_a_profile_and_its_cuts_survive_json(tmp_path: Path) -> None:
    import json

    def again(profile: ChangeProfile) -> ChangeProfile:
        (tmp_path / "change.json").write_text(json.dumps(profile.to_json()))
        return read_profile(tmp_path / "change.json")

    base = write_checkpoint(tmp_path / "base", {name_of(0): torch.arange(9.0)})
    found = profile(base, base, ["10"], order="random", seed=4)
    assert again(found) == found
    assert not {"measure", "layers"} & {*found.to_json(), *found.cuts["10"].to_json()}
    other = profile(base, base, ["10"], measure="absolute", layers="0")
    assert other.cuts["10"].to_json().items() >= {"measure": "absolute", "layers": "0"}.items()
    assert again(other) == other
    assert percent_label(found.cuts["10"].percent) == "10"
