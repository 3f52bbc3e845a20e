"""Parameters that modules share: adapted, frozen and stored so that what is exported is what was trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sftlab.errors import UserError
from sftlab.execution.checks import check_base_model
from sftlab.inference.spec import EngineSpec
from sftlab.training.export import export
from sftlab.training.hf_model import add_lora, check_trainable
from sftlab.training.prevention import freeze_layers
from sftlab.training.records import SFTRun
from sftlab.training.sft import check_runs
from sftlab.training.spec import LoRASpec, SFTSpec, TrainingRuntime
from sftlab.training.stored_tensors import homes
from sftlab.weights.pairs import parameters, require_embeddings
from sftlab.weights.shards import Checkpoint
from tests.support.refusals import refused
from tests.support.weights_models import FAMILIES, save_model, save_tokenizer, stored

DENSE = ("llama", "gemma2", "phi3", "gpt2", "opt", "falcon")


def save(folder: Path, family: str, tied: bool) -> Path:
    name, options, _ = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**options | {"tie_word_embeddings": tied})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 20).unsqueeze(0), use_cache=False).logits
    return found


def linear_leaves(model: Any) -> list[str]:
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    return sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, kinds)})


@pytest.mark.parametrize(("family", "tied"), product(DENSE, (True, False)))
def test_an_adapted_model_is_exported_as_it_was_trained_or_refused(
    family: str, tied: bool, tmp_path: Path
) -> None:
    """Each linear layer in turn: the exported model computes what the adapted one computes."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    base = save(tmp_path / "base", family, tied)
    head = "lm_head"
    leaves = linear_leaves(load(base))
    assert head in leaves and len(leaves) > 2
    refused, before = set(), logits(load(base))
    for leaf in leaves:
        lora = LoRASpec(rank=2, alpha=8, target_modules=(leaf,))
        model = load(base)
        places = homes(base, model)
        try:
            adapted = add_lora(model, lora)
        except UserError as error:
            refused.add(leaf)
            names = {
                name
                for name, (part,) in places.items()
                if part.parameter is model.get_input_embeddings().weight
            }
            assert f"{head}.weight and " in str(error) and any(name in str(error) for name in names), error
            assert "tie_word_embeddings false" in str(error)
            with pytest.raises(UserError, match="one shared tensor"):
                check_trainable(base, SFTSpec(lora=lora))
            continue
        check_trainable(base, SFTSpec(lora=lora))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0, 1)
        export(SimpleNamespace(module=adapted), base, places, tmp_path / leaf, 0)
        trained, found = logits(adapted.eval()), logits(load(tmp_path / leaf))
        moved = (trained - before).abs().max()
        assert moved > 1e-4 and (trained - found).abs().max() < 0.01 * moved, leaf
    assert refused == ({head} if tied else set())


def share_across_layers(model: Any, whole_module: bool) -> Any:
    one, other = (model.model.layers[number].mlp for number in (0, 1))
    if whole_module:
        other.up_proj = one.up_proj
    else:
        other.up_proj.weight = one.up_proj.weight
    return model


@pytest.mark.parametrize("whole_module", [True, False])
def test_layers_that_share_a_weight_are_neither_adapted_nor_frozen_apart(
    whole_module: bool, tmp_path: Path
) -> None:
    base = save(tmp_path / "base", "llama", tied=False)
    first, second = (f"model.layers.{number}.mlp.up_proj.weight" for number in (0, 1))
    with pytest.raises(UserError, match=rf"up_proj, but {second} and {first} are one shared tensor"):
        add_lora(share_across_layers(load(base), whole_module), LoRASpec(target_modules=("up_proj",)))
    model = share_across_layers(load(base), whole_module)
    add_lora(model, LoRASpec(target_modules=("down_proj",)))
    for layers, frozen, other in (("1", second, first), ("0", first, second)):
        with pytest.raises(UserError, match=rf"freezes {frozen}, but {other}, outside of these layers"):
            freeze_layers(share_across_layers(load(base), whole_module), layers)
    model = share_across_layers(load(base), whole_module)
    freeze_layers(model, "0-1")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


IN_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from sftlab.training.records import SFTRun
from sftlab.training.sft import check_runs
from sftlab.training.spec import LoRASpec, SFTSpec, TrainingRuntime
assert "transformers" not in sys.modules
base, facts = sys.argv[1:3]
runs = [SFTRun(f"r{i}", base, facts, f"{base}-out{i}", SFTSpec(lora=LoRASpec(rank=i + 1))) for i in range(4)]
with ThreadPoolExecutor(len(runs)) as threads:
    print([found for found in threads.map(lambda run: check_runs([run], TrainingRuntime()), runs)])
"""


@pytest.mark.parametrize("says", [True, False])
def test_threads_may_check_runs_at_once_in_a_process_that_has_not_imported_transformers(
    says: bool, tmp_path: Path
) -> None:
    """As the training pool of a sweep does: each first import of a name of transformers would disturb the others."""
    base = save(tmp_path / "base", "llama", tied=False)
    if not says:
        config = json.loads((base / "config.json").read_text())
        del config["tie_word_embeddings"]
        (base / "config.json").write_text(json.dumps(config))
    pq.write_table(pa.table({"prompt": ["Who?"], "target": ["A"]}), tmp_path / "t.parquet")
    words = [sys.executable, "-c", IN_THREADS, str(base), str(tmp_path / "t.parquet")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[None, None, None, None]"), done.stderr


def test_what_config_says_of_ties_is_read_without_transformers(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "llama", tied=False)
    code = (
        "import sys; from sftlab.weights.pairs import parameters; from sftlab.weights.shards import Checkpoint\n"
        f"with Checkpoint.open({str(base)!r}) as base: print(len(parameters(base)), 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with Checkpoint.open(base) as checkpoint:
        assert done.stdout.split() == [str(len(parameters(checkpoint))), "False"]


def test_a_tied_layer_that_would_be_adapted_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "llama", tied=True)
    spec = SFTSpec(lora=LoRASpec(target_modules=("q_proj", "lm_head")))
    pq.write_table(pa.table({"prompt": ["Who?"], "target": ["A"]}), tmp_path / "t.parquet")
    run = SFTRun("r", str(base), str(tmp_path / "t.parquet"), str(tmp_path / "out"), spec)
    both = "lm_head.weight and model.embed_tokens.weight are one shared tensor"
    with pytest.raises(UserError, match=both):
        check_runs([run], TrainingRuntime())
    with pytest.raises(UserError, match=both):
        check_base_model(str(base), EngineSpec(), [spec])
    check_base_model(str(base), EngineSpec(), [SFTSpec(lora=LoRASpec(), freeze_layers="0")])
    assert not (tmp_path / "out").exists()


def rewrite(folder: Path, said: bool | None, head: str) -> None:
    """config.json says `said` (None: nothing) and the head is absent, a copy of the input embedding, or different."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(
        json.dumps(config | ({} if said is None else {"tie_word_embeddings": said}))
    )
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight", None)
    if head != "absent":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * (1 if head == "copy" else 2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "said", "head"),
    product(("llama", "gemma"), (True, False, None), ("absent", "copy", "different")),
)
def test_what_config_says_of_the_embeddings_and_what_is_stored_agree_or_are_refused(
    family: str, said: bool | None, head: str, tmp_path: Path
) -> None:
    save_model(tmp_path / "m", family, seed=0, dtype=torch.float32)
    rewrite(tmp_path / "m", said, head)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    tied = model.config.tie_word_embeddings
    with Checkpoint.open(tmp_path / "m") as checkpoint:
        if info["missing_keys"]:
            assert (tied, head) == (False, "absent")
            with refused(r"not tied, yet model\.embed_tokens\.weight is stored without"):
                require_embeddings(checkpoint)
        elif tied and head == "different":
            with pytest.raises(UserError, match=r"lm_head\.weight and model\.embed_tokens\.weight differ"):
                parameters(checkpoint)
            with pytest.raises(
                UserError, match=r"model\.embed_tokens\.weight differ, but are one|differ; save"
            ):
                check_trainable(tmp_path / "m", SFTSpec())
        else:
            require_embeddings(checkpoint)
            check_trainable(tmp_path / "m", SFTSpec())
            assert len(parameters(checkpoint)) == len(list(model.parameters()))


def test_tied_embeddings_that_are_stored_as_the_head_alone_are_refused_for_vllm(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "llama", tied=True)
    tensors = stored(base)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load(base).model.embed_tokens.weight, tensors["lm_head.weight"])
    with refused(r"tied, yet lm_head\.weight is stored without the input embedding"):
        check_base_model(str(base), EngineSpec(), [SFTSpec()])


def test_a_type_that_cannot_be_ranked_is_refused_before_a_model_is_tuned(tmp_path: Path) -> None:
    base = save(tmp_path / "base", "llama", tied=True)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = stored(base)
    save_file(tensors | {name: tensors[name].double()}, base / "model.safetensors", metadata={"format": "pt"})
    check_base_model(str(base), EngineSpec(), [])
    with refused(f"^{name} is float64", place="base", value="float64"):
        check_base_model(str(base), EngineSpec(), [SFTSpec()])
