"""Restored models of the usual families: right to the bit, loadable with their tokenizer, tied where they were."""

import pickle
from pathlib import Path

import pytest
import torch

from sftlab.weights.bits import code_of, raw_view
from sftlab.weights.change_profile import read_profile
from sftlab.weights.edits import Restoration
from sftlab.weights.ladder import change, restore
from sftlab.weights.regions import OUTSIDE, in_region, place
from sftlab.weights.restoration import ModelSource, write_restored
from sftlab.weights.shards import Checkpoint
from sftlab.weights.writer import ShardWriter, TensorSpec
from tests.support.weights_models import (
    FAMILIES,
    restored_by_hand,
    same_bits,
    save_model,
    save_tuned,
    stored,
    write_checkpoint,
)

UP = "model.layers.0.mlp.up_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def load(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    model, notes = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"] and not notes["mismatched_keys"]
    return model.eval()


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load(folder)(torch.tensor([[3, 4, 5]])).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_restored_exactly_and_loads_with_its_tokenizer(family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base, tuned, output = tmp_path / "base", tmp_path / "tuned", tmp_path / "out"
    save_model(base, family, seed=0)
    save_tuned(tuned, base)
    found = restore(base, tuned, "0,2.5,40,100", output)

    old, new = stored(base), stored(tuned)
    assert set(found.weights_by_module) == FAMILIES[family][2]
    assert set(found.weights_by_layer) == {"0", "1"}
    for percent in ("0", "2.5", "40", "100"):
        folder = output / f"restored-{percent}"
        expected = restored_by_hand(old, new, percent, lambda name: in_region(name, "layers"))
        ours = stored(folder)
        assert ours.keys() == new.keys()
        assert all(same_bits(ours[name], expected[name]) for name in expected)
        assert torch.isfinite(logits(folder)).all()
        tokens, theirs = (
            AutoTokenizer.from_pretrained(place)("w3 w4")["input_ids"] for place in (folder, tuned)
        )
        assert tokens == theirs
        on_the_fly = dict(ModelSource(str(base), str(tuned), Restoration(found.cuts[percent])).tensors())
        assert on_the_fly.keys() == expected.keys()
        assert all(same_bits(on_the_fly[name], expected[name]) for name in expected)
    assert torch.equal(logits(output / "restored-0"), logits(tuned))
    assert read_profile(output / "change.json") == found


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_types_and_sharded_models(dtype: torch.dtype, tmp_path: Path) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    save_model(base, "llama", seed=0, dtype=dtype, max_shard_size="4KB")
    save_tuned(tuned, base)
    assert len(list(base.glob("*.safetensors"))) > 2 and len(list(tuned.glob("*.safetensors"))) == 1
    restore(base, tuned, "10,100", tmp_path / "out", region="all", shard_bytes=5000)
    restore(base, tuned, "10", tmp_path / "single", region="all")
    sharded, single = tmp_path / "out" / "restored-10", tmp_path / "single" / "restored-10"
    assert len(list(sharded.glob("model-*-of-*.safetensors"))) > 2
    expected = restored_by_hand(stored(base), stored(tuned), "10", lambda _: True)
    for folder in (sharded, single):
        assert all(same_bits(tensor, expected[name]) for name, tensor in stored(folder).items())
        assert load(folder).dtype == dtype
    assert torch.equal(logits(tmp_path / "out" / "restored-100"), logits(base))


@pytest.mark.parametrize("order", ["top", "bottom", "random"])
@pytest.mark.parametrize("region", ["layers", "attention", "mlp", "embeddings", "all"])
def test_outside_the_region_nothing_is_restored(order: str, region: str, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    names = [EMBEDDING, HEAD, UP, "model.layers.0.self_attn.q_proj.weight", "model.layers.0.q_norm.weight"]
    base = {name: torch.randn(4, 5, generator=draw) for name in names}
    tuned = {name: tensor + 1 for name, tensor in base.items()}
    one, two = write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned)
    found = restore(one, two, ["50", "100"], tmp_path / "out", region=region, order=order, seed=3)
    inside = {name for name in names if in_region(name, region)}
    half, full = (stored(tmp_path / "out" / f"restored-{percent}") for percent in ("50", "100"))
    assert found.weights == 20 * len(inside)
    assert sum(int((half[name] == base[name]).sum()) for name in inside) == 10 * len(inside)
    for name in names:
        assert same_bits(full[name], base[name] if name in inside else tuned[name])
        assert name in inside or same_bits(half[name], tuned[name])


def test_distribution_over_layers_and_modules_by_hand(tmp_path: Path) -> None:
    query, down = "model.layers.0.self_attn.q_proj.weight", "model.layers.10.mlp.down_proj.weight"
    base = {query: torch.ones(4), UP: torch.ones(4), down: torch.ones(4), EMBEDDING: torch.ones(4)}
    tuned = {
        query: torch.tensor([9.0, 8.0, 1.0, 1.0]),
        UP: torch.tensor([1.0, 1.0, 1.0, 7.0]),
        down: torch.tensor([6.0, 1.0, 1.0, 1.0]),
        EMBEDDING: torch.tensor([100.0, 1.0, 1.0, 1.0]),
    }
    one, two = write_checkpoint(tmp_path / "base", base), write_checkpoint(tmp_path / "tuned", tuned)
    found = change(one, two, tmp_path / "out", percents=["25", "34"])
    assert (found.weights, found.changed) == (12, 4)
    assert found.restored_by_layer["25"] == {"0": 3, "10": 0}
    assert found.restored_by_module["34"] == {"attn.q": 2, "mlp.down": 1, "mlp.up": 1}
    assert found.layer_percents("34") == {"0": 75.0, "10": 25.0}
    assert found.concentration["20"] == pytest.approx((8 + 7) / (8 + 7 + 6 + 5))
    whole = change(one, two, tmp_path / "all", percents=["7"], region="all")
    assert whole.restored_by_layer["7"] == {"0": 0, "10": 0, OUTSIDE: 1}
    assert whole.restored_by_module["7"]["embed_tokens"] == 1
    assert place(EMBEDDING).layer is None


@pytest.mark.parametrize("base_alias", [True, False])
def test_a_tied_tensor_stored_twice_counts_once_and_stays_tied(base_alias: bool, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    base = {EMBEDDING: torch.randn(6, 4, generator=draw), UP: torch.randn(4, generator=draw)}
    tuned = {name: tensor * 2 for name, tensor in base.items()}
    if base_alias:
        base[HEAD] = base[EMBEDDING].clone()
    tuned[HEAD] = tuned[EMBEDDING].clone()
    config = {"model_type": "llama", "tie_word_embeddings": True}
    one = write_checkpoint(tmp_path / "base", base, config)
    two = write_checkpoint(tmp_path / "tuned", tuned, config)
    found = restore(one, two, "50", tmp_path / "out", region="embeddings")
    assert found.weights == 24 and found.cuts["50"].count == 12
    ours = stored(tmp_path / "out" / "restored-50")
    assert ours.keys() == tuned.keys() and same_bits(ours[EMBEDDING], ours[HEAD])
    assert int((ours[EMBEDDING] == base[EMBEDDING]).sum()) == 12
    assert all(
        same_bits(tensor, ours[name])
        for name, tensor in ModelSource(str(one), str(two), Restoration(found.cuts["50"])).tensors()
    )


def test_a_restored_tied_model_is_tied_after_loading(tmp_path: Path) -> None:
    save_model(tmp_path / "base", "llama-tied", seed=0)
    save_tuned(tmp_path / "tuned", tmp_path / "base")
    restore(tmp_path / "base", tmp_path / "tuned", "30", tmp_path / "out", region="all")
    model = load(tmp_path / "out" / "restored-30")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert same_bits(model.lm_head.weight.data, stored(tmp_path / "out" / "restored-30")[EMBEDDING])


def test_buffers_do_not_make_models_differ_and_are_kept(tmp_path: Path) -> None:
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    one = write_checkpoint(tmp_path / "base", {UP: torch.ones(4), buffer: torch.ones(2)})
    two = write_checkpoint(tmp_path / "tuned", {UP: torch.full((4,), 2.0)})
    assert restore(one, two, "100", tmp_path / "out").weights == 4
    assert restore(two, one, "100", tmp_path / "back").weights == 4
    back = stored(tmp_path / "back" / "restored-100")
    assert same_bits(back[buffer], torch.ones(2)) and same_bits(back[UP], torch.full((4,), 2.0))


def test_a_model_source_is_small_picklable_and_gives_base_and_tuned_as_they_are(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "base", {UP: torch.ones(4)})
    two = write_checkpoint(tmp_path / "tuned", {UP: torch.full((4,), 2.0)})
    edit = Restoration(change(one, two, tmp_path / "out", ["50"]).cuts["50"])
    sources = [ModelSource(str(one)), ModelSource(str(one), str(two)), ModelSource(str(one), str(two), edit)]
    again = pickle.loads(pickle.dumps(sources))
    assert again == sources and len(pickle.dumps(sources)) < 2000
    values = [dict(source.tensors())[UP].tolist() for source in again]
    assert values == [[1.0] * 4, [2.0] * 4, [1.0, 1.0, 2.0, 2.0]]
    assert [source.folder for source in again] == [str(one), str(two), str(two)]


def test_companion_files_come_from_the_tuned_model_without_pickles_and_code(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "base", {UP: torch.ones(4)})
    two = write_checkpoint(tmp_path / "tuned", {UP: torch.zeros(4)}, shards=1)
    (two / "tokenizer.json").unlink()
    (one / "tokenizer.json").write_text("base")
    (one / "generation_config.json").write_text("base")
    for name in ("generation_config.json", "training_args.bin", "modeling_x.py", "optimizer.pt"):
        (two / name).write_text("tuned")
    edits = {"10": Restoration(change(one, two, tmp_path / "out", ["10"]).cuts["10"])}
    folder = write_restored(one, two, edits, tmp_path / "out")["10"]
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert {file.name for file in folder.iterdir()} == names
    assert (folder / "generation_config.json").read_text() == "tuned"
    (two / "vocab.txt").write_text("tuned")
    folder = write_restored(one, two, edits, tmp_path / "other")["10"]
    assert {file.name for file in folder.iterdir()} == names - {"tokenizer.json"} | {"vocab.txt"}


def test_a_pair_without_a_tokenizer_is_restored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = write_checkpoint(tmp_path / "base", {UP: torch.ones(4)})
    two = write_checkpoint(tmp_path / "tuned", {UP: torch.zeros(4)})
    for folder in (one, two):
        (folder / "tokenizer.json").unlink()
    restore(one, two, "10", tmp_path / "out")
    assert {file.name for file in (tmp_path / "out/restored-10").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    assert f"{two}: has no tokenizer" in caplog.text


def test_progress_rises_to_its_total(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "base", {UP: torch.ones(500), EMBEDDING: torch.ones(300)})
    two = write_checkpoint(tmp_path / "tuned", {UP: torch.zeros(500), EMBEDDING: torch.ones(300)})
    seen: list[tuple[int, int]] = []
    restore(one, two, "1,10", tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    read, written = 2 * 4 * (3 * 500 + 300) + 2 * 4 * 800, 2 * 4 * 800
    assert {total for _, total in seen} == {read + written}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == read + written


def test_the_writer_takes_stretches_in_any_order_and_aligns_tensors(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(7, dtype=torch.bfloat16), "a": torch.arange(6.0).reshape(2, 3)}
    tensors["empty"] = torch.empty(0, 4)
    specs = {name: TensorSpec(code_of(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}
    with ShardWriter(tmp_path / "model", specs) as writer:
        for name, tensor in tensors.items():
            flat = raw_view(tensor)
            middle = len(flat) // 2
            writer.write(name, middle, flat[middle:])
            writer.write(name, 0, flat[:middle])
        (writer.staging / "config.json").write_text("{}")
        writer.commit()
    read = stored(tmp_path / "model")
    assert all(same_bits(read[name], tensor) for name, tensor in tensors.items())
    with Checkpoint.open(tmp_path / "model") as checkpoint:
        assert checkpoint.names == ("a", "b", "empty")
        assert (checkpoint.shape("a"), checkpoint.dtype("b"), checkpoint.nbytes) == (
            (2, 3),
            torch.bfloat16,
            38,
        )
        assert same_bits(checkpoint.read("b"), tensors["b"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
