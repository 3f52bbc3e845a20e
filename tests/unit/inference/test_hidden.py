"""Hidden states of last tokens: against transformers, in batches, of packed models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sftlab.inference.hidden import BATCH_TOKENS, batches, last_states, layer_modules
from sftlab.weights.packing import pack
from sftlab.weights.restoration import ModelSource
from tests.support.packing_models import llama_pair
from tests.support.refusals import refused
from tests.support.weights_models import save_model

PROMPTS = [(3, 4, 5, 6), (7,), (8, 9), (3, 4, 5, 7)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_states_are_those_of_the_blocks_of_each_prompt_alone(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    save_model(tmp_path / "base", family, seed=0, dtype=torch.float32)
    found = last_states(ModelSource(str(tmp_path / "base")), PROMPTS, "float32", "cpu")
    assert [state.shape for state in found] == [(4, 16), (4, 16)]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    for row, ids in enumerate(PROMPTS):
        with torch.no_grad():
            expected = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(found[0][row], expected[1][0, -1], atol=1e-5, rtol=1e-4)
        # transformers puts the final norm on its last state.
        norm = model.transformer.ln_f if family == "gpt2" else model.model.norm
        with torch.no_grad():
            torch.testing.assert_close(norm(found[1][row]), expected[2][0, -1], atol=1e-5, rtol=1e-4)


def test_packed_model_has_the_states_of_its_folder_and_others_than_its_base(tmp_path: Path) -> None:
    base, tuned = llama_pair(tmp_path)
    pack(base, tuned, tmp_path / "packed")
    plain, packed, before = (
        last_states(ModelSource(str(base), folder and str(folder)), PROMPTS, "bfloat16", "cpu")
        for folder in (tuned, tmp_path / "packed", None)
    )
    assert plain[0].dtype == torch.bfloat16
    for one, other, old in zip(plain, packed, before, strict=True):
        assert torch.equal(one, other) and not torch.equal(one, old)


def test_batches_hold_so_many_tokens_with_padding_and_every_row_once() -> None:
    lengths = [BATCH_TOKENS // 2, 3, BATCH_TOKENS + 5, 2, BATCH_TOKENS // 2]
    found = list(batches(lengths))
    assert found == [[3, 1], [0, 4], [2]]
    assert list(batches([])) == []


def test_models_that_transformers_cannot_read_are_refused_with_their_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with refused("cannot load the model", place=str(tmp_path), advice="measure.geometry"):
        last_states(ModelSource(str(tmp_path)), PROMPTS, "float32", "cpu")


def test_a_model_without_numbered_layers_is_refused_by_its_class() -> None:
    with refused("not found by their names", place="Linear", value=[], advice="measure.geometry"):
        layer_modules(torch.nn.Linear(2, 2))
