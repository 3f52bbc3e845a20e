"""Runs the points of a search in warm pools, and shows how far they are."""

from __future__ import annotations

from collections.abc import Sequence

from sftlab.errors import UserError
from sftlab.execution.progress import Progress
from sftlab.sweeps.progress import SweepState, watching
from sftlab.sweeps.records import read_records
from sftlab.sweeps.searches import Points, Search
from sftlab.sweeps.times import STARTS, keeping_starts
from sftlab.sweeps.trial import T, TrialContext
from sftlab.sweeps.tune import TuneRunner
from sftlab.sweeps.usage import Usage


def run_points(
    search: Search[T], points: Points[T], context: TrialContext, state: SweepState, progress: Progress
) -> list[tuple[str, str]]:
    """Run points in the pools of the context, which have been started; returns (trial, reason) of those that failed."""
    import ray

    pools = {which: context.pool(which) for which in STARTS}

    def usage() -> dict[str, Usage]:
        return dict(zip(pools, ray.get([pool.stats.remote() for pool in pools.values()]), strict=True))

    state.begin()
    for record in read_records(search.records):
        state.observe(record.trial, record.percent, record.score)
    with watching(state, progress, usage), keeping_starts(search.records.parent, usage):
        return TuneRunner(search, context, state).run(points)


def raise_failed(name: str, failed: Sequence[tuple[str, str]]) -> None:
    """Raises UserError where trials of the sweep of this name failed, with the first ten and their reasons."""
    if failed:
        shown = "\n".join(f"  {trial}: {reason}" for trial, reason in failed[:10])
        raise UserError(
            f"{len(failed)} trials of the sweep {name} failed, all others are finished",
            value=tuple(str(trial) for trial, _ in failed),
            advice=f"fix what follows and run it again.\n{shown}",
        )
