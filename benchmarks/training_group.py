"""Many small fine-tuning runs in worker groups: their wall time against that of their training steps alone.

    python -m benchmarks.training_group [--runs 50] [--examples 200] [--workers 1] [--groups 1] [--new-engines]

The base is a pocket model with random weights. All runs share the base and differ in seed, as those of a survey's set
do. Two references: the steps within the runs, timed from the batch to the optimiser, and with one worker a group also a
bare loop of PyTorch that takes the steps of one run in a process of one thread, with nothing else around them. All else
is overhead: the start of the worker groups, engines, exports, commits, and of the second reference DeepSpeed too.
Target: a run costs at most 1.5 times its steps where 50 share a group; exit code 1 where it is missed.
`--new-engines` builds an engine for each run, by a different clipping of gradients.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from sftlab.training.side_by_side import train_side_by_side
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


@dataclass(frozen=True)
class Times:
    """Seconds of all runs: of the whole call, until its first event, and of the steps within the runs."""

    runs: int
    groups: int
    whole: float
    start: float
    steps: float

    def over(self, bare: float) -> float:
        """What a run costs, for each second of its steps: groups train at once, so that each has a share of the runs.

        bare: seconds of the steps of one run.
        """
        return self.whole * self.groups / (self.runs * bare)

    def without_start(self, bare: float) -> float:
        """As `over`, without what comes before the first event: the start of the groups and a first step."""
        return (self.whole - self.start) * self.groups / (self.runs * bare)


def train(runs: Sequence[SFTRun], options: argparse.Namespace, folder: Path) -> Times:
    """Train all runs in the groups, and print what they are."""
    begun: list[float] = []

    def on_event(_: TrainingEvent) -> None:
        begun.append(time.perf_counter())

    runtime = TrainingRuntime(workers=options.workers)
    started = time.perf_counter()
    results = train_side_by_side(runs, runtime, options.groups, on_event, str(folder / "ray-train"))
    whole = time.perf_counter() - started
    print(
        f"{len(runs)} runs of {results[0].examples} examples, {results[0].steps} steps, "
        f"{options.groups} group(s) of {options.workers} worker(s)"
    )
    return Times(len(runs), options.groups, whole, begun[0] - started, sum(one.seconds for one in results))


def bare_loop(run: SFTRun) -> float:
    """Seconds of the steps of a run in plain PyTorch on one thread: no engine, no ranks, no events, no checks."""
    import torch
    from torch.nn.utils import clip_grad_norm_

    from sftlab.training.batches import answer_loss, collate, learning_rate, step_batches
    from sftlab.training.data import read_examples
    from sftlab.training.deepspeed import adamw
    from sftlab.training.hf_model import load_model

    torch.set_num_threads(1)
    ((examples, pad_id),) = read_examples([run])
    model = load_model(Path(run.base_model), run.spec, None).train()
    optimizer, batches = adamw(model, run.spec), step_batches(len(examples), run.spec)
    started = time.perf_counter()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run.spec, step, len(batches))
        tensors = collate([examples[i] for i in batch], pad_id)
        labels = tensors.pop("labels")
        loss = answer_loss(model(**tensors).logits, labels) / sum(examples[i].answer_tokens for i in batch)
        loss.backward()
        clip_grad_norm_(model.parameters(), run.spec.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def print_times(found: Times, bare: float | None) -> bool:
    """Print the ratios to both references; returns whether the target is met by the steps within the runs."""
    within = found.steps / found.runs
    references = {"within the runs": within} | ({} if bare is None else {"of a bare loop": bare})
    for name, seconds in references.items():
        print(
            f"steps {name:<16} {seconds:6.2f} s a run; with all else {found.over(seconds):.2f} x (target {TARGET})"
        )
        print(f"  without the start of the groups and a first step {found.without_start(seconds):.2f} x")
    print(f"the start of the groups and a first step: {found.start:.1f} s")
    return found.over(within) <= TARGET


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1, help="ranks of a group")
    parser.add_argument("--groups", type=int, default=1, help="groups that train at once")
    parser.add_argument("--new-engines", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = runs_of(options, Path(folder))
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            found = train(runs, options, Path(folder))
        finally:
            ray.shutdown()
        bare = bare_loop(runs[0]) if options.workers == 1 else None
    if not print_times(found, bare):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
