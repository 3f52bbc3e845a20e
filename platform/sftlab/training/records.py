"""What a run is asked, what it reports while it goes on, and what it leaves behind."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from sftlab.config.documents import parse_record
from sftlab.datasets.spec import JinjaTemplate, TemplateSpec
from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.store.mirror import display_path, is_sent, pull, push
from sftlab.training.spec import SFTSpec, TrainingRuntime
from sftlab.weights.cut import Cut

COMMIT_FILE = "training.json"

Form = Literal["folder", "delta"]
"""How a model is written: as a folder, or as what is read as the folder: a delta to its base, or an adapter."""


class DivergedError(UserError):
    """A loss or a trained weight is not a finite number."""


@dataclass(frozen=True)
class ProbeMask:
    """The weights that `cut` would take back from the probe's model folder to the base are never updated."""

    probe: str
    cut: Cut


@dataclass(frozen=True)
class KeptEpoch:
    """The model after an earlier epoch of a run is exported too, to a folder with a commit file of its own."""

    epoch: int
    output_dir: str


@dataclass(frozen=True)
class SFTRun:
    """One fine-tuning of a base model folder on a training set (parquet, see datasets.examples).

    `template` renders the examples; `text` takes `prompt` and `target` as they are. `mask` is given where `spec.mask`
    is: a cut of the change from `base_model` to the probe. `output_dir` gets the model after the last epoch, and `kept`
    names the earlier epochs whose models are exported. `form` is how models are written, and no part of the identity.
    """

    run_id: str
    base_model: str
    train_file: str
    output_dir: str
    spec: SFTSpec
    mask: ProbeMask | None = None
    template: TemplateSpec = "text"
    kept: tuple[KeptEpoch, ...] = ()
    form: Form = "folder"


@dataclass(frozen=True)
class TrainingEvent:
    """Progress of one run, reported by rank 0 and handed to the caller in the driver.

    `step` of `steps` optimiser steps are done; `loss` is the last step's mean over its answer tokens (nats)
    and `tokens_per_second` counts the tokens of prompts and answers together since the run began. An event of the kind
    `kept` reports that the folder of `epoch` is complete and committed.
    """

    run_id: str
    kind: Literal["step", "checkpoint", "resumed", "kept", "finished", "skipped"]
    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    epoch: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the run's folder is complete and committed."""
        return self.kind in ("finished", "skipped")


@dataclass
class History:
    """What has been measured of a run so far; goes into its checkpoints and its commit file."""

    losses: list[float]
    learning_rates: list[float]
    tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    gradient_norms: list[float | None] = field(
        default_factory=list
    )  # empty of runs before they were recorded


@dataclass(frozen=True)
class Figures:
    """The figures of a finished run, as in its training.json; see SFTResult."""

    examples: int
    steps: int
    losses: list[float]
    learning_rates: list[float]
    tokens: int
    answer_tokens: int
    seconds: float
    tokens_per_second: float
    gradient_norms: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Commit:
    """What is read of a training.json."""

    identity: dict[str, Any]
    result: Figures


@dataclass(frozen=True)
class SFTResult:
    """A finished run, as its training.json records it.

    `losses` (nats per answer token) and `learning_rates` have one entry a step; `tokens` counts prompts and
    answers, `answer_tokens` those with loss; `seconds` is the time of the steps alone. `gradient_norms` are the L2
    norms of the gradients of a step before clipping; it is empty, and an entry None, where they were not recorded.
    """

    run_id: str
    output_dir: str
    examples: int
    steps: int
    losses: list[float]
    learning_rates: list[float]
    tokens: int
    answer_tokens: int
    seconds: float
    tokens_per_second: float
    gradient_norms: list[float | None] = field(default_factory=list)


def run_identity(run: SFTRun, kept: KeptEpoch | None = None) -> dict[str, Any]:
    """What must agree for a folder or a checkpoint to belong to this run, or to one of its kept epochs."""
    identity: dict[str, Any] = {
        "run_id": run.run_id,
        "base_model": display_path(run.base_model),
        "train_sha256": sha256(pull(Path(run.train_file)).read_bytes()).hexdigest(),
        "spec": run.spec.model_dump(mode="json", exclude_none=True),
    }
    if isinstance(run.template, JinjaTemplate):
        identity["template"] = run.template.model_dump()
    elif run.template != "text":
        identity["template"] = run.template
    if kept is not None:
        identity["epoch"] = kept.epoch
    if run.mask is not None:
        identity["mask"] = {"probe": display_path(run.mask.probe), "cut": run.mask.cut.to_json()}
    return identity


def run_layout(runtime: TrainingRuntime) -> dict[str, Any]:
    """The fields of the runtime that a checkpoint cannot be carried across without changing bits."""
    names = {"workers", "gpus_per_worker", "threads", "zero_stage", "micro_batch_size"}
    return runtime.model_dump(mode="json", include=names | {"gradient_checkpointing", "offload"})


def read_result(run: SFTRun, kept: KeptEpoch | None = None) -> SFTResult | None:
    """The committed result of a run, or of one of its kept epochs; None where it has not come so far.

    Raises UserError where the folder holds the result of something else.
    """
    folder = (kept or run).output_dir
    file = pull(Path(folder) / COMMIT_FILE)
    if not file.is_file():
        return None
    record = read_commit(file)
    wanted = run_identity(run, kept)
    odd = [key for key in {**wanted, **record.identity} if record.identity.get(key) != wanted.get(key)]
    if odd:
        raise UserError(
            f"is the result of another run; {', '.join(odd)} differ from run {run.run_id!r}",
            place=file,
            value=run.run_id,
            advice="choose another output folder or delete this one.",
        )
    return SFTResult(run_id=run.run_id, output_dir=folder, **vars(record.result))


def missing_epochs(run: SFTRun) -> list[KeptEpoch]:
    """The kept epochs that are not committed yet. Raises UserError as `read_result`."""
    return [kept for kept in run.kept if read_result(run, kept) is None]


def finished_result(run: SFTRun) -> SFTResult | None:
    """The result of a run where it and all its kept epochs are committed. Raises UserError as `read_result`."""
    return None if missing_epochs(run) else read_result(run)


def is_finished(run: SFTRun) -> bool:
    """Whether a run and its kept epochs are committed.

    Sends what a killed worker had committed on this machine alone; raises as `read_result`.
    """
    if finished_result(run) is None:
        return False
    for folder in (*(kept.output_dir for kept in run.kept), run.output_dir):
        file = Path(folder) / COMMIT_FILE
        if not is_sent(file):
            push(file.parent)
    return True


def read_commit(file: Path) -> Commit:
    """What a training.json holds. Raises UserError where it is damaged."""
    return parse_record(Commit, file.read_bytes(), str(file), "delete its folder to train the run again.")


def write_result(
    run: SFTRun, runtime: TrainingRuntime, examples: int, history: History, kept: KeptEpoch | None = None
) -> None:
    """Commit a run or one of its kept epochs: write training.json, the last file of its folder."""
    result = {
        "examples": examples,
        "steps": len(history.losses),
        **asdict(history),
        "tokens_per_second": history.tokens / max(history.seconds, 1e-9),
    }
    identity = run_identity(run, kept)
    record = {"identity": identity, "runtime": runtime.model_dump(mode="json"), "result": result}
    file = Path((kept or run).output_dir) / COMMIT_FILE
    write_text(file, json.dumps(record, indent=1))
    push(file)
