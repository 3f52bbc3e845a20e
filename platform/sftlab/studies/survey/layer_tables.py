"""Tables of causal layer maps: effects of each swap, and what they propose. Rows as dicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sftlab.analysis.layer_maps import (
    OUTSIDE,
    Interval,
    Proposal,
    benchmark_means,
    differences,
    freeze_proposal,
    halves,
    restore_proposal,
)
from sftlab.studies.survey.measures import LayerMap, Measures
from sftlab.studies.survey.score_table import Run
from sftlab.studies.survey.survey import Survey
from sftlab.weights.regions import layers_label

Row = dict[str, Any]
FREEZE, RESTORE = "sft.freeze_layers", "restore.layers"


def layer_maps(survey: Survey, measures: Measures) -> list[Row]:
    """Each swap of each mapped model: its gain over the base and its change against the tuned model, in points."""
    rows: list[Row] = []
    for run, found in measures.layer_maps.items():
        seed = survey.seed_for("layer map", run)
        gains = differences(100 * (found.scores - found.base), found.benchmarks, seed)
        changes = differences(100 * (found.scores - found.tuned), found.benchmarks, seed)
        (full,) = differences(100 * (found.tuned - found.base)[None], found.benchmarks, seed)
        rows += [
            {
                **_key(run),
                "kind": swap.kind,
                "part": "outside" if swap.part == OUTSIDE else str(swap.part),
                "layers": found.layers,
                "questions": found.scores.shape[1],
                **_columns("gain", gain),
                **_columns("change", change),
                "full_gain": full.value,
            }
            for swap, gain, change in zip(found.swaps, gains, changes, strict=True)
        ]
    return rows


def layer_proposals(survey: Survey, measures: Measures) -> list[Row]:
    """Layers to freeze and to restore, chosen on every second question and judged on the others, in points.

    change: of the swap that the proposal follows from, against the tuned model, on the questions that judge.
    """
    rows: list[Row] = []
    for run, found in measures.layer_maps.items():
        if np.bincount(found.benchmarks).min() < 2:
            continue
        choosing = halves(found.benchmarks)
        values = 100 * np.vstack([found.scores - found.base, found.tuned - found.base])[:, choosing]
        *gains, full = benchmark_means(values, found.benchmarks[choosing])
        frozen = freeze_proposal(found.swaps, np.array(gains), full, found.layers)
        restored = restore_proposal(found.swaps, np.array(gains) - full)
        seed = survey.seed_for("layer proposal", run)
        rows += [
            {**_key(run), "field": name, **_judged(found, proposal, ~choosing, seed)}
            for name, proposal in ((FREEZE, frozen), (RESTORE, restored))
            if proposal is not None
        ]
    return rows


def _judged(found: LayerMap, proposal: Proposal, judging: npt.NDArray[np.bool_], seed: int) -> Row:
    """What a proposal does on the questions that did not choose it."""
    at = found.swaps.index(proposal.swap)
    values = 100 * np.stack([found.scores[at] - found.tuned, found.tuned - found.base])[:, judging]
    change, full = differences(values, found.benchmarks[judging], seed)
    return {
        "layers": layers_label(",".join(map(str, sorted(proposal.layers)))),
        "swap": proposal.swap.name,
        **_columns("change", change),
        "full_gain": full.value,
        "questions": int(judging.sum()),
    }


def _key(run: Run) -> Row:
    return {"model": run.model, "data": run.data, "method": run.method, "size": run.size}


def _columns(name: str, found: Interval) -> Row:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
