"""Point 3: the same bits after a resume and after a rerun, and an export that loads; `throughput` has the rate.

    python -m benchmarks.gpu.training --work DIR [--model qwen] [--zero 3] [--long]

The loop of a worker runs in this process, one rank, without Ray: whole, again, and cut by the driver in the middle and
resumed from its checkpoint. --long makes examples of up to hundreds of tokens and of different lengths, so that
batches are padded: there the backward of attention may not be deterministic, which only a GPU can show.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import time
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gpu.bench import Bench, Use, arguments, run, some_facts
from sftlab.studies.knowledge.stages.training_sets import with_texts
from sftlab.training.checkpoints import call_token, checkpoint_root, take_over
from sftlab.training.deepspeed import prepare_process, start_deepspeed
from sftlab.training.loop import Rank, Stopped, train_all
from sftlab.training.records import SFTRun, TrainingEvent
from sftlab.training.spec import SFTSpec, TrainingRuntime

LONGEST = 24  # times that --long repeats a prompt at most


def write_examples(bench: Bench, count: int, long: bool, file: Path) -> None:
    table = with_texts(some_facts(bench, count))
    if long:
        prompts = [text * (1 + number % LONGEST) for number, text in enumerate(table["prompt"].to_pylist())]
        table = table.set_column(table.column_names.index("prompt"), "prompt", pa.array(prompts))
    pq.write_table(table, file)


def hashes(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in sorted(folder.glob("*.safetensors"))
    }


def join_group(runtime: TrainingRuntime, bench: Bench) -> None:
    """A process group of this process alone."""
    one = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update(one, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    prepare_process(runtime)
    import torch
    from torch.distributed import HashStore, init_process_group  # type: ignore[attr-defined]  # of a C++ module

    if not bench.cpu:
        torch.cuda.set_device(0)
    backend, store = "gloo" if bench.cpu else "nccl", HashStore()
    init_process_group(backend, store=store, rank=0, world_size=1)
    start_deepspeed(runtime)


class Trainer:
    """Runs one training set under several names."""

    def __init__(self, bench: Bench, options: argparse.Namespace, folder: Path) -> None:
        self.bench, self.options, self.folder = bench, options, folder
        self.runtime = TrainingRuntime(
            gpus_per_worker=0 if bench.cpu else 1,
            zero_stage=options.zero,
            threads=2 if bench.cpu else 4,
            checkpoint_every_steps=None,
            checkpoint_every_seconds=None,
        )
        self.spec = SFTSpec(max_length=2048)

    def train(self, name: str, every: int | None = None, stop_after: int | None = None) -> dict[str, str]:
        """Train, and return the hashes of the weights; none where the driver stopped the run."""
        import torch

        bench, stamps = self.bench, list[tuple[float, TrainingEvent]]()
        base, output = bench.model(f"{self.options.model}-base"), self.folder / name
        run_ = SFTRun(name, base, str(self.folder / "facts.parquet"), str(output), self.spec)
        token, scratch = call_token(), str(self.folder / "scratch")
        take_over(checkpoint_root(scratch, name), token)

        def emit(event: TrainingEvent | None) -> bool:
            if event is None:
                return False
            stamps.append((time.perf_counter(), event))
            return stop_after is not None and event.step >= stop_after

        runtime = self.runtime.model_copy(update={"checkpoint_every_steps": every})
        rank = Rank(0, 1, torch.device(bench.device), runtime, scratch, token, emit)
        bench.reset_peak()
        started, stopped = time.perf_counter(), False
        with Use(bench) as use:
            try:
                train_all([run_], rank)
            except Stopped:
                stopped = True
        steps = [(at, event) for at, event in stamps if event.kind == "step"]
        bench.row(
            "training",
            run=name,
            zero=self.options.zero,
            stopped=stopped,
            steps=len(steps),
            seconds=round(time.perf_counter() - started, 1),
            milliseconds_a_step=round(1000 * min(b[0] - a[0] for a, b in pairwise(steps)), 1),
            losses=[round(steps[at][1].loss, 4) for at in (0, -1)],
            resumed="resumed" in {event.kind for _, event in stamps},
            gpu_percent=use.percent,
            peak_gpu_gb=bench.peak_gb(),
        )
        return {} if stopped else hashes(output)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    from transformers import AutoModelForCausalLM

    folder = bench.work / f"training-{options.model}-{options.zero}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_examples(bench, options.limit or (48 if bench.cpu else 96), options.long, folder / "facts.parquet")
    trainer = Trainer(bench, options, folder)
    join_group(trainer.runtime, bench)
    whole = trainer.train("whole")
    same = {"zero": options.zero, "long": options.long, "hashes": whole}
    with bench.part("rerun"):
        bench.row("rerun", same_bits=whole == trainer.train("again"), **same)
    with bench.part("resume"):
        trainer.train("cut", every=2, stop_after=4)
        bench.row("resume", same_bits=whole == trainer.train("cut", every=2), **same)
    with bench.part("export"):
        model = AutoModelForCausalLM.from_pretrained(folder / "whole", local_files_only=True)
        bench.row("export", loads=True, tied=model.config.tie_word_embeddings, dtype=str(model.dtype))
    shutil.rmtree(folder)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=("llama", "qwen"), default="qwen")
    parser.add_argument("--zero", type=int, choices=(0, 1, 2, 3), default=3)
    parser.add_argument("--long", action="store_true", help="examples of many tokens and different lengths")
    parser.add_argument("--limit", type=int, help="examples; 96 on a GPU, in steps of eight")
    run(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
