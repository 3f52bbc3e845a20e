"""Supervised fine-tuning: one Ray Train worker group trains many runs, one after another.

Starting a worker group costs far more than a small run, so it is paid once. Each run is committed in its
own folder as soon as it is done. Kill anything and call train_runs again: finished runs are skipped, the
interrupted one goes on from its last checkpoint, and the bits are those of an uninterrupted call with the
same number of workers. Another number of workers changes the last bits of float sums.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sftlab.cluster.placement import same_node
from sftlab.errors import UserError
from sftlab.store.mirror import mirror_of, pull
from sftlab.training.checkpoints import call_token, checkpoint_root, take_over
from sftlab.training.data import read_conversations
from sftlab.training.failures import Superseded, TrainingError, explain, verdict
from sftlab.training.group import make_trainer
from sftlab.training.hf_model import check_trainable
from sftlab.training.records import DivergedError, SFTResult, SFTRun, TrainingEvent, finished_result
from sftlab.training.spec import SFTSpec, TrainingRuntime, accumulation_steps, check_runtime, check_spec
from sftlab.weights.delta_folder import open_tuned
from sftlab.weights.pairs import require_embeddings, tied_aliases
from sftlab.weights.regions import check_layers
from sftlab.weights.shards import Checkpoint

__all__ = ["SFTResult", "SFTRun", "TrainingError", "TrainingEvent", "train_runs"]

POLL_SECONDS = 0.2
STOP_SECONDS = 120.0
# The checks import names of transformers, which threads that do so for the first time side by side do not find.
_CHECKING = threading.Lock()


class Mailbox:
    """A Ray actor between rank 0 and the driver: events one way, the wish to stop the other way."""

    def __init__(self) -> None:
        self.events: list[TrainingEvent] = []
        self.verdict: UserError | None = None
        self.stop = False

    def put(self, event: TrainingEvent | None) -> bool:
        """Take an event, or none; return whether the worker has to stop."""
        self.events.extend([] if event is None else [event])
        return self.stop

    def drain(self) -> list[TrainingEvent]:
        """Hand out, once, the events since the last call."""
        events, self.events = self.events, []
        return events

    def ask_to_stop(self) -> None:
        """From now on every put answers True."""
        self.stop = True

    def settle(self, verdict: UserError) -> None:
        """Record an outcome that no restart can change, for the driver to raise; the first one is kept."""
        self.verdict = self.verdict or verdict

    def outcome(self) -> UserError | None:
        """The recorded outcome, if there is one."""
        return self.verdict


def check_runs(runs: Sequence[SFTRun], runtime: TrainingRuntime) -> None:
    """Check all that can be checked before a worker is started; raises UserError. Threads check one after another."""
    with _CHECKING:
        _check_runs(runs, runtime)


def _check_runs(runs: Sequence[SFTRun], runtime: TrainingRuntime) -> None:
    check_runtime(runtime)
    outputs = [folder for run in runs for folder in (run.output_dir, *(kept.output_dir for kept in run.kept))]
    for what, values in (("run_id", [run.run_id for run in runs]), ("output_dir", outputs)):
        doubles = sorted(value for value, count in Counter(values).items() if count > 1)
        if doubles:
            raise UserError(
                f"two training runs have the {what} {doubles[0]!r}",
                value=doubles[0],
                advice="give each a different one.",
            )
    for file in dict.fromkeys(run.train_file for run in runs):
        read_conversations(file)
    for base in sorted({run.base_model for run in runs}):
        with Checkpoint.open(base) as checkpoint:
            require_embeddings(checkpoint)
            tied_aliases(checkpoint)
    for base, lora in sorted({(run.base_model, run.spec.lora) for run in runs if run.spec.lora}, key=repr):
        check_trainable(pull(Path(base)), SFTSpec(lora=lora))
    for run in runs:
        accumulation_steps(run.spec, runtime)
        check_spec(run.spec, runtime)
        check_prevention(run)
        check_kept(run)
    folders = {Path(run.base_model).resolve() for run in runs}
    for folder in outputs:
        if Path(folder).resolve() in folders:
            raise UserError(
                f"{folder} is the folder of a base model",
                place="output_dir",
                value=folder,
                advice="choose another.",
            )


def check_kept(run: SFTRun) -> None:
    """Raises UserError where a kept epoch is named twice or is none of those before the last."""
    epochs = [kept.epoch for kept in run.kept]
    for epoch in epochs:
        if not 1 <= epoch < run.spec.epochs or epochs.count(epoch) > 1:
            raise UserError(
                f"keeps the model after epoch {epoch}",
                place=f"run {run.run_id!r}",
                value=epoch,
                expected=(
                    f"different epochs from 1 to {run.spec.epochs - 1}, as sft.epochs = {run.spec.epochs} and "
                    "the last one is always kept"
                ),
            )


def check_prevention(run: SFTRun) -> None:
    """Raises UserError where the base lacks a layer that is to be frozen, or where a mask's probe is missing."""
    if run.spec.freeze_layers is not None:
        with Checkpoint.open(run.base_model) as base:
            check_layers(run.spec.freeze_layers, base.names, f"sft.freeze_layers: {run.base_model}")
    assert (run.spec.mask is None) == (run.mask is None), f"run {run.run_id!r}: spec and run differ in a mask"
    if run.mask is not None and mirror_of(Path(run.mask.probe)) is None:
        open_tuned(run.mask.probe, run.base_model).close()


def check_resources(runtime: TrainingRuntime, groups: int = 1) -> None:
    """Raises UserError where the Ray cluster lacks the GPUs or CPUs of so many worker groups."""
    import ray

    assert ray.is_initialized(), "train_runs: call ray.init first"
    have = ray.cluster_resources()
    for kind, each in (("GPU", runtime.gpus_per_worker), ("CPU", runtime.cpus_per_worker)):
        wanted = groups * runtime.workers * each
        if wanted > have.get(kind, 0):
            several = f"{groups} groups of " if groups > 1 else ""
            raise UserError(
                f"training asks for {wanted:g} {kind}s ({several}{runtime.workers} workers x {each:g}) and the Ray "
                f"cluster has {have.get(kind, 0):g}",
                value=wanted,
                advice=f"lower training.workers or training.{kind.lower()}s_per_worker"
                f"{', or the number of groups' if several else ''}.",
            )


def train_runs(
    runs: Sequence[SFTRun],
    runtime: TrainingRuntime,
    on_progress: Callable[[TrainingEvent], None] | None = None,
    storage_dir: str = "",
) -> list[SFTResult]:
    """Train all runs in one worker group and return their results in order; Ray must be initialised.

    `storage_dir` (required) is scratch for checkpoints, on a mount that all nodes share; give the same one
    to resume. `on_progress` is called in this thread. Raises UserError for what the user can fix (before a
    worker starts where that is possible; also a loss that is not finite), TrainingError where workers failed more
    than runtime.max_failures times, KeyboardInterrupt after Ctrl-C, once the workers
    have saved a checkpoint.
    """
    assert storage_dir, "train_runs: storage_dir is required"
    report = on_progress or ignore
    check_runs(runs, runtime)
    finished = {run.run_id: finished_result(run) for run in runs}
    for result in finished.values():
        if result is not None:
            report(skipped(result))
    pending = [run for run in runs if finished[run.run_id] is None]
    reported: set[str] = set()

    def pass_on(event: TrainingEvent) -> None:
        reported.update([event.run_id] if event.finished else [])
        report(event)

    if pending:
        check_resources(runtime)
        fit(pending, runtime, pass_on, str(Path(storage_dir).resolve()))
    for run in pending:
        result = finished[run.run_id] = finished_result(run)
        assert result is not None, f"run {run.run_id!r} ended without its commit file"
        if run.run_id not in reported:  # finished by the workers of a driver that had been killed
            report(skipped(result))
    return [result for run in runs if (result := finished[run.run_id]) is not None]


def ignore(event: TrainingEvent) -> None:
    """The progress report of a caller who wants none."""


def skipped(result: SFTResult) -> TrainingEvent:
    """The event of a run that was finished before."""
    return TrainingEvent(
        run_id=result.run_id,
        kind="skipped",
        step=result.steps,
        steps=result.steps,
        loss=result.losses[-1],
        learning_rate=result.learning_rates[-1],
        tokens_per_second=result.tokens_per_second,
    )


def fit(
    runs: Sequence[SFTRun],
    runtime: TrainingRuntime,
    report: Callable[[TrainingEvent], None],
    storage_dir: str,
) -> None:
    """Run the worker group to its end, passing events on; raises what train_runs promises."""
    import ray

    mailbox = start_mailbox()
    token = call_token()
    for run in runs:
        take_over(checkpoint_root(storage_dir, run.run_id), token)
    config = {
        "runs": list(runs),
        "runtime": runtime,
        "storage_dir": storage_dir,
        "mailbox": mailbox,
        "token": token,
    }
    failures: list[BaseException] = []

    def work() -> None:
        try:
            make_trainer(rank_main, config, runtime, storage_dir).fit()
        except BaseException as error:  # handed to the main thread below
            failures.append(error)

    # Not in the main thread: there, Ray Train's own handler of Ctrl-C ends the process with exit code 0.
    thread = threading.Thread(target=work, name="ray-train-fit", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            for event in ray.get(mailbox.drain.remote()):
                report(event)
    except BaseException:  # raised again: Ctrl-C, or the caller's own error while it took an event
        mailbox.ask_to_stop.remote()
        thread.join(STOP_SECONDS)
        raise
    for event in ray.get(mailbox.drain.remote()):
        report(event)
    verdict = ray.get(mailbox.outcome.remote())
    ray.kill(mailbox)
    if verdict is not None:
        raise verdict
    if failures:
        raise explain(failures[0], runs, runtime) from failures[0]


def start_mailbox() -> Any:
    """The mailbox of one call, on the driver's node."""
    import ray

    # The contents of a killed mailbox are sent again, or found again when the workers restart.
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=same_node(), **lasting).remote()


def rank_main(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs.

    An outcome that a restart would only repeat (a wrong input, a diverged loss, too little memory) goes
    into the mailbox, so that the group ends at once and the driver reports the reason. Where one rank alone may have
    met it, it is raised as well: the others wait for that rank until Ray Train ends them all. What it then starts
    again finds the outcome and returns.
    """
    import ray
    import ray.train
    from ray.train.torch import get_device

    from sftlab.training.deepspeed import prepare_process, start_deepspeed

    runtime, mailbox = config["runtime"], config["mailbox"]
    if ray.get(mailbox.outcome.remote()) is not None:
        return
    prepare_process(runtime)
    from sftlab.training.loop import Rank, Stopped, train_all

    start_deepspeed(runtime)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    me = Rank(
        rank=rank,
        workers=context.get_world_size(),
        device=get_device(),
        runtime=runtime,
        storage_dir=config["storage_dir"],
        token=config["token"],
        emit=emitter(mailbox),
    )
    try:
        train_all(config["runs"], me)
    except Stopped:
        return
    except Exception as error:
        found = verdict(error, runtime, rank)
        if found is None:
            raise
        ray.get(mailbox.settle.remote(found))
        if not isinstance(error, DivergedError | Superseded):  # these two come on all ranks alike
            raise


def emitter(mailbox: Any) -> Callable[[TrainingEvent | None], bool]:
    """How rank 0 reports to the driver: step events at most five times a second, the others always."""
    import ray

    last = 0.0

    def emit(event: TrainingEvent | None) -> bool:
        nonlocal last
        middle = event is not None and event.kind == "step" and event.step < event.steps
        if middle and time.monotonic() - last < POLL_SECONDS:
            return False
        last = time.monotonic()
        return bool(ray.get(mailbox.put.remote(event)))

    return emit
