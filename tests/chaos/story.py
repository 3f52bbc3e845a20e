"""An undisturbed run of a small study on three nodes, disturbed ones, and the comparison of their bits."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from tests.chaos.outcome import ChaosError, compare, totals
from tests.chaos.plan import Blow, draw, short
from tests.chaos.runner import TRACE, Chaos
from tests.support.nodes import ROOT, Nodes, cluster

TRACE_FOLDER = Path(__file__).parent / "trace"
TINY = ROOT / "jobs" / "configs" / "tiny.yaml"
MOUNTED = ("full disk", "read-only store")
# Many small pieces, so that there is much to hit.
PIECES = {
    "mastery.block_facts": 2,
    "sft.batch_size": 2,
    "sft.epochs": 20,
    "restore.percents": "[0,1,3,5,10,20,40,60,80]",
}
# The study as it is; what hangs is ended sooner, as a test has no minute to wait.
PLAIN = {"runtime.engine.timeout_seconds": 25, "runtime.training.timeout_seconds": 25}


def chaos(
    seed: int,
    kills: int,
    folder: Path,
    study: Path = TINY,
    faults: bool = False,
    say: Callable[[str], None] = print,
    plain: bool = False,
) -> None:
    """Three nodes, an undisturbed run of the study on them, and disturbed ones until every blow is struck.

    plain: the study as it is, and the blows of `plan.short`, as tests/e2e/test_nodes.py has them.

    Raises ChaosError where results differ, work is lost, or more than the open pieces is done twice; also where a
    blow hits nobody, or the driver ends by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with three_nodes(folder) as nodes:
        say(f"seed {seed}: three nodes, {type(nodes.network).__name__.lower()}, head at {nodes.address}")
        settings = PLAIN if plain else PIECES
        reference = calm(nodes, folder, study, settings, say).store
        pieces = totals(reference)
        planned = short(seed, kills, pieces) if plain else draw(seed, kills, pieces, faults)
        blows = [blow for blow in planned if possible(blow, nodes)]
        if len(blows) < len(planned):
            needy = ", ".join(sorted({blow.victim for blow in planned if blow not in blows}))
            say(f"left out, as they need root: {needy}")
        left, runs = blows, 0
        while left:
            runs += 1
            run = storm(nodes, left, folder, f"storm-{runs}", reference, study, settings, say)
            left = run.left
            if not run.marks and left[0].delay == 0:
                raise ChaosError(f"the study ends before {left[0]}")
            if not run.marks:  # whom it is to hit had ended in the meantime
                left = [replace(left[0], delay=0.0), *left[1:]]
        say(f"seed {seed}: {len(blows)} blows in {runs} disturbed runs, every file as in the undisturbed one")


def three_nodes(folder: Path) -> AbstractContextManager[Nodes]:
    """A head without CPUs and two workers, whose processes write their trace to `folder`."""
    return cluster((0, 2, 2), {"CHAOS_TRACE": str(folder / TRACE), "PYTHONPATH": str(TRACE_FOLDER)})


def calm(
    nodes: Nodes,
    folder: Path,
    study: Path,
    settings: Mapping[str, object],
    say: Callable[[str], None] = print,
) -> Chaos:
    """An undisturbed run. Raises ChaosError where it needs more than one start, or computes a piece twice."""
    run = fresh(nodes, folder, "calm", study, settings, say)
    run.run([])
    if run.starts > 1:
        raise ChaosError(f"the undisturbed run failed: {run.tail(30)}")
    run.told_rework()
    run.tell("the undisturbed run has finished")
    return run


def storm(
    nodes: Nodes,
    blows: Sequence[Blow],
    folder: Path,
    name: str,
    reference: Path,
    study: Path,
    settings: Mapping[str, object],
    say: Callable[[str], None] = print,
) -> Chaos:
    """A disturbed run; `reference` is the store of an undisturbed one. Raises ChaosError as `chaos` does.

    The blows for which there was no work left are in the result's `left`.
    """
    run = fresh(nodes, folder, name, study, settings, say)
    mounted = any(blow.victim in MOUNTED for blow in blows)
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(run.folder)], check=True)
    try:
        run.run(blows)
        equal = compare(run.store, reference)
        again = run.told_rework()
    finally:
        run.end_driver()
        if mounted:
            subprocess.run(["umount", "--lazy", str(run.folder)], check=True)
    say(f"{len(run.marks)} blows, {run.starts} starts of the driver, {run.refusals} ended with a message")
    say(f"computed again after each blow: {'; '.join(map(shown, again))}")
    say(f"{equal} files with the bits of the undisturbed run; {time.monotonic() - run.began:.0f} s")
    if run.odd:
        raise ChaosError("; ".join(run.odd))
    return run


def fresh(
    nodes: Nodes,
    folder: Path,
    name: str,
    study: Path,
    settings: Mapping[str, object],
    say: Callable[[str], None],
) -> Chaos:
    """A run in a folder of its own, with a trace that begins anew."""
    (folder / name).mkdir(parents=True)
    (folder / TRACE).unlink(missing_ok=True)
    return Chaos(nodes, folder / name, study, settings, say)


def possible(blow: Blow, nodes: Nodes) -> bool:
    """Whether this machine lets a blow be struck."""
    if blow.victim == "cut off":
        return nodes.network.can_cut
    return os.geteuid() == 0 or blow.victim not in MOUNTED


def shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{stage} {count}" for stage, count in counts.items()) or "-"
