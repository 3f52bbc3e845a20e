"""Restoration of a ladder against the plain way: time, peak memory, and that both pick the same weights.

python -m benchmarks.restoration [--layers 17] [--folder DIR] [--json FILE]

The pair is a Llama-like model of about 280 million bfloat16 weights and a slightly changed copy. Ours is
one call of `sftlab.weights.ladder.restore` for seven percentages. The peer, in this file in plain torch,
does what the published code of the study does, once per percentage: load both models, write all relative
changes into one flat tensor in the models' type, `topk`, copy the chosen weights back, save. Each run has a
process of its own; start-up and imports count for both. Targets: at least 20 times faster than the seven
runs, at most 1/5 of the peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PERCENTS = ("1", "3", "5", "10", "20", "40", "60")
SOURCE = Path(__file__).resolve().parents[1] / "platform"


def model_shapes(layers: int, hidden: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Parameter names and shapes of an untied Llama with 4 x hidden^2 attention weights per layer."""
    wide = hidden * 11 // 4
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }
    for layer in range(layers):
        start = f"model.layers.{layer}"
        for name in "qkvo":
            shapes[f"{start}.self_attn.{name}_proj.weight"] = (hidden, hidden)
        for name, shape in {"gate": (wide, hidden), "up": (wide, hidden), "down": (hidden, wide)}.items():
            shapes[f"{start}.mlp.{name}_proj.weight"] = shape
        shapes[f"{start}.input_layernorm.weight"] = (hidden,)
        shapes[f"{start}.post_attention_layernorm.weight"] = (hidden,)
    return shapes


def make_pair(
    folder: Path, layers: int, hidden: int = 1024, vocabulary: int = 32_000, kind: str = "bfloat16"
) -> int:
    """Writes folder/base and folder/tuned; returns the number of weights."""
    import torch
    from safetensors.torch import save_file

    shapes = model_shapes(layers, hidden, vocabulary)
    dtype = getattr(torch, kind)
    draw = torch.Generator().manual_seed(0)
    base, tuned = {}, {}
    for name, shape in shapes.items():
        weights = torch.randn(shape, generator=draw) * 0.02
        base[name] = weights.to(dtype)
        tuned[name] = (base[name].float() + torch.randn(shape, generator=draw) * 1e-4).to(dtype)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": hidden * 11 // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "dtype": kind,
    }
    for name, tensors in {"base": base, "tuned": tuned}.items():
        (folder / name).mkdir(parents=True)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(config))
        (folder / name / "tokenizer.json").write_text("{}")  # is copied, and read by nobody
    return sum(tensor.numel() for tensor in base.values())


def in_layers(name: str) -> bool:
    return "layers" in name and "norm" not in name


def plain_restore(base: Path, tuned: Path, percent: str, output: Path) -> None:
    """The peer: one percentage, both models and one flat difference in memory."""
    import torch
    from safetensors.torch import load_file, save_file

    old, new = load_file(base / "model.safetensors"), load_file(tuned / "model.safetensors")
    names = [name for name in new if in_layers(name)]
    total = sum(new[name].numel() for name in names)
    flat = torch.empty(total, dtype=new[names[0]].dtype)
    start = 0
    for name in names:
        change = (new[name] - old[name]).abs() / (old[name].abs() + 1e-8)
        flat[start : start + change.numel()] = change.view(-1)
        start += change.numel()
    chosen = torch.topk(flat, int(total * float(percent) / 100)).indices
    mask = torch.zeros(total, dtype=torch.bool)
    mask[chosen] = True
    start = 0
    for name in names:
        part = mask[start : start + new[name].numel()].view(new[name].shape)
        new[name][part] = old[name][part]
        start += new[name].numel()
    output.mkdir(parents=True)
    save_file(new, output / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(tuned / "config.json", output / "config.json")


def our_restore(base: Path, tuned: Path, percents: str, output: Path) -> None:
    from sftlab.weights.ladder import restore

    restore(base, tuned, percents, output)


@dataclass(frozen=True)
class Cost:
    """What a fresh process took: wall seconds, processor seconds and peak resident GB."""

    seconds: float
    processor_seconds: float
    peak_gb: float

    def __str__(self) -> str:
        return f"{self.seconds:6.1f} s, {self.processor_seconds:6.1f} processor s, {self.peak_gb:5.2f} GB"


def measured(way: str, folder: Path, percents: str, output: Path) -> Cost:
    """Runs `way` in a process of its own."""
    command = [sys.executable, __file__, "--child", way, "--folder", str(folder), "--percents", percents]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run(
        [*command, "--output", str(output)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, after = time.perf_counter() - begin, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(seconds, processor, float(done.stdout.split()[-1]) / 1e9)


def peak_bytes() -> int:
    """Peak resident memory of this process; getrusage would include the parent's before exec."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def check_equal(folder: Path) -> int:
    """Compares our ladder on a small float32 pair with a stable sort of all weights in numpy; returns the
    weights.
    """
    import numpy as np
    from safetensors.numpy import load_file

    make_pair(folder, layers=2, hidden=256, vocabulary=512, kind="float32")
    our_restore(folder / "base", folder / "tuned", ",".join(PERCENTS), folder / "ours")
    base, tuned = (load_file(folder / name / "model.safetensors") for name in ("base", "tuned"))
    names = sorted(name for name in base if in_layers(name))
    old = np.concatenate([base[name].ravel() for name in names])
    new = np.concatenate([tuned[name].ravel() for name in names])
    order = np.argsort(-(np.abs(new - old) / (np.abs(old) + np.float32(1e-8))), kind="stable")
    for percent in PERCENTS:
        expected = new.copy()
        expected[order[: len(old) * int(percent) // 100]] = old[order[: len(old) * int(percent) // 100]]
        ours = load_file(folder / "ours" / f"restored-{percent}" / "model.safetensors")
        assert np.array_equal(expected, np.concatenate([ours[name].ravel() for name in names])), percent
        assert all(np.array_equal(ours[name], tuned[name]) for name in tuned if name not in names), percent
    return len(old)


def compare(folder: Path, layers: int) -> dict[str, float]:
    print(
        f"same selection as a stable numpy sort: {check_equal(folder / 'small'):,} weights, all percentages"
    )
    weights = make_pair(folder / "pair", layers)
    print(f"pair: {weights:,} bfloat16 weights, {', '.join(PERCENTS)} %")
    plain = []
    for percent in PERCENTS:
        output = folder / f"plain-{percent}"
        plain.append(measured("plain", folder / "pair", percent, output))
        print(f"  plain torch, {percent:>2} %: {plain[-1]}", flush=True)
        shutil.rmtree(output)
    runs = []
    for run in range(3):
        runs.append(measured("ours", folder / "pair", ",".join(PERCENTS), folder / f"ours-{run}"))
        print(f"  ours, all of them: {runs[-1]}", flush=True)
        shutil.rmtree(folder / f"ours-{run}")
    ours = sorted(runs, key=lambda cost: cost.seconds)[1]
    plain_seconds, plain_peak = sum(cost.seconds for cost in plain), max(cost.peak_gb for cost in plain)
    return {
        "weights": weights,
        "plain_seconds": plain_seconds,
        "plain_peak_gb": plain_peak,
        "seconds": ours.seconds,
        "peak_gb": max(cost.peak_gb for cost in runs),
        "times_faster": plain_seconds / ours.seconds,
        "times_less_processor": sum(cost.processor_seconds for cost in plain) / ours.processor_seconds,
        "memory_ratio": max(cost.peak_gb for cost in runs) / plain_peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=17)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--percents", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work = plain_restore if options.child == "plain" else our_restore
        work(options.folder / "base", options.folder / "tuned", options.percents, options.output)
        print(peak_bytes())
        return
    sys.path.insert(0, str(SOURCE))
    with tempfile.TemporaryDirectory(prefix="restoration-", dir=options.folder) as folder:
        figures = compare(Path(folder), options.layers)
    print(f"time: {figures['times_faster']:.1f} times faster than seven plain runs (target: at least 20)")
    print(f"processor time: {figures['times_less_processor']:.1f} times less (says more on a busy machine)")
    print(f"peak memory: {figures['memory_ratio']:.3f} of the plain run's (target: at most 0.2)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
