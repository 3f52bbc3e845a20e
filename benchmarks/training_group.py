"""Many small fine-tuning runs in one worker group: their wall time against that of their training steps alone.

    python -m benchmarks.training_group [--runs 50] [--examples 200] [--workers 2] [--new-engines]

The base is a pocket model with random weights. All runs share the base and differ in seed, as those of a survey's set
do. The steps are timed within the runs, from the batch to the optimiser. Everything else is overhead: the start of the
worker group, engines, exports and commits. Target: a run costs at most 1.5 times its steps where 50 share a group.
`--new-engines` builds an engine for each run, by a different clipping of gradients.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from benchmarks.instant import invented
from sftlab.facts.prompts import answer_target, question_prompt
from sftlab.facts.templates import published_topics
from sftlab.pocket.pretrain import new_model, train_tokenizer
from sftlab.pocket.spec import Shape
from sftlab.training.records import SFTRun, TrainingEvent
from sftlab.training.sft import train_runs
from sftlab.training.spec import SFTSpec, TrainingRuntime

TARGET = 1.5
SHAPE = Shape(hidden=128, layers=6, heads=4, intermediate=352, vocabulary=1000)
SPEC = SFTSpec(batch_size=8, epochs=2, learning_rate=1e-3, precision="fp32")


def write_inputs(folder: Path, examples: int) -> tuple[str, str]:
    """A base model with random weights, and a training set."""
    rows = list(invented(examples, list(published_topics().values())))
    prompts = [question_prompt(row["question"]) for row in rows]
    targets = [answer_target(row["object"]) for row in rows]
    pq.write_table(pa.table({"prompt": prompts, "target": targets}), folder / "train.parquet")
    tokenizer = train_tokenizer([a + b for a, b in zip(prompts, targets, strict=True)], SHAPE.vocabulary)
    tokenizer.save_pretrained(folder / "base")
    new_model(SHAPE, tokenizer).save_pretrained(folder / "base")
    return str(folder / "base"), str(folder / "train.parquet")


def runs_of(options: argparse.Namespace, folder: Path) -> list[SFTRun]:
    base, file = write_inputs(folder, options.examples)
    runs = []
    for number in range(options.runs):
        settings = {"seed": number, **({"max_grad_norm": 1 + number / 1e6} if options.new_engines else {})}
        spec = SPEC.model_copy(update=settings)
        runs.append(SFTRun(f"run-{number}", base, file, str(folder / f"out-{number}"), spec))
    return runs


def measure(runs: Sequence[SFTRun], workers: int, folder: Path) -> None:
    """Train in one group and print where the time went."""
    begun: list[float] = []

    def on_event(_: TrainingEvent) -> None:
        begun.append(time.perf_counter())

    started = time.perf_counter()
    results = train_runs(runs, TrainingRuntime(workers=workers), on_event, str(folder / "ray-train"))
    ended = time.perf_counter()
    steps, whole = sum(result.seconds for result in results), ended - started
    start = begun[0] - started
    print(f"{len(runs)} runs of {results[0].examples} examples, {results[0].steps} steps, {workers} workers")
    print(f"steps alone      {steps / len(runs):6.2f} s a run")
    print(f"with all else    {whole / len(runs):6.2f} s a run   {whole / steps:.2f} x (target {TARGET})")
    print(
        f"without the start of the group and its first step ({start:.1f} s)   {(whole - start) / len(runs):.2f} s a run"
        f"   {(whole - start) / steps:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--new-engines", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = runs_of(options, Path(folder))
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            measure(runs, options.workers, Path(folder))
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
