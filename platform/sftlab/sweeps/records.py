"""Records of trials and their outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from sftlab.config.documents import parse_record
from sftlab.files import write_text
from sftlab.store.mirror import pull, push
from sftlab.studies.knowledge.sweep.trials import Trial


@dataclass
class StageTime:
    """Wall seconds of one stage of a trial, of which `queued` went by waiting for others; `hits` were found."""

    seconds: float = 0.0
    queued: float = 0.0
    hits: int = 0


@dataclass(frozen=True)
class TrialRecord:
    """A finished rung of a trial, as it stands in the sweep's folder.

    percent and score: the best mean of its point's seeds; times: its own.
    """

    trial: str
    variant: str
    config: Mapping[str, Any]
    percent: float
    score: float
    times: Mapping[str, StageTime]


def record_file(folder: Path, trial: Trial) -> Path:
    """Where the record of a trial stands; percentages belong to its identity in a search."""
    key = f"{trial.name}/{','.join(f'{p:g}' for p in trial.spec.restore.percents)}"
    return folder / f"{sha256(key.encode()).hexdigest()[:16]}.json"


def read_records(folder: Path) -> list[TrialRecord]:
    """All records of a sweep, in the order of their file names."""
    pull(folder)
    advice = "delete the file; the trial is then looked up again."
    return [
        parse_record(TrialRecord, path.read_bytes(), str(path), advice)
        for path in sorted(folder.glob("*.json"))
    ]


def write_record(folder: Path, trial: Trial, config: Mapping[str, Any], outcome: Outcome) -> None:
    """Keep what a trial found out beside the artifacts that it built: its point's score, and where its time went.

    The first record stands: a search that was killed may draw a point again, and then only looks it up.
    """
    file = record_file(folder, trial)
    if pull(file).exists():
        return
    record = TrialRecord(
        trial.name, trial.variant, dict(config), outcome.percent, outcome.score, outcome.times
    )
    write_text(file, json.dumps(asdict(record), indent=1) + "\n")
    push(file)


def over_file(folder: Path, trial: Trial, draw: str = "") -> Path:
    """Mark of a trial that is over, at its last rung or stopped at an earlier one.

    draw: tells the draws of a sampler apart, which may come upon one point twice.
    """
    stem = record_file(folder, trial).stem
    return folder.parent / "over" / (f"{stem}-{draw}" if draw else stem)


def entry_name(trials: Sequence[Trial]) -> str:
    """What the trials of an entry are called where they are told of as one."""
    seeds = f" ({len(trials)} seeds)" if len(trials) > 1 else ""
    return f"{trials[0].name}{seeds}"


def trials_over(folder: Path) -> int:
    """How many points of an Optuna search are over; a point leaves a record for each of its seeds and rungs."""
    over = folder.parent / "over"
    pull(over)
    return sum(not mark.name.startswith(".") for mark in over.glob("*"))


@dataclass
class Outcome:
    """A finished trial: the metric by percentage, the best of them, and where the time went."""

    scores: Mapping[float, float]
    percent: float
    score: float
    times: Mapping[str, StageTime] = field(default_factory=dict)


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """The mean scores of a point's seeds, and the percentage with the best of them; times are left out."""
    scores = {p: math.fsum(o.scores[p] for o in outcomes) / len(outcomes) for p in outcomes[0].scores}
    percent = best_percent(scores)
    return Outcome(scores, percent, scores[percent])


def best_percent(scores: Mapping[float, float]) -> float:
    """The percentage with the best score; of equal ones the smallest."""
    return min(scores, key=lambda p: (math.isnan(scores[p]), -scores[p], p))
