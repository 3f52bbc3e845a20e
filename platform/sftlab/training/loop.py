"""The loop of one rank: train run after run in one process group, checkpoint, export, commit."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sftlab.store.mirror import push
from sftlab.training.batches import (
    Example,
    answer_loss,
    collate,
    dropout_seed,
    learning_rate,
    micro_batches,
    step_batches,
)
from sftlab.training.checkpoints import (
    checkpoint_root,
    drop_checkpoints,
    drop_copies,
    fetch_checkpoints,
    is_owned,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sftlab.training.data import Encoded, read_examples
from sftlab.training.export import export
from sftlab.training.failures import Superseded, disk_errors
from sftlab.training.gradient_norm import take_step
from sftlab.training.live import Held, Live
from sftlab.training.prevention import kl_to_base, original_logits
from sftlab.training.records import (
    DivergedError,
    History,
    KeptEpoch,
    SFTRun,
    TrainingEvent,
    is_finished,
    missing_epochs,
    read_result,
    run_identity,
    run_layout,
    write_result,
)
from sftlab.training.spec import TrainingRuntime, accumulation_steps

Emit = Callable[[TrainingEvent | None], bool]
"""Takes an event of rank 0 (or none) to the driver; True is the driver's wish that the workers stop."""


class Stopped(Exception):
    """The driver asked for an end; a run that had begun has a checkpoint and can be resumed."""


Decision = Literal["go on", "save", "stop", "yield"]
Shared = TypeVar("Shared")


@dataclass
class Rank:
    """The position of this process in the worker group."""

    rank: int
    workers: int
    device: Any
    runtime: TrainingRuntime
    storage_dir: str
    token: str
    emit: Emit


@dataclass
class Training:
    """One run on its way: engine, data and what has been measured."""

    run: SFTRun
    live: Live
    examples: list[Example]
    pad_id: int
    batches: list[list[int]]
    history: History
    identity: dict[str, Any]
    saved_at: float

    def event(self, kind: Any, rate: float = 0.0, epoch: int | None = None) -> TrainingEvent:
        """An event that reports the progress of this run."""
        h = self.history
        speed = h.tokens / max(h.seconds, 1e-9)
        return TrainingEvent(
            self.run.run_id, kind, len(h.losses), len(self.batches), h.losses[-1], rate, speed, epoch
        )

    def last_step(self, kept: KeptEpoch) -> int:
        """Number of steps that a kept epoch ends after."""
        return kept.epoch * (len(self.batches) // self.run.spec.epochs)


def begin(run: SFTRun, me: Rank, live: Live, examples: list[Example], pad_id: int) -> Training:
    """Go to the last checkpoint of this run, if there is one that no missing epoch comes before."""
    identity = {**run_identity(run), "layout": run_layout(me.runtime)}
    training = Training(
        run=run,
        live=live,
        examples=examples,
        pad_id=pad_id,
        batches=step_batches(len(examples), run.spec),
        history=History([], []),
        identity=identity,
        saved_at=time.monotonic(),
    )
    root = checkpoint_root(me.storage_dir, run.run_id)
    fetch_checkpoints(root)
    found = latest_checkpoint(root, identity) if me.rank == 0 else None
    if found is not None and any(training.last_step(kept) <= found[1] for kept in missing_epochs(run)):
        found = None
    found = from_rank0(found, me)
    if found is not None:
        tag, _, training.history = found
        load_checkpoint(live.engine, root, tag)
        if me.rank == 0:
            me.emit(training.event("resumed"))
    return training


def train_step(training: Training, me: Rank, step: int) -> None:
    """One optimiser step on one global batch; adds its loss to the history."""
    import torch
    import torch.distributed as dist

    run, engine = training.run, training.live.engine
    batch = training.batches[step]
    answer_tokens = sum(training.examples[i].answer_tokens for i in batch)
    micro, _ = accumulation_steps(run.spec, me.runtime)
    parts = micro_batches(batch, me.rank, me.workers, micro)
    rate = learning_rate(run.spec, step, len(training.batches))
    for group in training.live.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), device=me.device)
    for number, part in enumerate(parts):
        seed_generators(dropout_seed(run.spec.seed, step, me.rank, number), me.device)
        tensors = collate([training.examples[i] for i in part], training.pad_id)
        tensors = {name: tensor.to(me.device) for name, tensor in tensors.items()}
        engine.set_gradient_accumulation_boundary(number == len(parts) - 1)
        labels = tensors.pop("labels")
        logits = engine(**tensors).logits
        loss = answer_loss(logits, labels) / answer_tokens
        total += loss.detach()
        if run.spec.kl_to_base is not None:
            wanted = original_logits(training.live.original, tensors)
            loss = loss + run.spec.kl_to_base * kl_to_base(wanted, logits, labels) / answer_tokens
        # DeepSpeed averages gradients over the ranks; the sum is wanted.
        engine.backward(loss * me.workers, scale_wrt_gas=False)
    norm = take_step(engine)
    if me.workers > 1:
        dist.all_reduce(total)
    history = training.history
    history.gradient_norms += [None] * (
        len(history.losses) - len(history.gradient_norms)
    )  # of an older checkpoint
    history.gradient_norms.append(norm)
    history.losses.append(total.item())
    history.learning_rates.append(rate)
    history.answer_tokens += answer_tokens
    history.tokens += sum(len(training.examples[i].ids) for i in batch)


def seed_generators(seed: int, device: Any) -> None:
    """Seed what the model may draw from: `torch.manual_seed` also looks for all other kinds of devices, for 2 ms."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def train(training: Training, me: Rank) -> None:
    """All steps that are left. Raises DivergedError on NaN; Stopped and Superseded as they say."""
    run, history = training.run, training.history
    root = checkpoint_root(me.storage_dir, run.run_id)
    while len(history.losses) < len(training.batches):
        started = time.monotonic()
        step = len(history.losses)
        train_step(training, me, step)
        history.seconds += time.monotonic() - started
        if not math.isfinite(history.losses[-1]):
            raise DivergedError(
                f"the loss of step {step + 1} of {len(training.batches)} is {history.losses[-1]}",
                place=f"run {run.run_id!r}",
                value=history.losses[-1],
                advice=advice(run),
            )
        for kept in run.kept:
            if training.last_step(kept) == step + 1:
                keep(training, me, kept)
        decision = decide(training, me, root)
        if decision == "yield":
            raise Superseded(run.run_id)
        if decision in ("save", "stop"):
            with disk_errors(root):
                save_checkpoint(training.live.engine, root, step + 1, history, training.identity)
            training.saved_at = time.monotonic()
            if me.rank == 0:
                me.emit(training.event("checkpoint", history.learning_rates[-1]))
        if decision == "stop":
            raise Stopped(run.run_id)


def advice(run: SFTRun) -> str:
    """What helps where numbers have become infinite."""
    return (
        f"lower sft.learning_rate (now {run.spec.learning_rate:g}), or check {run.base_model} for NaN or "
        "infinite weights."
    )


def decide(training: Training, me: Rank, root: Path) -> Decision:
    """What all ranks do after a step, decided by rank 0."""
    if me.rank == 0:
        done, runtime = len(training.history.losses), me.runtime
        stop = me.emit(training.event("step", training.history.learning_rates[-1]))
        by_steps = runtime.checkpoint_every_steps is not None and done % runtime.checkpoint_every_steps == 0
        waited = time.monotonic() - training.saved_at
        by_time = runtime.checkpoint_every_seconds is not None and waited >= runtime.checkpoint_every_seconds
        due = (by_steps or by_time) and done < len(training.batches)
        choice: Decision = "stop" if stop else "save" if due else "go on"
        return from_rank0(choice if is_owned(root, me.token) else "yield", me)
    return from_rank0(None, me)


def from_rank0(value: Shared | None, me: Rank) -> Shared:
    """Rank 0's value on every rank: a shared mount may show the other nodes an older state."""
    import torch.distributed as dist

    box: list[Any] = [value]
    if me.workers > 1:
        dist.broadcast_object_list(box, src=0, device=me.device)
    shared: Shared = box[0]
    return shared


def keep(training: Training, me: Rank, kept: KeptEpoch | None = None) -> None:
    """Export and commit the model after an epoch (None: the last) unless it is committed already.

    Raises DivergedError on infinite weights.
    """
    import torch.distributed as dist

    run, live = training.run, training.live
    if from_rank0(me.rank == 0 and read_result(run, kept) is not None, me):
        return
    output = Path((kept or run).output_dir)
    try:
        export(live.engine, Path(run.base_model), live.places, output, me.rank, run.form)
    except DivergedError as error:
        raise DivergedError(
            error.problem, place=f"run {run.run_id!r}", value=error.value, advice=advice(run)
        ) from error
    dist.barrier()
    if me.rank == 0:
        push(output)
        write_result(run, me.runtime, len(training.examples), training.history, kept)
        if kept is not None:
            me.emit(training.event("kept", training.history.learning_rates[-1], kept.epoch))


def finish(training: Training, me: Rank) -> None:
    """Export the model, commit the run, drop its checkpoints. Raises as `keep`."""
    root = checkpoint_root(me.storage_dir, training.run.run_id)
    keep(training, me)
    if me.rank == 0:
        drop_checkpoints(root)
        me.emit(training.event("finished", training.history.learning_rates[-1]))
    drop_copies(root)


def train_all(runs: Sequence[SFTRun], me: Rank) -> None:
    """Train every run that is not committed yet, in order; all ranks call this together.

    All training sets are read first, so that a wrong example is reported before anything has been trained.
    A run starts with the engine of the one before where the two have what `live_key` says in common.
    Raises UserError, DivergedError, Stopped and Superseded on all ranks alike.
    """
    pending = from_rank0([run for run in runs if me.rank == 0 and not is_finished(run)], me)
    data = read_examples(pending)
    # DeepSpeed and `release` collect garbage many times a run; without the libraries' own objects, which
    # stay anyway, that is ten times quicker.
    gc.collect()
    gc.freeze()
    held = Held(me.runtime, me.rank, me.device)
    try:
        for run, encoded in zip(pending, data, strict=True):
            train_one(run, me, encoded, held)
    finally:
        held.release()


def train_one(run: SFTRun, me: Rank, encoded: Encoded, held: Held) -> None:
    """One run from its model or its last checkpoint to its commit."""
    first = from_rank0(turn(run, me) if me.rank == 0 else None, me)
    if first == "stop":
        raise Stopped(run.run_id)
    if first == "yield":
        raise Superseded(run.run_id)
    if first == "train":
        training = begin(run, me, held.take(run), *encoded)
        train(training, me)
        finish(training, me)


def turn(run: SFTRun, me: Rank) -> Literal["train", "done", "stop", "yield"]:
    """What rank 0 finds when a run's turn comes; the workers of a killed driver may have finished it."""
    if me.emit(None):
        return "stop"
    if is_finished(run):
        return "done"
    return "train" if is_owned(checkpoint_root(me.storage_dir, run.run_id), me.token) else "yield"
