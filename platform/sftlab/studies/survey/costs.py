"""What a survey cost, from the records of its results: time between commits, disk, questions, tokens. Rows as dicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Row = dict[str, Any]
PAUSE = 3600.0  # seconds between two commits beyond which the survey is taken not to have run


@dataclass(frozen=True)
class Committed:
    """A result of the survey.

    Attributes:
        time: of its commit, with a time zone, as `store.provenance` writes it.
        bytes: of its files.
        cores: of the machine that committed it.
    """

    stage: str
    time: str
    bytes: int
    cores: str


@dataclass(frozen=True)
class Amount:
    """What was done in a stage; None where the records do not say it.

    Attributes:
        tokens: written by models, or trained on, repeatedly in every epoch.
        seconds: of the work itself, without starts and exports.
        processor_seconds: these times the processors, which `processor` names (GPU or core).
    """

    questions: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    processor_seconds: float | None = None
    processor: str = ""


def costs(committed: Iterable[Committed], amounts: Mapping[str, Amount]) -> list[Row]:
    """A row a stage, in the order of their first commits.

    seconds: from the preceding commit of the survey, whatever its stage, to each commit of this one; longer ones than
    PAUSE are counted in `pauses`. The first result of a survey has no preceding one.
    """
    ordered = sorted(committed, key=lambda one: datetime.fromisoformat(one.time))
    rows: dict[str, Row] = {}
    previous: datetime | None = None
    for one in ordered:
        time = datetime.fromisoformat(one.time)
        row = rows.setdefault(one.stage, _empty(one, amounts.get(one.stage, Amount())))
        row["results"] += 1
        row["bytes"] += one.bytes
        row["last"] = one.time
        row["cores"] = ", ".join(sorted({*row["cores"].split(", "), one.cores} - {""}))
        if previous is not None:
            waited = (time - previous).total_seconds()
            row["seconds" if waited <= PAUSE else "pauses"] += waited if waited <= PAUSE else 1
        previous = time
    return list(rows.values())


def _empty(first: Committed, amount: Amount) -> Row:
    return {
        "stage": first.stage,
        "results": 0,
        "bytes": 0,
        "seconds": 0.0,
        "pauses": 0,
        "questions": amount.questions,
        "tokens": amount.tokens,
        "work_seconds": amount.seconds,
        "processor_seconds": amount.processor_seconds,
        "processor": amount.processor,
        "cores": "",
        "first": first.time,
        "last": first.time,
    }


def trained(runs: Sequence[tuple[int, float, Mapping[str, Any]]]) -> Amount:
    """All training runs: tokens, seconds of steps, and the workers that took part.

    runs: of each its tokens, seconds and runtime (`workers`, `gpus_per_worker`, `threads`).
    """
    if not runs:
        return Amount()
    on_gpus = any(runtime.get("gpus_per_worker") for _, _, runtime in runs)
    processors = [
        runtime.get("workers", 1)
        * ((runtime.get("gpus_per_worker") if on_gpus else runtime.get("threads")) or 1)
        for _, _, runtime in runs
    ]
    return Amount(
        tokens=sum(tokens for tokens, _, _ in runs),
        seconds=sum(seconds for _, seconds, _ in runs),
        processor_seconds=sum(n * seconds for n, (_, seconds, _) in zip(processors, runs, strict=True)),
        processor="GPU" if on_gpus else "core",
    )
