"""Where the time of a sweep went: that of its trials by stage, and what was spent outside of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from sftlab.config.documents import parse_record
from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull, push
from sftlab.sweeps.records import read_records
from sftlab.sweeps.usage import Usage

TABLES, REPORT, BEST, LOGGING = "tables", "report", "best model", "MLflow"
STARTS = {"engines": "engine starts", "training": "group starts"}  # by the pool that starts them
OUTSIDE = (*STARTS.values(), TABLES, REPORT, BEST, LOGGING)


@dataclass(frozen=True)
class Timing:
    """Wall seconds that one run of a sweep spent on something of OUTSIDE, and how often it did so.

    Starts are kept by run and kind: their seconds add up over engines or groups that started side by side.
    """

    what: str
    times: int
    seconds: float


def keep(folder: Path, timing: Timing) -> None:
    """Keep a timing in the folder of a sweep, each in another file: runs at the same time share the folder."""
    file = folder / "spent" / f"{uuid4().hex}.json"
    write_text(file, json.dumps(asdict(timing), indent=1) + "\n")
    push(file)


def read_timings(folder: Path) -> list[Timing]:
    """All timings that runs of a sweep have kept."""
    pull(folder / "spent")
    return [
        parse_record(
            Timing, path.read_bytes(), str(path), "delete the file; it holds times and nothing else."
        )
        for path in sorted((folder / "spent").glob("*.json"))
    ]


@contextmanager
def keeping(folder: Path, what: str) -> Iterator[None]:
    """Keep the seconds that the context takes, if it comes to its end."""
    started = time.monotonic()
    yield
    keep(folder, Timing(what, 1, time.monotonic() - started))


@contextmanager
def keeping_starts(folder: Path, usage: Callable[[], Mapping[str, Usage]]) -> Iterator[None]:
    """When the context ends, however it does, keep how long engines and worker groups took to start.

    usage: what the pools have done, by the names of STARTS. A run that is killed outright keeps nothing.
    """
    try:
        yield
    finally:
        with suppress(Exception):  # pools that are gone report nothing, and no result depends on times
            for pool, use in usage().items():
                if use.starts:
                    keep(folder, Timing(STARTS[pool], use.starts, use.start_seconds))


def time_rows(records: Path) -> list[TimeRow]:
    """Where the time of the trials went that have been run (found ones took none), by stage."""
    return [
        TimeRow(
            record.trial, stage, stage_time.seconds - stage_time.queued, stage_time.queued, stage_time.hits
        )
        for record in read_records(records)
        for stage, stage_time in record.times.items()
    ]


def time_table(name: str, records: Path, store: Store) -> str:
    """Where the time of a sweep went, for the terminal. Raises UserError where no trial has run."""
    rows = time_rows(records)
    if not rows:
        raise UserError(
            f"no trial of the sweep {name} has run", place=store, value=name, advice="`sftlab sweep` runs it."
        )
    return "\n".join([*_of_trials(rows), *_outside(read_timings(records.parent))])


def _of_trials(rows: Sequence[TimeRow]) -> list[str]:
    """A line a stage."""
    trials = len({row.trial for row in rows})
    lines = [
        f"{'stage':<13} {'s/trial':>8} {'work':>8} {'waiting':>8} {'share':>6} {'found':>6}   ({trials} trials)"
    ]
    total = sum(row.seconds + row.queued_seconds for row in rows)
    for stage in dict.fromkeys(row.stage for row in rows):
        mine = [row for row in rows if row.stage == stage]
        work, queued = sum(row.seconds for row in mine), sum(row.queued_seconds for row in mine)
        lines.append(
            f"{stage:<13} {(work + queued) / trials:>8.2f} {work / trials:>8.2f} {queued / trials:>8.2f} "
            f"{(work + queued) / total:>6.0%} {sum(row.hits for row in mine):>6}"
        )
    lines.append(
        "waiting: for an engine or a worker group, its start included, or a trial that builds the same; "
        "found: results that were there"
    )
    return lines


def _outside(timings: Sequence[Timing]) -> list[str]:
    """A line for everything of OUTSIDE that was done; none where nothing was kept."""
    if not timings:
        return []
    lines = ["", f"{'outside':<13} {'s each':>8} {'times':>8} {'seconds':>8}"]
    for what in OUTSIDE:
        mine = [one for one in timings if one.what == what]
        times, seconds = sum(one.times for one in mine), sum(one.seconds for one in mine)
        if times:
            lines.append(f"{what:<13} {seconds / times:>8.2f} {times:>8} {seconds:>8.2f}")
    if {timing.what for timing in timings} & set(STARTS.values()):
        lines.append(
            "starts: until an engine answers, and until a worker group has done its first step, for which it has "
            "loaded a model; of runs that were not killed; the trials' waiting holds most of them"
        )
    return lines


@dataclass(frozen=True)
class TimeRow:
    """Seconds that one stage of one trial worked, and seconds that it waited.

    `hits` counts its results that were found and not computed.
    """

    trial: str
    stage: str
    seconds: float
    queued_seconds: float
    hits: int
