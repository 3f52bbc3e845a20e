"""What an engine finds in its environment when it starts, whatever other tools left there."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import KV_CACHE_SPACE, VllmEngine, environment

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 2,
}


class Starting(Exception):
    """Raised in place of an engine's start."""


@pytest.mark.parametrize("left", ["", "0", "40", None])
@pytest.mark.parametrize("gpus", [0, 1])
def test_the_variable_that_outweighs_the_runtime_is_gone_when_an_engine_starts(
    left: str | None, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the import of vLLM sets it."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    threads = torch.get_num_threads()
    runtime = EngineRuntime(timeout_seconds=None, threads=threads, gpus_per_engine=gpus, kv_cache_gib=0.5)
    wanted = environment(runtime)
    for name in (*wanted, KV_CACHE_SPACE):
        monkeypatch.setenv(name, "of another tool")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", wanted["VLLM_LOGGING_LEVEL"])
    seen: list[tuple[dict[str, str], dict[str, Any]]] = []

    def start(**arguments: Any) -> None:
        seen.append((dict(os.environ), arguments))
        raise Starting

    class Imported(SimpleNamespace):
        @property
        def LLM(self) -> Any:
            if left is None:
                monkeypatch.setenv(KV_CACHE_SPACE, "7")
            return start

    if left is not None:
        monkeypatch.setenv(KV_CACHE_SPACE, left)
    monkeypatch.setitem(sys.modules, "vllm", Imported(__spec__=find_spec("vllm")))  # type: ignore[arg-type]
    with pytest.raises(Starting):
        VllmEngine(str(tmp_path), EngineSpec(dtype="float32"), runtime)
    ((found, arguments),) = seen
    assert KV_CACHE_SPACE not in found and arguments["kv_cache_memory_bytes"] == 2**29
    spin = "GOMP_SPINCOUNT"  # of the user where it is given
    assert {name: found[name] for name in wanted if name != spin} == {
        name: value for name, value in wanted.items() if name != spin
    }
    assert gpus or found[spin] == "of another tool"


def test_the_installed_vllm_reads_this_variable_over_what_it_is_given() -> None:
    spec = find_spec("vllm")
    assert spec is not None and spec.origin is not None
    source = (Path(spec.origin).parent / "platforms" / "cpu.py").read_text()
    assert f'"{KV_CACHE_SPACE}"' in source and "cache_config.kv_cache_memory_bytes = " in source
