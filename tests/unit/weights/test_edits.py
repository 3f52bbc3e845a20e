"""Edits other than restorations: against their formulas by hand, on real families, and what is refused."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.weights.change_profile import profile
from sftlab.weights.edits import Dare, Edit, Interpolation, Restoration, TensorEdit, TunedLayers
from sftlab.weights.regions import in_region, place
from sftlab.weights.restoration import ModelSource, write_restored
from sftlab.weights.shards import Checkpoint
from tests.support.refusals import refused
from tests.support.weights_models import ranked, same_bits, save_model, save_tuned, stored, write_checkpoint

UP, QUERY = "model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def edited(folder: Path, edit: Edit | None, **tensors: tuple[torch.Tensor, torch.Tensor]) -> dict:
    """What an edit makes of (base, tuned) tensors."""
    one = write_checkpoint(folder / "base", {name: pair[0] for name, pair in tensors.items()})
    two = write_checkpoint(folder / "tuned", {name: pair[1] for name, pair in tensors.items()})
    return dict(ModelSource(str(one), str(two), edit).tensors())


def drawn(seed: int, size: int = 40, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    base = (torch.randn(size, generator=draw) * 0.02).to(dtype)
    return base, (base.float() + torch.randn(size, generator=draw) * 1e-3).to(dtype)


def splitmix(seed: int, name: str, position: int) -> int:
    """The counter-based key in Python's integers."""
    mask = 2**64 - 1
    offset = int.from_bytes(sha256(f"{seed}\x1f{name}".encode()).digest()[:8], "little")
    x = ((position + offset) * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x >> 33


def test_interpolation_by_hand(tmp_path: Path) -> None:
    base, tuned = torch.tensor([[4.0, -1.0], [0.0, 8.0]]), torch.tensor([[0.0, 1.0], [2.0, 8.0]])
    found = edited(tmp_path, Interpolation(25), **{UP: (base, tuned)})[UP]
    assert torch.equal(found, torch.tensor([[1.0, 0.5], [1.5, 8.0]]))


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 100), st.sampled_from(DTYPES), st.integers(0, 1000))
def test_interpolation_rounds_the_formula_once(percent: float, dtype: torch.dtype, seed: int) -> None:
    base, tuned = drawn(seed, dtype=dtype)
    with TemporaryDirectory() as folder:
        found = edited(Path(folder), Interpolation(percent), **{UP: (base, tuned)})[UP]
    p, s = base.double().numpy(), tuned.double().numpy()
    exact = torch.from_numpy(s + percent / 100 * (p - s))
    # a few float32 roundings of numbers below 0.1, and one to the stored type
    error = 1e-8 + torch.finfo(dtype).eps / 2 * exact.abs() + torch.finfo(dtype).smallest_normal
    assert found.dtype == dtype and ((found.double() - exact).abs() <= error * 1.01).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_an_interpolation_are_the_two_models_to_the_bit(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    base = torch.tensor([1e-4, -0.0, 0.0, 3.0], dtype=dtype)
    tuned = torch.tensor([1.0, 0.0, -0.0, 1e-4], dtype=dtype)
    nothing, everything = (
        edited(tmp_path / str(percent), Interpolation(percent), **{UP: (base, tuned)})[UP]
        for percent in (0, 100)
    )
    assert same_bits(nothing, tuned) and same_bits(everything, base)
    assert same_bits(edited(tmp_path / "none", None, **{UP: (base, tuned)})[UP], tuned)


def test_dare_by_hand(tmp_path: Path) -> None:
    size, percent, seed = 64, 37.5, 5
    base, tuned = torch.arange(size).float(), torch.arange(size).float() + 5
    found = edited(tmp_path, Dare(percent, seed), **{UP: (base, tuned)})[UP]
    # 5 / (1 - 0.375) = 8
    expected = [at if splitmix(seed, UP, at) >= 2**31 * (1 - 0.375) else at + 8.0 for at in range(size)]
    assert found.tolist() == expected
    assert 10 < sum(value == at for at, value in enumerate(found.tolist())) < 40


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("percent", [1, 50, 99.5])
def test_dare_keeps_base_bits_where_it_drops_and_the_mean_update(
    percent: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    base, tuned = drawn(3, 20_000, dtype)
    found = edited(tmp_path, Dare(percent), **{UP: (base, tuned)})[UP]
    keys = torch.tensor([splitmix(0, UP, at) for at in range(len(base))], dtype=torch.float64)
    dropped = keys >= 2**31 * (1 - percent / 100)
    assert same_bits(found[dropped], base[dropped])
    share = dropped.double().mean().item()
    assert abs(share - percent / 100) < 5 * (percent / 100 * (1 - percent / 100) / len(base)) ** 0.5
    kept = (base.double() + (tuned.double() - base.double()) / (1 - percent / 100))[~dropped]
    torch.testing.assert_close(found[~dropped].double(), kept, rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_dare_drops_the_same_weights_whatever_the_shards_and_more_with_a_larger_percentage(
    tmp_path: Path,
) -> None:
    base = {name: torch.zeros(200) for name in (UP, QUERY)}
    tuned = {name: torch.ones(200) for name in (UP, QUERY)}
    one = write_checkpoint(tmp_path / "base", base, shards=2)
    two = write_checkpoint(tmp_path / "tuned", tuned)
    three = write_checkpoint(tmp_path / "sharded", dict(reversed(tuned.items())), shards=2)
    smaller: set[tuple[str, int]] = set()
    for percent in (10, 50, 90):
        model, again = (
            dict(ModelSource(str(one), str(tuned_dir), Dare(percent, 7)).tensors())
            for tuned_dir in (two, three)
        )
        assert all(torch.equal(model[name], again[name]) for name in model)
        dropped = {(name, int(at)) for name in model for at in (model[name] == 0).nonzero()}
        assert smaller < dropped
        smaller = dropped
    other = dict(ModelSource(str(one), str(two), Dare(50, 8)).tensors())
    same = dict(ModelSource(str(one), str(two), Dare(50, 7)).tensors())
    assert not torch.equal(other[UP], same[UP]) and not torch.equal(same[UP], same[QUERY])


def test_dare_of_nothing_is_the_tuned_model_and_of_everything_is_refused(tmp_path: Path) -> None:
    base, tuned = drawn(1)
    assert same_bits(edited(tmp_path, Dare(0), **{UP: (base, tuned)})[UP], tuned)
    # so small that not one of the 2^31 keys is among them
    tiny = edited(tmp_path / "tiny", Dare(1e-9), **{UP: (base, tuned)})[UP]
    torch.testing.assert_close(tiny, tuned)
    with pytest.raises(UserError, match="100 % drops every difference"):
        Dare(100)


@pytest.mark.parametrize("kind", [Interpolation, Dare])
@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_percentages_beyond_the_scale_are_refused(kind: type[TensorEdit], percent: float) -> None:
    with pytest.raises(UserError, match="0 to 100"):
        kind(percent)


def test_ties_trimming_is_a_restoration_from_the_bottom_by_absolute_change(tmp_path: Path) -> None:
    base = {UP: torch.tensor([100.0, 1.0, -2.0, 0.0]), QUERY: torch.tensor([5.0, 5.0])}
    task = {UP: torch.tensor([3.0, -0.5, 0.0, 1.0]), QUERY: torch.tensor([-4.0, 2.0])}
    tuned = {name: base[name] + task[name] for name in base}
    one, two = write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned)
    cut = profile(one, two, ["50"], region="all", order="bottom", measure="absolute").cuts["50"]
    found = dict(ModelSource(str(one), str(two), Restoration(cut)).tensors())
    # the three of six largest entries of the task vector: 3, -4 and 2
    assert (found[UP] - base[UP]).tolist() == [3.0, 0.0, 0.0, 0.0]
    assert (found[QUERY] - base[QUERY]).tolist() == [-4.0, 2.0]
    kept = set(ranked(base, tuned, "top", "absolute")[:3])
    assert kept == {(UP, 0), (QUERY, 0), (QUERY, 1)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A base and a tuned model of a family, made when first asked for."""

    @cache
    def pair(family: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(family)
        save_model(folder / "base", family, seed=0)
        save_tuned(folder / "tuned", folder / "base")
        return folder / "base", folder / "tuned"

    return pair


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2", "qwen3-moe"])
@pytest.mark.parametrize(
    "edit", [Interpolation(30), Dare(30, 2), Interpolation(30, region="mlp", layers="1")]
)
def test_whole_models_on_the_fly_and_as_folders(
    family: str, edit: TensorEdit, saved: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    base, tuned = saved(family)
    seen: list[tuple[int, int]] = []
    cut = profile(base, tuned, ["10"]).cuts["10"]
    folders = write_restored(
        base,
        tuned,
        {"30": edit, "10": Restoration(cut), "0": None},
        tmp_path / "out",
        shard_bytes=4000,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1][0] == seen[-1][1]
    old, new, ours = stored(base), stored(tuned), stored(folders["30"])
    assert ours.keys() == new.keys()
    on_the_fly = dict(ModelSource(str(base), str(tuned), edit).tensors())
    for name in new:
        expected = new[name]
        if in_region(name, edit.region, edit.layers):
            expected = edit.edit(name, old[name].float(), new[name].float()).bfloat16()
        assert same_bits(ours[name], expected) and same_bits(on_the_fly[name], expected)
    assert any(not same_bits(ours[name], new[name]) for name in new)
    zero = stored(folders["0"])
    assert all(same_bits(zero[name], new[name]) for name in new)
    ten = stored(folders["10"])
    restored = dict(ModelSource(str(base), str(tuned), Restoration(cut)).tensors())
    assert all(same_bits(ten[name], restored[name]) for name in new)
    model = AutoModelForCausalLM.from_pretrained(folders["30"])
    assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()


@pytest.mark.parametrize("base_alias", [True, False])
def test_tied_tensors_stay_tied_and_buffers_as_tuned(base_alias: bool, tmp_path: Path) -> None:
    base, tuned = drawn(0)
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    old = {EMBEDDING: base, UP: base.clone()}
    new = {
        EMBEDDING: tuned,
        HEAD: tuned.clone(),
        UP: tuned.clone(),
        buffer: torch.tensor([1.0, float("inf")]),
    }
    if base_alias:
        old[HEAD] = base.clone()
    config = {"model_type": "llama", "tie_word_embeddings": True}
    one = write_checkpoint(tmp_path / "base", old, config)
    two = write_checkpoint(tmp_path / "tuned", new, config)
    for edit in (Interpolation(40), Dare(40)):
        found = dict(ModelSource(str(one), str(two), edit).tensors())
        assert found.keys() == new.keys()
        assert same_bits(found[HEAD], found[EMBEDDING]) and not same_bits(found[HEAD], tuned)
        assert same_bits(found[buffer], new[buffer])
        folder = write_restored(one, two, {"40": edit}, tmp_path / type(edit).__name__)["40"]
        assert all(same_bits(tensor, found[name]) for name, tensor in stored(folder).items())


def test_edits_are_small_picklable_and_equal_by_their_settings() -> None:
    edits = [Interpolation(12.5, region="mlp", layers="0-3"), Dare(10, 3)]
    assert pickle.loads(pickle.dumps(edits)) == edits and len(pickle.dumps(edits)) < 1000
    assert Interpolation(10) != Interpolation(20) and Dare(10) == Dare(10, 0)


@pytest.mark.parametrize("broken", ["base", "tuned"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [UP, EMBEDDING])
def test_weights_that_are_not_finite_are_named(broken: str, value: float, name: str, tmp_path: Path) -> None:
    for which in ("base", "tuned"):
        tensors = {one: torch.ones(4) for one in (UP, EMBEDDING)}
        if which == broken:
            tensors[name][1] = value
        write_checkpoint(tmp_path / which, tensors)
    edit = Interpolation(10, region="mlp")  # the embedding lies outside of it
    with pytest.raises(UserError, match=f"{broken}: {name} holds NaN or infinite weights"):
        write_restored(tmp_path / "base", tmp_path / "tuned", {"10": edit}, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_result_beyond_the_stored_type_is_named(tmp_path: Path) -> None:
    base, tuned = torch.zeros(50, dtype=torch.float16), torch.full((50,), 6e4, dtype=torch.float16)
    with pytest.raises(UserError, match=rf"{UP} that are NaN or beyond torch\.float16; choose"):
        edited(tmp_path, Dare(90), **{UP: (base, tuned)})


def test_layers_and_models_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with refused("layer 1, but the model has 1 layer, 0 to 0"):
        edited(tmp_path, Interpolation(10, layers="0-1"), **{UP: drawn(0)})
    one = write_checkpoint(tmp_path / "one", {UP: torch.ones(4)})
    two = write_checkpoint(tmp_path / "two", {UP: torch.ones(5)})
    with pytest.raises(UserError, match=r"has shape \[5\]"):
        list(ModelSource(str(one), str(two), Interpolation(10)).tensors())


@dataclass(frozen=True)
class Flattening(TensorEdit):
    def edit(self, name: str, base: torch.Tensor, tuned: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return tuned.reshape(-1)


@dataclass(frozen=True)
class Forgetting(Edit):
    def tensors(self, base: Checkpoint, tuned: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:  # noqa: ARG002
        yield from list(tuned.tensors())[1:]


def test_mistakes_of_own_edits_are_named(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "one", {UP: torch.ones(2, 2), QUERY: torch.ones(3)})
    with pytest.raises(UserError, match=rf"Flattening.edit: gave {UP} the shape \[4\]; expected \[2, 2\]"):
        list(ModelSource(str(one), str(one), Flattening()).tensors())
    with pytest.raises(UserError, match=f"Forgetting.*gave no {UP}"):
        write_restored(one, one, {"10": Forgetting()}, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_random_choice_is_uniform_over_the_keys() -> None:
    keys = np.array([splitmix(0, UP, at) for at in range(4000)])
    counts = np.histogram(keys, bins=8, range=(0, 2**31))[0]
    assert abs(counts - 500).max() < 110  # five standard deviations


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2", "qwen3-moe"])
def test_tuned_layers_are_those_of_the_tuned_model_and_all_others_those_of_the_base(
    tmp_path: Path, family: str
) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    save_model(base, family, seed=0)
    save_tuned(tuned, base, scale=1e-2)
    old, new = stored(base), stored(tuned)

    def same(edit: TunedLayers, kept: Callable[[int | None], bool]) -> None:
        found = dict(ModelSource(str(base), str(tuned), edit).tensors())
        assert set(found) == set(new)
        for name, tensor in found.items():
            assert same_bits(tensor, (new if kept(place(name).layer) else old)[name]), name

    same(TunedLayers(frozenset({1})), lambda layer: layer == 1)
    same(TunedLayers(frozenset({0}), outside=True), lambda layer: layer != 1)
    same(TunedLayers(frozenset(), outside=True), lambda layer: layer is None)
    assert any(not same_bits(old[name], new[name]) for name in new if place(name).layer == 1)
