"""Adapters as tuned models: merged while they are read, with the bits of peft's merge_and_unload."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sftlab.errors import UserError
from sftlab.weights.adapter import AdapterCheckpoint, is_adapter
from sftlab.weights.delta_folder import open_tuned
from sftlab.weights.ladder import change, restore
from sftlab.weights.packing import pack, unpack
from sftlab.weights.shards import Checkpoint
from tests.support.weights_models import save_model, save_tokenizer

LLAMA = ["q_proj", "down_proj"]


def save_adapter(folder: Path, base: Path, targets: list[str], **settings: Any) -> Path:
    """An adapter with random factors, as peft saves it."""
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(
        target_modules=targets, task_type="CAUSAL_LM", **({"r": 4, "lora_alpha": 6} | settings)
    )
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape))
    adapted.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype, folder: Path) -> dict[str, torch.Tensor]:
    import transformers
    from peft import PeftModel

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    return dict(load_file(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model in bfloat16 and an adapter of it."""
    folder = tmp_path_factory.mktemp("llama")
    save_model(folder / "base", "llama", 0)
    return folder / "base", save_adapter(folder / "adapter", folder / "base", LLAMA)


@pytest.mark.parametrize(
    ("family", "dtype", "targets", "settings"),
    [
        ("llama", torch.bfloat16, LLAMA, {}),
        ("llama", torch.float16, LLAMA, {"use_rslora": True}),
        (
            "llama",
            torch.float32,
            LLAMA,
            {"rank_pattern": {"layers.0.mlp.down_proj": 2}, "alpha_pattern": {"q_proj": 11}},
        ),
        ("gpt2", torch.float32, ["c_attn", "c_proj"], {"fan_in_fan_out": True}),
        ("gpt-neox", torch.bfloat16, ["query_key_value", "dense"], {}),
        ("qwen3-moe", torch.bfloat16, ["q_proj", "o_proj"], {}),
    ],
)
def test_a_merged_tensor_has_the_bits_of_peft(
    tmp_path: Path, family: str, dtype: torch.dtype, targets: list[str], settings: dict[str, Any]
) -> None:
    save_model(tmp_path / "base", family, 0, dtype)
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "base", targets, **settings)
    expected = merged_by_peft(tmp_path / "base", adapter, dtype, tmp_path / "merged")
    with open_tuned(adapter, tmp_path / "base") as tuned, Checkpoint.open(tmp_path / "base") as base:
        assert isinstance(tuned, AdapterCheckpoint)
        assert tuned.names == base.names == tuple(sorted(expected))
        changed = 0
        for name, tensor in tuned.tensors():
            assert tensor.dtype == dtype and torch.equal(tensor, expected[name]), name
            changed += not torch.equal(tensor, base.read(name))
    assert changed == len(load_file(adapter / "adapter_model.safetensors")) // 2


def test_any_stretch_of_a_merged_tensor_is_read(llama: tuple[Path, Path]) -> None:
    import numpy as np

    base, adapter = llama
    with open_tuned(adapter, base) as tuned:
        name = "model.layers.1.self_attn.q_proj.weight"
        whole = tuned.read(name).view(torch.uint16).flatten().numpy()
        for start, stop in ((0, 1), (5, 200), (255, 256)):
            part = np.empty(stop - start, np.uint16)
            tuned.read_into(name, start, part)
            assert part.tolist() == whole[start:stop].tolist()


def test_an_adapter_is_restored_as_the_merged_model_is(llama: tuple[Path, Path], tmp_path: Path) -> None:
    import transformers

    base, adapter = llama
    merged_by_peft(base, adapter, torch.bfloat16, tmp_path / "merged")
    save_tokenizer(tmp_path / "merged")
    for tuned, output in ((adapter, tmp_path / "a"), (tmp_path / "merged", tmp_path / "b")):
        restore(base, tuned, "0,10,100", output)
    assert json.loads((tmp_path / "a/change.json").read_text()) == json.loads(
        (tmp_path / "b/change.json").read_text()
    )
    for name in ("restored-0", "restored-10", "restored-100"):
        ours, theirs = (load_file(tmp_path / x / name / "model.safetensors") for x in "ab")
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert {file.name for file in (tmp_path / "a" / name).iterdir()} == {
            *("config.json", "generation_config.json", "model.safetensors"),
            *("tokenizer.json", "tokenizer_config.json"),
        }
    folder = tmp_path / "a" / "restored-10"
    assert (folder / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert load_file(folder / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    _, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_the_tokenizer_of_an_adapter_comes_before_that_of_the_base(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    import shutil

    base, adapter = llama
    shutil.copytree(adapter, tmp_path / "adapter")
    (tmp_path / "adapter" / "tokenizer.json").write_text((base / "tokenizer.json").read_text() + "\n")
    restore(base, tmp_path / "adapter", "0", tmp_path / "out")
    assert (tmp_path / "out/restored-0/tokenizer.json").read_text().endswith("\n")


def test_a_packed_adapter_is_unpacked_as_the_merged_model(llama: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = llama
    expected = merged_by_peft(base, adapter, torch.bfloat16, tmp_path / "merged")
    found = pack(base, adapter, tmp_path / "packed")
    assert found.whole == () and "adapter_model.safetensors" in found.left_out
    unpack(base, tmp_path / "packed", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == expected.keys() and all(torch.equal(back[name], expected[name]) for name in back)
    assert (tmp_path / "back/config.json").read_text() == (base / "config.json").read_text()


def _config(**changes: Any) -> Callable[[Path], None]:
    def change_config(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change_config


def _tensors(rename: Callable[[str], str | None]) -> Callable[[Path], None]:
    def change_tensors(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        renamed = {rename(name): tensor for name, tensor in load_file(file).items()}
        save_file({name: tensor for name, tensor in renamed.items() if name is not None}, file)

    return change_tensors


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_config(peft_type="IA3"), "is an adapter of type IA3, and LORA alone is merged here; merge it with"),
        (_config(use_dora=True), "use_dora = True changes more than a sum of matrices shows"),
        (_config(bias="all"), "bias = 'all' changes more"),
        (_config(init_lora_weights="pissa"), "init_lora_weights = 'pissa' changes more"),
        (_config(modules_to_save=["lm_head"]), r"modules_to_save = \['lm_head'\] changes more"),
        (_config(r=5), "says rank 5; copy the adapter again"),
        (_config(lora_alpha="x"), "lora_alpha of .* is no positive number"),
        (_config(rank_pattern={"(a+)+": 2}), "rank_pattern has more than names of modules; merge it"),
        (_config(alpha_pattern=[1]), "alpha_pattern has more than names of modules"),
        (_config(rank_pattern={"q_proj": True}), "r of .* is no positive number"),
        (_tensors(lambda name: name.replace("lora_A", "lora_C")), "which is no factor of a linear layer"),
        (_tensors(lambda name: None if "lora_B" in name else name), "holds one factor of"),
        (
            _tensors(lambda name: name.replace("q_proj", "qkv")),
            r"adapts model\.layers\.0\.self_attn\.qkv, and .* has no tensor",
        ),
        (_tensors(lambda name: name.replace("q_proj", "k_proj")), "give the base model that the adapter was"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_config.json").write_text("["), "is not readable JSON"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"12"), "truncated or no"),
    ],
)
def test_an_adapter_that_is_no_plain_sum_is_refused_with_the_reason(
    llama: tuple[Path, Path], tmp_path: Path, spoil: Callable[[Path], Any], says: str
) -> None:
    import shutil

    base, adapter = llama
    shutil.copytree(adapter, tmp_path / "adapter")
    spoil(tmp_path / "adapter")
    with pytest.raises(UserError, match=says):
        change(base, tmp_path / "adapter", tmp_path / "out")


def test_a_configuration_of_peft_beside_merged_weights_makes_no_adapter(
    llama: tuple[Path, Path], tmp_path: Path
) -> None:
    import shutil

    base, adapter = llama
    shutil.copytree(base, tmp_path / "tuned")
    shutil.copy(adapter / "adapter_config.json", tmp_path / "tuned")
    assert is_adapter(adapter) and not is_adapter(tmp_path / "tuned")
