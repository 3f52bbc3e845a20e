"""After the last stage of a sweep: it is logged to MLflow. Logging again changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sftlab.studies.knowledge.results.sweep_tables import SweepResults
from sftlab.studies.knowledge.sweep.steps import SweepSteps
from sftlab.studies.knowledge.sweep.sweep import Sweep
from sftlab.studies.knowledge.sweep.tracked import fact_tables, key_of, sweep_card, tracked_models
from sftlab.studies.knowledge.sweep.trials import Trial
from sftlab.studies.knowledge.tracking.log import log_sweep
from sftlab.sweeps.live import LiveTracking
from sftlab.sweeps.times import LOGGING, keeping
from sftlab.tracking import TrackedModel, TrackedSweep


def track_sweep(steps: SweepSteps, results: SweepResults, report: Path, best: Path) -> TrackedSweep:
    """Log a finished sweep; the recommended model's folder `best` is uploaded and registered.

    Raises UserError where MLflow cannot be reached; what is logged until then is kept, and logging again
    completes it.
    """
    sweep = steps.sweep
    models = tracked_models(steps, results, best)
    with sweep.progress.bar("logging to MLflow") as bar, keeping(sweep.folder, LOGGING):
        return log_sweep(
            results,
            TrackedModel(id=sweep.base.plan.model_id, path=sweep.base.model_folder),
            models,
            key_of(sweep),
            sweep.runtime.tracking,
            sweep.store.root,
            fact_tables(sweep),
            report,
            sweep_card(steps, results),
            progress=bar.update,
        )


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
    """What logs trials as `track_sweep` does, less what only the whole sweep knows."""
    from sftlab.studies.knowledge.stages.results import model_name
    from sftlab.studies.knowledge.sweep.steps import SweepSteps, variants_of
    from sftlab.studies.knowledge.sweep.tracked import fact_tables, key_of, tracked_models
    from sftlab.studies.knowledge.tracking.log import log_trials

    # A search may try one cell several times, with other percentages: to MLflow that is one trial.
    finished: dict[tuple[str, str], dict[tuple[float, ...], Trial]] = {}

    def write(trials: Sequence[Trial]) -> None:
        for trial in trials:
            finished.setdefault((trial.variant, trial.cell), {})[trial.spec.restore.percents] = trial
        cells = dict.fromkeys((trial.variant, trial.cell) for trial in trials)
        steps = SweepSteps(sweep, [trial for cell in cells for trial in finished[cell].values()])
        results = SweepResults(sweep.spec.name, model_name(sweep.base), variants=variants_of(steps))
        models = tracked_models(steps, results, None)
        with sweep.store.lock("tracking"):  # two that log at the same moment would log a trial twice
            log_trials(
                results, models, key_of(sweep), sweep.runtime.tracking, sweep.store.root, fact_tables(sweep)
            )

    return write
