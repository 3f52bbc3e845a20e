"""Names of modules to adapt: each is that of a module of the model, whatever its family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers.pytorch_utils import Conv1D

from sftlab.errors import UserError
from sftlab.training.hf_model import check_adapted, require_targets
from sftlab.training.spec import LoRASpec, SFTSpec
from tests.support.refusals import refused
from tests.support.weights_models import FAMILIES


def built(family: str) -> Any:
    name, options, _ = FAMILIES[family]
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**options))


def linear(model: Any) -> list[str]:
    return [key for key, one in model.named_modules() if isinstance(one, torch.nn.Linear | Conv1D)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_end_of_a_module_s_name_is_known_and_every_misspelt_one_is_refused_with_the_right_one(
    family: str,
) -> None:
    model = built(family)
    keys = linear(model)
    assert keys
    ends = {
        ".".join(parts[-n:]) for key in keys for parts in [key.split(".")] for n in range(1, len(parts) + 1)
    }
    for end in ends:
        require_targets(model, [end])
    leaves = sorted({key.rpartition(".")[2] for key in keys})
    for leaf in leaves:
        for wrong in (f"{leaf}_", leaf[1:], leaf.upper(), f"x{leaf}"):
            with refused(
                f"no module of the model is named {wrong}$", place="sft.lora.target_modules"
            ) as caught:
                require_targets(model, [leaf, wrong])
            assert caught.value.value == [wrong]
            assert all(name in caught.value.advice for name in leaves)
        with refused(advice=f"did you mean {leaf}"):
            require_targets(model, [f"{leaf}_"])
    with refused("names no module", value=[]):
        require_targets(model, [])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt-neox", "mixtral"])
def test_a_model_is_adapted_as_its_names_say_or_not_at_all(family: str) -> None:
    leaves = {key.rpartition(".")[2] for key in linear(built(family))} - {"lm_head", "embed_out"}
    check_adapted(built(family), SFTSpec(lora=LoRASpec(target_modules=tuple(leaves))))
    embedding = next(
        key for key, one in built(family).named_modules() if isinstance(one, torch.nn.Embedding)
    ).rpartition(".")[2]
    for odd in ("nonsense", embedding, "0"):
        for targets in ((odd,), (*sorted(leaves), odd)):
            with pytest.raises(UserError) as caught:
                check_adapted(built(family), SFTSpec(lora=LoRASpec(target_modules=targets)))
            assert caught.value.place is not None
            assert caught.value.place.file == "sft.lora.target_modules"
