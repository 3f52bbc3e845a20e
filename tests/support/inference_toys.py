"""Toy models and facts for the tests of inference: random weights, a byte-level tokenizer, invented facts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sftlab.facts.table import facts_table
from sftlab.facts.templates import Topic
from sftlab.inference.spec import EngineRuntime

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[2]
RUNTIME = EngineRuntime(max_model_len=128, kv_cache_gib=0.05, threads=1, cpus_per_engine=1)
TEMPLATES = ("{subject} was born in", "The birthplace of {subject} is", "{subject} comes from")
TOPICS = {"P19": Topic("P19", "in-domain", "Where was {subject} born?", TEMPLATES)}
SHAPE = {
    "vocab_size": 300,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


@dataclass(frozen=True)
class FolderSource:
    """The tensors of a model folder."""

    folder: str

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        from safetensors.torch import load_file

        for path in sorted(Path(self.folder).glob("*.safetensors")):
            yield from load_file(path).items()


def start_ray(*folders: Path) -> None:
    """A local Ray whose workers import the package of this tree, the modules of this folder and those of others."""
    import ray

    here = {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "platform", ROOT, ROOT / "tests" / "ray", *folders)))
    }
    ray.init(address="local", num_cpus=4, include_dashboard=False, runtime_env={"env_vars": here})


def write_model(
    folder: Path,
    family: str = "llama",
    tied: bool = False,
    dtype: str = "float32",
    seed: int = 0,
    **changed: int,
) -> str:
    """A randomly initialised model with its tokenizer; wide weights make its answers differ from seed to seed.

    changed: entries of its configuration other than those of SHAPE.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, Any] = {**SHAPE, "tie_word_embeddings": tied, **changed}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def byte_tokenizer() -> Any:
    """One token a byte, after <s> and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {letter: i + 2 for i, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def invented_facts(count: int, accepted: tuple[str, ...] = ("a", "Wales")) -> pa.Table:
    """Facts whose accepted names are so short that a random model sometimes hits them."""
    return facts_table(
        {
            "fact_id": f"fact-{i:03d}",
            "topic": "P19",
            "subject": f"Person {i}",
            "object": accepted[0],
            "accepted": list(accepted),
            "question": TOPICS["P19"].ask(f"Person {i}"),
        }
        for i in range(count)
    )
