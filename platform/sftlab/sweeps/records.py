"""Records of trials, and marks of those that are done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sftlab.config.documents import parse_record
from sftlab.files import write_text
from sftlab.store.mirror import pull, push
from sftlab.sweeps.outcome import Outcome, StageTime
from sftlab.sweeps.trial import Trial


@dataclass(frozen=True)
class TrialRecord:
    """A finished rung of a trial, as a file in the sweep's folder keeps it.

    percent and score: the best mean of its point's seeds; times: those of this trial alone.
    """

    trial: str
    variant: str
    config: Mapping[str, Any]
    percent: float
    score: float
    times: Mapping[str, StageTime]


def record_file(folder: Path, trial: Trial) -> Path:
    """Path of the record of a trial."""
    return folder / f"{sha256(trial.key.encode()).hexdigest()[:16]}.json"


def read_records(folder: Path) -> list[TrialRecord]:
    """All records of a sweep, in the order of their file names."""
    pull(folder)
    advice = "delete the file; the trial is then looked up again."
    return [
        parse_record(TrialRecord, path.read_bytes(), str(path), advice)
        for path in sorted(folder.glob("*.json"))
    ]


def write_record(folder: Path, trial: Trial, config: Mapping[str, Any], outcome: Outcome) -> None:
    """Keep the outcome of a trial: its point's score, and where its time went.

    The first record remains: a search that was killed may draw a point again, and then only looks it up.
    """
    file = record_file(folder, trial)
    if pull(file).exists():
        return
    record = TrialRecord(
        trial.name, trial.variant, dict(config), outcome.percent, outcome.score, outcome.times
    )
    write_text(file, json.dumps(asdict(record), indent=1) + "\n")
    push(file)


def done_marker(folder: Path, trial: Trial, draw: str = "") -> Path:
    """Path of the mark of a trial that is done, at its last rung or stopped at an earlier one.

    draw: distinguishes the draws of a sampler, which may choose one point twice.
    """
    stem = record_file(folder, trial).stem
    return folder.parent / "over" / (f"{stem}-{draw}" if draw else stem)


def entry_name(trials: Sequence[Trial]) -> str:
    """The name of the trials of an entry where they are reported as one."""
    seeds = f" ({len(trials)} seeds)" if len(trials) > 1 else ""
    return f"{trials[0].name}{seeds}"


def points_done(folder: Path) -> int:
    """How many points of a sampler are done; a point leaves a record for each of its seeds and rungs."""
    over = folder.parent / "over"
    pull(over)
    return sum(not mark.name.startswith(".") for mark in over.glob("*"))
