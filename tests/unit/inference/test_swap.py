"""The proof that a live model computes with the weights it was given, on a model with packed copies.

The modules below stand for vLLM's on the CPU: a linear layer keeps no parameter but a packed copy, and an
output layer keeps both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sftlab.inference.engine import EngineSwapError
from sftlab.inference.swap import (
    PROBED_COLUMNS,
    Names,
    Share,
    Sketch,
    raise_failure,
    transposed_weights,
    verify,
)
from sftlab.store.record import Damaged

WIDTH = 6


class Packed:
    """How vLLM applies a layer whose weights were packed at load time."""

    def __init__(self, packed: torch.Tensor) -> None:
        self.packed = packed.clone()

    def apply(self, _layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.packed, bias)


def layer(weight: torch.Tensor, keep: bool, bias: torch.Tensor | None = None) -> torch.nn.Module:
    module = torch.nn.Module()
    module.quant_method = Packed(weight)
    module.cpu_linear = module.quant_method.apply
    module.input_size_per_partition = weight.shape[1]
    module.weight = torch.nn.Parameter(
        weight.clone() if keep else weight[:0, :0].clone(), requires_grad=False
    )
    if bias is not None:
        module.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)
    return module


class Live(torch.nn.Module):
    """Norm, fused projection with bias, and an output layer padded to a multiple of four rows."""

    def __init__(self, tensors: dict[str, torch.Tensor], tied: bool) -> None:
        super().__init__()
        self.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj"]}
        fused = torch.cat([tensors["block.q_proj.weight"], tensors["block.k_proj.weight"]])
        bias = torch.cat([tensors["block.q_proj.bias"], tensors["block.k_proj.bias"]])
        self.norm = torch.nn.Module()
        self.norm.weight = torch.nn.Parameter(tensors["norm.weight"].clone(), requires_grad=False)
        self.block = torch.nn.Module()
        self.block.qkv_proj = layer(fused, keep=False, bias=bias)
        padded = torch.cat([tensors["embed.weight"], torch.zeros(1, tensors["embed.weight"].shape[1])])
        self.embed = layer(padded, keep=True)
        if tied:
            self.lm_head = layer(padded, keep=True)
            self.lm_head.weight = self.embed.weight


def tensors(seed: int, width: int = WIDTH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "norm.weight": (width,),
        "block.q_proj.weight": (4, width),
        "block.k_proj.weight": (2, width),
        "block.q_proj.bias": (4,),
        "block.k_proj.bias": (2,),
        "embed.weight": (7, width),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def sketch_of(source: dict[str, torch.Tensor], seed: int = 0) -> Sketch:
    sketch = Sketch(torch.float32, seed)
    streamed: Iterator[tuple[str, torch.Tensor]] = sketch.watch(source.items())
    assert dict(streamed).keys() == source.keys()
    return sketch


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("width", [WIDTH, PROBED_COLUMNS + 40])
def test_a_model_that_follows_its_source_passes(tied: bool, width: int) -> None:
    source = tensors(1, width)
    verify(Live(source, tied), sketch_of(source))


def test_a_stale_packed_output_layer_is_found_though_its_parameter_is_right() -> None:
    new = tensors(2)
    live = Live(new, tied=True)
    live.lm_head.quant_method = Packed(Live(tensors(1), tied=True).embed.weight.data)
    with pytest.raises(EngineSwapError, match=r"lm_head\.weight \(packed\)"):
        verify(live, sketch_of(new))


@pytest.mark.parametrize("name", sorted(tensors(1)))
def test_one_stale_tensor_is_named(name: str) -> None:
    new = tensors(2)
    live = Live({**new, name: tensors(1)[name]}, tied=False)
    where = name.replace("q_proj", "qkv_proj").replace("k_proj", "qkv_proj") if "block" in name else name
    with pytest.raises(EngineSwapError, match=where.replace("qqkv", "qkv")):
        verify(live, sketch_of(new))


def test_one_changed_number_is_enough() -> None:
    new = tensors(2)
    live = Live(new, tied=False)
    live.block.qkv_proj.quant_method.packed[3, 5] += 1e-6
    with pytest.raises(EngineSwapError, match="qkv_proj"):
        verify(live, sketch_of(new))


def test_a_source_that_lacks_a_tensor_is_refused() -> None:
    new = tensors(2)
    lacking = {name: tensor for name, tensor in new.items() if name != "block.k_proj.weight"}
    with pytest.raises(EngineSwapError, match=r"block\.qkv_proj\.weight.*no tensor"):
        verify(Live(new, tied=False), sketch_of(lacking))


def test_wide_matrices_are_probed_in_other_columns_at_every_swap() -> None:
    first, second = (Sketch(torch.float32, seed).columns(4096) for seed in (1, 2))
    assert len(first) == len(second) == PROBED_COLUMNS
    assert not torch.equal(first, second)


class Divided(torch.nn.Module):
    """What worker `rank` of four holds: fused rows of queries and of two heads' keys, columns, padded rows, a norm."""

    def __init__(self, tensors: dict[str, torch.Tensor], rank: int) -> None:
        super().__init__()
        self.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj"]}
        q, k, out = (tensors[f"block.{name}.weight"] for name in ("q_proj", "k_proj", "o_proj"))
        self.block = torch.nn.Module()
        self.block.qkv_proj = layer(torch.cat([q[rank : rank + 1], k[rank // 2 : rank // 2 + 1]]), keep=False)
        self.block.qkv_proj.output_partition_sizes = [1, 1]
        self.block.o_proj = layer(out[:, 2 * rank : 2 * rank + 2], keep=True)
        self.block.o_proj.input_size, self.block.o_proj.output_partition_sizes = 8, [3]
        self.embed = layer(
            torch.cat([tensors["embed.weight"], torch.zeros(1, 8)])[2 * rank : 2 * rank + 2], keep=True
        )
        self.embed.num_embeddings_per_partition = 2
        self.norm = torch.nn.Module()
        self.norm.weight = torch.nn.Parameter(tensors["norm.weight"].clone(), requires_grad=False)


def divided(seed: int) -> dict[str, torch.Tensor]:
    made = tensors(seed, 8)
    return {**made, "block.o_proj.weight": made["embed.weight"][:3] + 1}


@pytest.mark.parametrize("rank", range(4))
def test_each_worker_compares_the_part_that_it_holds(rank: int) -> None:
    new, old = divided(2), divided(1)
    verify(Divided(new, rank), sketch_of(new), Share(rank, 4))
    for name in (
        "block.q_proj.weight",
        "block.k_proj.weight",
        "block.o_proj.weight",
        "embed.weight",
        "norm.weight",
    ):
        with pytest.raises(EngineSwapError, match="other weights after a swap"):
            verify(Divided({**new, name: old[name]}, rank), sketch_of(new), Share(rank, 4))
    with pytest.raises(EngineSwapError):  # another worker's part
        verify(Divided(new, (rank + 2) % 4), sketch_of(new), Share(rank, 4))


def test_what_a_worker_of_another_process_has_met_is_raised_with_its_type() -> None:
    raise_failure([None, None])
    with pytest.raises(EngineSwapError, match="lm_head"):
        raise_failure([None, ("lm_head: stale",), ("a", "b")])
    with pytest.raises(Damaged) as raised:
        raise_failure(
            [["store/tuned/b0", "model.safetensors has other bytes"]]
        )  # a list after some transports
    assert raised.value.folder == Path("store/tuned/b0")


class Mapper:
    """Stands for vLLM's table of names: NeoX's prefix, and parts that are fused under one name."""

    @staticmethod
    def _map_name_with_shard(name: str) -> tuple[str, object] | None:
        if name.endswith(".attention.bias"):
            return None
        name = name.replace("gpt_neox.", "model.", 1)
        for number, part in enumerate(("gate", "up")):
            if f".{part}." in name:
                return name.replace(f".{part}.", ".gate_up."), number
        return name, None


def test_live_parameters_find_their_tensors_by_vllms_table_and_without_a_prefix() -> None:
    streamed = {
        "gpt_neox.layers.0.mlp.up.weight": torch.tensor([2.0]),
        "gpt_neox.layers.0.mlp.gate.weight": torch.tensor([1.0]),
        "gpt_neox.layers.0.attention.bias": torch.tensor([9.0]),
        "h.0.ln_1.weight": torch.tensor([3.0]),
        "model.norm.weight": torch.tensor([4.0]),
    }
    model = torch.nn.Module()
    model.hf_to_vllm_mapper = Mapper()
    names = Names(model, streamed)

    def found(name: str) -> list[float]:
        return [float(part) for part in names.parts(name)]

    assert found("model.layers.0.mlp.gate_up.weight") == [1.0, 2.0]
    assert found("transformer.h.0.ln_1.weight") == [3.0] and found("norm.weight") == [4.0]
    assert found("model.layers.0.attention.bias") == found("other.norm.bias") == []


def test_matrices_that_are_stored_with_inputs_in_rows_are_compared_upright() -> None:
    import transformers

    config = transformers.GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=2, n_positions=8)
    transposed = transposed_weights(config)
    assert transposed == {
        f"h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    stored = torch.arange(20.0).reshape(4, 5)
    for prefix in ("", "transformer."):
        sketch = Sketch(torch.float32, 0, transposed)
        list(sketch.watch([(f"{prefix}h.0.mlp.c_fc.weight", stored), ("wte.weight", stored)]))
        assert torch.equal(sketch.parts[f"{prefix}h.0.mlp.c_fc.weight"], stored.t())
        assert torch.equal(sketch.parts["wte.weight"], stored)
    assert transposed_weights(transformers.LlamaConfig(num_hidden_layers=1)) == frozenset()
