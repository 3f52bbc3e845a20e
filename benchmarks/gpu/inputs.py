"""Facts and models with random weights for the other programs; on a GPU also a row that describes the machine.

    python -m benchmarks.gpu.inputs --work DIR [--data data/entity_questions.zip] [--only llama qwen]

Each model is a pair, MODEL-base and a slightly changed MODEL-tuned. `llama` is untied and has 1.1 billion weights,
`qwen` is tied, has 0.5 billion and a vocabulary that vLLM pads, `wide` has Llama 3's vocabulary of 128,256, and
`large`, made where it is named, has 8 billion. Without --data the facts are invented; without --tokenizer a byte-level
tokenizer is trained on the facts.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, arguments, run
from sftlab.facts.table import TOPICS_FILE

SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
# family, tied, vocabulary, hidden, intermediate, layers, heads, heads of keys and values
SHAPES: dict[str, tuple[str, bool, int, int, int, int, int, int]] = {
    "llama": ("llama", False, 32_000, 2048, 5632, 22, 32, 4),
    "qwen": ("qwen2", True, 32_003, 896, 4864, 24, 14, 2),
    "wide": ("llama", False, 128_256, 2048, 8192, 16, 32, 8),
    "large": ("llama", False, 128_256, 4096, 14_336, 32, 32, 8),
}
SMALL = (128, 256, 2, 4, 2)  # on the CPU; from hidden on
SMALL_VOCABULARY = {"llama": 4_000, "qwen": 4_003, "wide": 4_000, "large": 4_000}
TOKENS = 2048
SPREAD, MOVED = 0.02, 3e-4  # standard deviations of weights, and of the changes of the tuned model
OUTPUT_FACTOR = 3.0  # gives logits a spread like that of a trained model
TEXTS = 20_000


def configuration(name: str, cpu: bool) -> Any:
    """transformers' configuration of a model."""
    from transformers import AutoConfig

    family, tied, vocabulary, *shape = SHAPES[name]
    if cpu:
        vocabulary, shape = SMALL_VOCABULARY[name], list(SMALL)
    hidden, intermediate, layers, heads, kv_heads = shape
    return AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=TOKENS,
        tie_word_embeddings=tied,
        **SPECIAL,
    )


def write_pair(name: str, bench: Bench, tokenizer: Path) -> int:
    """Writes the base and the tuned model; returns the number of weights. Drawn on the GPU where there is one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    with torch.device(bench.device):
        model = AutoModelForCausalLM.from_config(configuration(name, bench.cpu), dtype=torch.bfloat16)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim > 1 or "bias" in key:
                parameter.normal_(0, SPREAD)
        model.get_output_embeddings().weight.mul_(OUTPUT_FACTOR)
    for kind in ("base", "tuned"):
        folder = Path(bench.model(f"{name}-{kind}"))
        shutil.rmtree(folder, ignore_errors=True)
        if kind == "tuned":
            with torch.no_grad():
                for parameter in model.parameters():
                    moved = parameter.float() + torch.randn_like(parameter, dtype=torch.float32) * MOVED
                    parameter.copy_(moved.to(parameter.dtype))
        model.save_pretrained(folder, max_shard_size="50GB")
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
        # Qwen2's class reads digits in its way, which tokenizer.json must have too.
        AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(folder)
    return sum(int(parameter.numel()) for parameter in model.parameters())


def write_facts(bench: Bench, source: Path | None) -> None:
    """The facts folder of a pocket world, of real or of invented facts."""
    from sftlab.facts.prepare import read_source
    from sftlab.pocket.pretrain import build_facts
    from sftlab.pocket.spec import PocketSpec

    tables = None if source is None else read_source(source, None)[0]
    build_facts(PocketSpec(source=None if source is None else str(source)), bench.facts, tables)


def write_tokenizer(bench: Bench, given: Path | None) -> Path:
    """A folder with the given tokenizer, or with one of the kind of Llama 3 that is trained on the facts."""
    from sftlab.facts.table import read_facts
    from tests.support.tokenizers_built import byte_level

    folder = bench.work / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    if given is not None:
        folder.mkdir(parents=True)
        for file in given.glob("*token*"):
            shutil.copy(file, folder)
        return folder
    facts = read_facts(bench.facts, "train")
    texts = [f"{row['question']} {row['object']}" for row in facts.to_pylist()[:TEXTS]]
    vocabulary = min(shape[2] for shape in SHAPES.values())
    byte_level(texts, vocabulary=1_000 if bench.cpu else vocabulary).save_pretrained(folder)
    return folder


def describe_machine(bench: Bench) -> None:
    """The card, and how fast it multiplies and copies."""
    import torch

    fields = "name,memory.total,driver_version,power.limit,clocks.max.sm"
    card = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
        check=True,
        capture_output=True,
        text=True,
    )

    def milliseconds(work: Callable[[], object], times: int) -> float:
        for _ in range(3):
            work()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(times):
            work()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / times

    wide = 8192
    one = torch.randn(wide, wide, device="cuda", dtype=torch.bfloat16)
    two = torch.randn_like(one)
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    multiply, copy = milliseconds(lambda: one @ two, 20), milliseconds(lambda: target.copy_(source), 5)
    bench.row(
        "machine",
        card=card.stdout.strip(),
        torch=torch.__version__,
        python=platform.python_version(),
        cores=os.cpu_count(),
        teraflops=round(2 * wide**3 / multiply / 1e9, 1),
        copied_terabytes_a_second=round(2 * source.numel() / copy / 1e9, 2),
        free_gib_of_work=shutil.disk_usage(bench.work).free >> 30,
    )


def measure(bench: Bench, options: argparse.Namespace) -> None:
    if not bench.cpu:
        with bench.part("machine"):
            describe_machine(bench)
    if not (bench.facts / TOPICS_FILE).exists():  # a later call may add a model
        write_facts(bench, options.data)
    tokenizer = write_tokenizer(bench, options.tokenizer)
    for name in options.only:
        with bench.part(f"model {name}"):
            started = time.perf_counter()
            bench.reset_peak()  # frees what the last model has left
            weights = write_pair(name, bench, tokenizer)
            bench.row("model", name=name, weights=weights, seconds=round(time.perf_counter() - started, 1))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="zip or folder of EntityQuestions")
    parser.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json")
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=["llama", "qwen", "wide"])
    run(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
