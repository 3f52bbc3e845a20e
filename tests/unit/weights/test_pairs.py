"""Two folders of one model whose names differ by a prefix, or which differ outside of the region."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest
import torch

from sftlab.errors import UserError
from sftlab.weights.bits import STORED_TYPES, torch_type, type_name
from sftlab.weights.edits import Interpolation
from sftlab.weights.ladder import restore
from sftlab.weights.packing import pack
from sftlab.weights.pairs import check_pair, check_ranked, unwrapped
from sftlab.weights.restoration import ModelSource
from sftlab.weights.shards import Checkpoint
from tests.support.refusals import refused
from tests.support.weights_models import same_bits, stored, write_checkpoint

LAYER = "h.0.mlp.c_fc.weight"
SHAPES = {"wte.weight": (5, 3), LAYER: (3, 4), "h.0.ln_1.weight": (3,), "ln_f.weight": (3,)}
CONFIG = {"model_type": "gpt2", "num_hidden_layers": 1, "tie_word_embeddings": False}


def tensors(seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {f"{prefix}{name}": torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("prefix", ["transformer.", "model.", "gpt_neox.", "_orig_mod.", "module."])
@pytest.mark.parametrize("lacking", ["base", "tuned"])
def test_a_prefix_that_one_of_a_pair_lacks_is_recognised(prefix: str, lacking: str, tmp_path: Path) -> None:
    """The result is that of the pair with the tuned model's names, and a wrapper's prefix is never written."""
    wrapper = prefix in ("_orig_mod.", "module.")
    head = "lm_head.weight"
    with_head = {head: torch.ones(5, 3)}
    found = {"base": prefix, "tuned": prefix} | {lacking: ""}
    for number, name in enumerate(("base", "tuned")):
        stored_head = {f"{found[name] if wrapper else ''}{head}": with_head[head]}
        write_checkpoint(tmp_path / name, tensors(number, found[name]) | stored_head, CONFIG)
    written = "" if wrapper else found["tuned"]
    for number, name in enumerate(("b", "t")):
        write_checkpoint(tmp_path / name, tensors(number, written) | with_head, CONFIG)
    restore(tmp_path / "base", tmp_path / "tuned", "50", tmp_path / "out")
    restore(tmp_path / "b", tmp_path / "t", "50", tmp_path / "plain")
    one, other = (stored(tmp_path / folder / "restored-50") for folder in ("out", "plain"))
    assert one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)
    assert (one[f"{written}{LAYER}"] == tensors(0)[LAYER]).sum() == 6


WRAPPED_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def _wrapped(draw: Random, names: Iterable[str]) -> dict[str, str]:
    """Each name -> the name with wrappers around the model, in one order for all, and within it."""
    around = draw.choices((*WRAPPED_ANYWHERE, "module"), k=draw.randrange(5))
    found = {}
    for name in names:
        parts = list(around)
        for part in name.split("."):
            parts += [part, *draw.choices(WRAPPED_ANYWHERE, k=draw.choice((0, 0, 1, 2)))]
        found[name] = ".".join(parts)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_wrappers_of_all_kinds_orders_and_depths_are_left_out(seed: int, tmp_path: Path) -> None:
    """A pair with drawn wrappers, the tuned model packed or not, is restored as the pair without them."""
    draw = Random(seed)
    head = {"lm_head.weight": torch.ones(5, 3)}
    for number, name in enumerate(("b", "t")):
        plain = tensors(number) | head
        write_checkpoint(tmp_path / name, plain, CONFIG)
        wrapped = _wrapped(draw, plain)
        write_checkpoint(tmp_path / f"w{name}", {wrapped[key]: plain[key] for key in plain}, CONFIG)
    tuned = tmp_path / "wt"
    if seed % 2:
        tuned = tmp_path / "packed"
        pack(tmp_path / "wb", tmp_path / "wt", tuned)
    restore(tmp_path / "wb", tuned, "50", tmp_path / "out")
    restore(tmp_path / "b", tmp_path / "t", "50", tmp_path / "plain")
    one, other = (stored(tmp_path / folder / "restored-50") for folder in ("out", "plain"))
    assert one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


def test_a_module_within_a_model_keeps_its_name() -> None:
    """`module` is a wrapper where all names begin with it, and never takes the whole of a name."""
    names = ["module.h.0.module.weight", "module.module.weight"]
    assert list(unwrapped(names).values()) == ["h.0.module.weight", "module.weight"]
    names = ["h.0.module.weight", "module.weight"]
    assert list(unwrapped(names).values()) == names
    assert unwrapped([]) == {} and unwrapped(["module"]) == {"module": "module"}


def test_two_tensors_that_are_one_without_their_wrappers_are_refused(tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        write_checkpoint(tmp_path / name, tensors(0) | {"_orig_mod.wte.weight": torch.ones(5, 3)}, CONFIG)
    with refused("_orig_mod.wte.weight and wte.weight, which are both wte.weight", place="base"):
        restore(tmp_path / "base", tmp_path / "tuned", "10", tmp_path / "out")


@pytest.mark.parametrize("edit", [None, Interpolation(100, region="layers")])
def test_differences_outside_the_region_stay_as_tuned(edit: Interpolation | None, tmp_path: Path) -> None:
    base, tuned = tensors(0), tensors(1)
    further = {"mtp.layers.0.mlp.up_proj.weight": torch.ones(2, 2), "h.1.mlp.c_fc.weight": torch.ones(3, 4)}
    tuned["wte.weight"] = torch.ones(7, 3)
    head = {"lm_head.weight": torch.ones(5, 3)}
    write_checkpoint(tmp_path / "base", base | head, CONFIG)
    tuned |= head
    write_checkpoint(tmp_path / "tuned", tuned | further, CONFIG)
    if edit is None:
        restore(tmp_path / "base", tmp_path / "tuned", "100", tmp_path / "out")
        found = stored(tmp_path / "out/restored-100")
    else:
        found = dict(ModelSource(str(tmp_path / "base"), str(tmp_path / "tuned"), edit).tensors())
    expected = tuned | further | {LAYER: base[LAYER]}
    assert found.keys() == expected.keys()
    assert all(same_bits(found[name], expected[name]) for name in expected)
    with pytest.raises(UserError, match=r"must have the same parameters|was the vocabulary"):
        restore(tmp_path / "base", tmp_path / "tuned", "10", tmp_path / "all", region="all")


def test_a_difference_within_the_region_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", tensors(0) | {"lm_head.weight": torch.ones(5, 3)}, CONFIG)
    write_checkpoint(
        tmp_path / "tuned", tensors(1) | {LAYER: torch.ones(3, 5), "lm_head.weight": torch.ones(5, 3)}, CONFIG
    )
    with refused(r"c_fc\.weight has shape \[3, 5\], but \[3, 4\]"):
        restore(tmp_path / "base", tmp_path / "tuned", "10", tmp_path / "out")


def test_an_adapter_as_peft_saves_it_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    with refused("is an adapter without its model", advice="it is taken as a tuned model"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("kind", STORED_TYPES)
def test_a_base_model_is_refused_for_the_types_that_its_pair_is_refused_for(
    kind: str, tmp_path: Path
) -> None:
    """Of each type that a checkpoint may store, one parameter, within or outside of the layers."""
    for name in (LAYER, "wte.weight"):
        held = tensors(0) | {"lm_head.weight": torch.ones(5, 3), name: torch.ones(SHAPES[name])}
        held[name] = held[name].to(torch_type(kind))
        write_checkpoint(tmp_path / name, held, CONFIG)
        with Checkpoint.open(tmp_path / name) as base:
            if kind in ("BF16", "F16", "F32"):
                check_ranked(base)
                assert set(check_pair(base, base)) == held.keys()
                continue
            with refused(f"^{name} is ", place=name, value=type_name(kind), expected="float32 weights"):
                check_ranked(base)
            with refused(f"^{name} is ", place=name, value=type_name(kind)):
                check_pair(base, base)


def test_a_buffer_of_another_type_is_no_parameter_that_is_ranked(tmp_path: Path) -> None:
    mask = {"h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool), "lm_head.weight": torch.ones(5, 3)}
    write_checkpoint(tmp_path / "base", tensors(0) | mask, CONFIG)
    with Checkpoint.open(tmp_path / "base") as base:
        check_ranked(base)
