"""What a failure of training means: which come again after a restart, and what the user can do about them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sftlab.cluster.out_of_memory import is_out_of_memory
from sftlab.errors import UserError
from sftlab.training.records import SFTRun, read_result
from sftlab.training.spec import TrainingRuntime

MEMORY_ADVICE = (
    "lower training.micro_batch_size (now {micro}), raise training.zero_stage (now {stage}), set "
    "training.gradient_checkpointing=true (now {checkpointing}) or training.offload (now {offload})"
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
PROBE_BYTES = 2**20


class TrainingError(UserError):
    """Training failed on the workers; the message says which run and why, and what is kept."""


class Superseded(Exception):
    """A later call of train_runs has taken this run over."""


def verdict(error: Exception, runtime: TrainingRuntime, rank: int) -> UserError | None:
    """What the driver is to raise for a failure that a restart would only repeat; None for all others."""
    # Among them Damaged, whose result the driver quarantines, and DivergedError.
    if isinstance(error, UserError):
        return error
    if isinstance(error, Superseded):
        return TrainingError(
            "a later call of train_runs with the same storage_dir has taken it over", place=f"run {error}"
        )
    if is_out_of_memory(error):
        return out_of_memory(runtime, f"rank {rank}: {error}")
    if isinstance(error, OSError) and error.errno in (*FULL, *REFUSED):
        return disk_error(error, full=error.errno in FULL)
    return None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn torch's wordless failure to write a file below `folder` into the OSError that says why.

    torch.save raises a plain RuntimeError on a full disk. Where writing a small file fails too, that is the reason.
    """
    try:
        yield
    except RuntimeError:
        probe = folder / f".probe-{uuid4().hex}"
        try:
            with probe.open("wb") as stream:
                stream.write(bytes(PROBE_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
        finally:
            probe.unlink(missing_ok=True)
        raise


def out_of_memory(runtime: TrainingRuntime, detail: str) -> UserError:
    """The error of an out-of-memory failure: what happened and which fields to change."""
    return UserError(f"fine-tuning ran out of memory ({detail})", advice=f"{memory_advice(runtime)}.")


def memory_advice(runtime: TrainingRuntime) -> str:
    """The fields that make training need less memory, with their values."""
    return MEMORY_ADVICE.format(
        micro=runtime.micro_batch_size or "the whole share of a worker",
        stage=runtime.zero_stage,
        checkpointing=str(runtime.gradient_checkpointing).lower(),
        offload=runtime.offload,
    )


def explain(error: BaseException, runs: Sequence[SFTRun], runtime: TrainingRuntime) -> Exception:
    """What a failure of the worker group means for the user."""
    import ray.exceptions

    found = list(getattr(error, "worker_failures", {}).values()) or [error]
    causes = [
        getattr(cause, "health_check_failure", cause) for cause in found
    ]  # how Ray Train wraps a lost worker
    if any(isinstance(cause, ray.exceptions.OutOfMemoryError) for cause in causes):
        return out_of_memory(runtime, "Ray's memory monitor ended a worker")
    text = str(causes[0])
    for code in (*FULL, *REFUSED):
        if os.strerror(code) in text:  # Ray Train's own files, next to the checkpoints
            return disk_error(OSError(code, os.strerror(code)), full=code in FULL)
    left = [run.run_id for run in runs if read_result(run) is None]
    hint = ""
    if any(isinstance(cause, ray.exceptions.ActorDiedError) for cause in causes):
        # The kernel's OOM killer leaves no more trace here than any other SIGKILL.
        hint = f"a worker was killed. If the machine was out of memory (see dmesg): {memory_advice(runtime)}."
    return TrainingError(
        f"training failed {runtime.max_failures + 1} times and stopped at run {left[0] if left else '?'!r} "
        f"({len(left)} of {len(runs)} are left; run again to resume): {last_line(text)}",
        value=left[0] if left else None,
        advice=hint,
    )


def disk_error(error: OSError, full: bool) -> UserError:
    """The error where the store takes no files, because it is full or because it refuses them."""
    if full:
        problem, advice = "the disk is full", "free some space and run again"
    else:
        problem = "the store takes no files"
        advice = "make it writable on every node, or choose another by --store, and run again"
    return UserError(f"{problem}: {error}", value=error.filename, advice=f"{advice}; finished runs are kept.")


def last_line(text: str) -> str:
    """The last line of an error's text that holds something: that of a traceback names the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
