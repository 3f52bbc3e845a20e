"""Point 4: seven percentages restored on the CPU's cores, against plain copies and against plain torch on the GPU.

    python -m benchmarks.gpu.restore --work DIR [--model llama] [--percents 1,3,5,10,20,40,60]

`sftlab.weights.restore` reads the pair and writes a model for each percentage. The copies, seven files written by seven
threads, are the least that any way can take; the ratio to them should be at most 1.5. Plain torch loads both models
on the GPU once, ranks all relative changes in one flat float32 tensor, and for each percentage copies weights back and
saves the model. The models of both ways are compared weight by weight. `--model large` (8 billion weights) needs 32 GB
for the pair and 16 GB for each percentage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, arguments, run
from benchmarks.restoration import PERCENTS, in_layers, peak_bytes
from sftlab.weights.stream import thread_count

FILE = "model.safetensors"
MOST = 1.5
EPSILON = 1e-8


def restored(bench: Bench, base: Path, tuned: Path, percents: list[str], output: Path) -> float:
    """Seconds of `sftlab.weights.restore`, with a row of the cores and the memory that it took."""
    from sftlab.weights import restore

    call = restore  # imported when it is first used
    shutil.rmtree(output, ignore_errors=True)
    before, started = os.times(), time.perf_counter()
    call(base, tuned, percents, output)
    seconds, after = time.perf_counter() - started, os.times()
    worked = after.user + after.system - before.user - before.system
    size = (base / FILE).stat().st_size
    bench.row(
        "restored",
        seconds=round(seconds, 2),
        cores_used=round(worked / seconds, 1),
        threads=thread_count(),
        cores=os.cpu_count(),
        model_gb=round(size / 1e9, 2),
        written_gb_a_second=round(len(percents) * size / seconds / 1e9, 2),
        peak_gb=round(peak_bytes() / 1e9, 2),
    )
    return seconds


def copied(bench: Bench, tuned: Path, count: int, output: Path) -> float:
    """Seconds of as many copies of the tuned model's file, side by side."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    started = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda number: shutil.copyfile(tuned / FILE, output / f"{number}"), range(count)))
    seconds = time.perf_counter() - started
    shutil.rmtree(output)
    written = count * (tuned / FILE).stat().st_size
    bench.row("copied", seconds=round(seconds, 2), written_gb_a_second=round(written / seconds / 1e9, 2))
    return seconds


def plain_torch(bench: Bench, base: Path, tuned: Path, percents: list[str], output: Path) -> float:
    """Seconds of the plain way on the device: one loading, one ranking, a model for each percentage."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    torch.zeros(1, device=bench.device)
    bench.reset_peak()
    started = time.perf_counter()
    old, new = (load_file(folder / FILE, device=bench.device) for folder in (base, tuned))
    names = [name for name in sorted(new) if in_layers(name)]
    sizes = [new[name].numel() for name in names]
    flat = torch.empty(sum(sizes), dtype=torch.float32, device=bench.device)
    for name, part in zip(names, flat.split(sizes), strict=True):
        first, second = old[name].float(), new[name].float()
        part.copy_(((second - first).abs() / (first.abs() + EPSILON)).flatten())
    for percent in percents:
        chosen = torch.zeros_like(flat, dtype=torch.bool)
        chosen[torch.topk(flat, int(flat.numel() * float(percent) / 100), sorted=False).indices] = True
        model: dict[str, Any] = dict(new)
        for name, part in zip(names, chosen.split(sizes), strict=True):
            model[name] = torch.where(part.view(new[name].shape), old[name], new[name])
        save_file(model, output / f"{percent}.safetensors", metadata={"format": "pt"})
    bench.synchronize()
    seconds = time.perf_counter() - started
    bench.row("plain torch", device=bench.device, seconds=round(seconds, 2), peak_gpu_gb=bench.peak_gb())
    return seconds


def compared(percents: list[str], ours: Path, theirs: Path) -> dict[str, list[int]]:
    """For each percentage the weights that differ, and all weights. Equal changes at the cut may fall either way."""
    from safetensors.torch import load_file

    found = {}
    for percent in percents:
        one = load_file(ours / f"restored-{percent}" / FILE)
        other = load_file(theirs / f"{percent}.safetensors")
        assert one.keys() == other.keys()
        differing = sum(int((one[name] != other[name]).sum()) for name in one)
        found[percent] = [differing, sum(tensor.numel() for tensor in one.values())]
    return found


def measure(bench: Bench, options: argparse.Namespace) -> None:
    base, tuned = (Path(bench.model(f"{options.model}-{kind}")) for kind in ("base", "tuned"))
    percents: list[str] = options.percents.split(",")
    ours, theirs = bench.work / "restored", bench.work / "restored-plain"
    first = restored(bench, base, tuned, percents, ours)
    again = restored(bench, base, tuned, percents, ours)
    copies = copied(bench, tuned, len(percents), bench.work / "copies")
    best = min(first, again)
    bench.row("restoration of copies", ratio=round(best / copies, 2), wanted=f"at most {MOST}")
    with bench.part("plain torch"):
        plain = plain_torch(bench, base, tuned, percents, theirs)
        bench.row("restoration of plain torch", ratio=round(best / plain, 2))
        bench.row("same weights", differing=compared([percents[0], percents[-1]], ours, theirs))
    shutil.rmtree(ours)
    shutil.rmtree(theirs, ignore_errors=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=("llama", "large"), default="llama")
    parser.add_argument("--percents", default=",".join(PERCENTS))
    run(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
