"""Models that cannot go through a study are refused by their config.json, in one line with folder and reason."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.inference.model_check import CPU_HEAD_SIZES, check_model, served_architectures

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 2,
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "encoder": ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "encoders and bare backbones"),
    "bare backbone": ({"architectures": ["LlamaModel"]}, "encoders and bare backbones"),
    "no architecture": ({"architectures": None}, "architectures is missing"),
    "vision": ({"model_type": "vit", "architectures": ["ViTModel"]}, "'vit' is no causal language model"),
    "encoder and decoder": (
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
        "'t5' is no",
    ),
    "its own code": ({"model_type": "own", "auto_map": {"AutoConfig": "x.X"}}, r"\(auto_map\) is never run"),
    "quantised": ({"quantization_config": {"quant_method": "gptq"}}, r"are quantised \(gptq\)"),
    "odd head": ({"hidden_size": 48}, "heads of size 24 are not computed by vLLM on the CPU"),
    "no engine": (
        {"model_type": "xlnet", "architectures": ["XLNetLMHeadModel"]},
        "vLLM does not serve XLNet",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_studied_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    change, reason = REFUSED[case]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | change))
    with pytest.raises(UserError, match=reason) as caught:
        check_model(tmp_path, on_cpu=True)
    assert str(caught.value).startswith(str(tmp_path / "config.json")) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("llama", "LlamaForCausalLM"),
        ("gpt2", "GPT2LMHeadModel"),
        ("gpt_neox", "GPTNeoXForCausalLM"),
        ("mixtral", "MixtralForCausalLM"),
        ("qwen3_moe", "Qwen3MoeForCausalLM"),
    ],
)
def test_usual_decoders_pass(kind: str, architecture: str, tmp_path: Path) -> None:
    config = LLAMA | {"model_type": kind, "architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_model(tmp_path, on_cpu=True)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 48}))
    check_model(tmp_path, on_cpu=False)


def test_the_head_sizes_are_those_of_the_installed_vllm() -> None:
    spec = find_spec("vllm")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "v1/attention/backends/cpu_attn.py"
    methods = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef)]
    (method,) = [node for node in methods if node.name == "get_supported_head_sizes"]
    (returned,) = [node.value for node in ast.walk(method) if isinstance(node, ast.Return)]
    assert returned is not None and tuple(ast.literal_eval(returned)) == CPU_HEAD_SIZES
    assert {"LlamaForCausalLM", "GPTNeoXForCausalLM", "MixtralForCausalLM"} < served_architectures()
