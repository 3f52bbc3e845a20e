"""The trials of a sweep are logged to MLflow while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.knowledge.sweep.trials import Trial
from sftlab.sweeps.live import LiveTracking


@contextmanager
def live_tracking(sweep: Sweep) -> Iterator[LiveTracking[Trial] | None]:
    """Log the trials of a sweep while it runs, where its runtime asks for tracking."""
    if not sweep.runtime.track:
        yield None
        return
    live = LiveTracking(_writer(sweep), sweep.progress.say)
    live.start()
    try:
        yield live
    except BaseException:
        # Whoever interrupts a sweep does not wait for a server; what is cut off is logged again.
        live.stop(0)
        raise
    live.stop()


def _writer(sweep: Sweep) -> Callable[[Sequence[Trial]], None]:
    """What logs trials as the end of the sweep does, less what only the whole sweep knows."""
    from sftlab.studies.knowledge.results.statistics import choices_by_cell
    from sftlab.studies.knowledge.stages.results import measured
    from sftlab.studies.knowledge.stages.tracked import fact_tables, key_of, tracked_models
    from sftlab.studies.knowledge.sweep.steps import finish
    from sftlab.studies.knowledge.tracking.log import log_trials

    # A search may try one cell several times, with other percentages: to MLflow that is one trial.
    finished: dict[tuple[str, str], dict[tuple[float, ...], Trial]] = {}

    def write(trials: Sequence[Trial]) -> None:
        for trial in trials:
            finished.setdefault((trial.variant, trial.cell), {})[trial.spec.restore.percents] = trial
        cells = dict.fromkeys((trial.variant, trial.cell) for trial in trials)
        found = finish(sweep, [trial for cell in cells for trial in finished[cell].values()])
        results = measured(found)
        results = replace(results, choice=choices_by_cell(results))
        models = tracked_models(found, results, None)
        with sweep.store.lock("tracking"):  # two that log at the same moment would log a trial twice
            log_trials(
                results,
                models,
                key_of(found),
                sweep.runtime.tracking,
                sweep.store.root,
                fact_tables(sweep.base),
            )

    return write
