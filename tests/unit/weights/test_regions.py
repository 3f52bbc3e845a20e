"""Regions, layers and modules on real models of the usual families."""

import pytest
import torch

from sftlab.errors import UserError
from sftlab.weights.regions import (
    Place,
    check_layers,
    in_region,
    is_buffer,
    layer_numbers,
    layers_label,
    place,
)
from tests.support.families import by_classes, without_data
from tests.support.refusals import refused
from tests.support.weights_models import FAMILIES


def family_model(family: str) -> torch.nn.Module:
    import transformers

    name, settings, _ = FAMILIES[family]
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_regions_agree_with_the_module_classes(family: str) -> None:
    """The layers region is all that lives below the list of layers, but for modules whose class is a norm."""
    model = family_model(family)
    layers = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    norms = {
        id(parameter)
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters()
    }
    below = {id(parameter) for parameter in layers.parameters()}
    for name, parameter in model.named_parameters():
        is_norm, in_layers = id(parameter) in norms, id(parameter) in below
        assert in_region(name, "layers") == (in_layers and not is_norm), name
        assert in_region(name, "embeddings") == (not in_layers and not is_norm), name
        assert in_region(name, "attention") + in_region(name, "mlp") == in_region(name, "layers"), name
        assert in_region(name, "all") and not is_buffer(name), name


# Lists of layers of all names, norms within attention, parallel blocks, experts in attention, mixtures, state spaces.
KINDS = (
    "bloom",
    "ctrl",
    "deepseek_v3",
    "doge",
    "falcon_h1",
    "gpt_bigcode",
    "gptj",
    "jetmoe",
    "longcat_flash",
    "nemotron_h",
    "qwen3_next",
    "rwkv",
    "xglm",
    "zaya",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_follows_from_the_modules_that_own_the_parameter(kind: str) -> None:
    """benchmarks/families.py walks all families; here are those that differ most."""
    model = without_data(kind)
    differing = []
    for name, _ in model.named_parameters():
        (layer, block), found = by_classes(model, name), place(name)
        is_norm = block == "norm"
        same = found.layer == layer and (found.block == "norm") == is_norm and block in (None, found.block)
        if not same:
            differing.append((name, found, layer, block))
    assert not differing


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.2.input_layernorm.mlp.fc1.weight", Place(2, "mlp", "mlp.up")),
        ("transformer.blocks.1.norm_attn_norm.attn.Wqkv.weight", Place(1, "attention", "attn.qkv")),
        ("transformer.blocks.1.norm_attn_norm.norm_1.weight", Place(1, "norm", "norm")),
        ("model.layers.3.attn_hyper_connection.scale", Place(3, "other", "other.scale")),
        ("model.layers.0.post_attention_residual", Place(0, "other", "other.post_attention_residual")),
        ("model.altup_projections.1.weight", Place(None, "embeddings", "1")),
        ("model.vision_tower.encoder.layers.4.self_attn.q_proj.weight", Place(None, "other", "q_proj")),
        ("mtp.layers.0.mlp.up_proj.weight", Place(None, "other", "up_proj")),
        ("model.decoder.layernorm_embedding.weight", Place(None, "norm", "norm")),
        ("data2vec_text.encoder.layer.1.attention.self.query.weight", Place(1, "attention", "attn.q")),
    ],
)
def test_words_and_numbers_elsewhere_in_a_name_decide_nothing(name: str, expected: Place) -> None:
    assert place(name) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_have_the_names_of_table_10(family: str) -> None:
    model = family_model(family)
    names = [name for name, _ in model.named_parameters() if in_region(name, "layers")]
    modules = {place(name).module for name in names}
    expected = FAMILIES[family][2]
    if family in ("mixtral", "qwen3-moe"):  # in memory the experts' gate and up projection are one parameter
        expected = (expected - {"mlp.gate", "mlp.up"}) | {"mlp.gate_up"}
    assert modules == expected
    assert {place(name).layer for name in names} == {0, 1}


def test_places_by_hand() -> None:
    assert place("model.layers.11.self_attn.q_proj.weight") == Place(11, "attention", "attn.q")
    assert place("model.layers.3.self_attn.q_norm.weight") == Place(3, "norm", "norm")
    assert place("transformer.h.0.attn.c_attn.bias") == Place(0, "attention", "attn.qkv")
    assert place("transformer.h.0.mlp.c_proj.weight") == Place(0, "mlp", "mlp.down")
    assert place("transformer.h.5.ln_1.weight") == Place(5, "norm", "norm")
    assert place("model.layers.0.block_sparse_moe.experts.7.w2.weight") == Place(0, "mlp", "mlp.down")
    assert place("model.layers.0.block_sparse_moe.gate.weight") == Place(0, "mlp", "mlp.router")
    assert place("model.layers.9.mlp.gate_proj.weight") == Place(9, "mlp", "mlp.gate")
    assert place("model.layers.9.mlp.gate.weight") == Place(9, "mlp", "mlp.router")
    assert place("model.decoder.layers.1.fc1.bias") == Place(1, "mlp", "mlp.up")
    assert place("gpt_neox.layers.2.attention.query_key_value.weight") == Place(2, "attention", "attn.qkv")
    assert place("lm_head.weight") == Place(None, "embeddings", "lm_head")
    assert place("transformer.wpe.weight") == Place(None, "embeddings", "wpe")
    assert place("model.norm.weight") == Place(None, "norm", "norm")
    assert place("transformer.ln_f.bias") == Place(None, "norm", "norm")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "h.0.attn.bias",
        "transformer.h.0.attn.masked_bias",
        "gpt_neox.layers.0.attention.bias",
    ],
)
def test_buffers_of_older_checkpoints_are_in_no_region(name: str) -> None:
    assert is_buffer(name)
    assert not any(in_region(name, region) for region in ("layers", "attention", "embeddings", "all"))


def test_layers_are_read_from_ranges() -> None:
    assert layer_numbers("0-3") == {0, 1, 2, 3} and layer_numbers("0,2,5-7") == {0, 2, 5, 6, 7}
    assert layers_label("7, 5-6,0,0") == "0,5-7" and layers_label("4") == "4" and layers_label("1,2") == "1-2"


@pytest.mark.parametrize("wrong", ["", "a", "3-1", "1--2", "-1", "1-", "1,,2", "99999", "1.5"])
def test_wrong_layers_are_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="such as 0-3"):
        layer_numbers(wrong)


def test_layers_narrow_every_region() -> None:
    inside, norm, outside = (
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.2.norm.weight",
        "lm_head.weight",
    )
    assert in_region(inside, "layers", "0,2") and not in_region(inside, "layers", "0-1")
    assert not in_region(inside, "attention", "2") and not in_region(norm, "layers", "2")
    assert in_region(norm, "all", "2") and in_region(outside, "all") and not in_region(outside, "all", "0-2")
    check_layers("0-2", [inside, outside], "model")
    check_layers(None, [outside], "model")
    with refused("layers 3 include layer 3, but the model has 3 layers, 0 to 2", place="model"):
        check_layers("3", [inside, outside], "model")
    with pytest.raises(UserError, match="no numbered layers"):
        check_layers("0", [outside], "model")
