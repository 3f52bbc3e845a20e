"""Tables of the map of models: coordinates for the picture, and the numbers behind it. Rows as dicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sftlab.analysis.geometry.likelihoods import likelihood_map
from sftlab.analysis.geometry.model_map import SMALLEST, coordinates, grouping
from sftlab.analysis.geometry.neighbours import Floats
from sftlab.studies.survey.measures import Measures
from sftlab.studies.survey.score_table import BASE, Run
from sftlab.studies.survey.survey import Survey

Row = dict[str, Any]
LABELS = ("base", "family", "data", "method", "size", "epoch")
WITHIN = {"base": "models", "family": "bases"}  # what is shuffled; all others: models within each base


def model_map(survey: Survey, measures: Measures) -> list[Row]:
    """Each model in each map, with its t-SNE coordinates (Figure 6)."""
    rows: list[Row] = []
    for text, (runs, points) in _maps(measures):
        places = coordinates(points, survey.seed_for("map", text))
        assert places is not None
        rows += [
            {
                "text": text,
                "base": run.model,
                "family": survey.about.labels([run.model], "family")[0],
                "data": run.data,
                "method": run.method,
                "size": run.size,
                "epoch": run.epoch,
                "x": float(x),
                "y": float(y),
            }
            for run, (x, y) in zip(runs, places, strict=True)
        ]
    return rows


def map_groups(survey: Survey, measures: Measures) -> list[Row]:
    """For each map and label: how near models of one label are, and what shuffled labels give.

    Base models take part for the labels base and family alone. Divergences are estimated KL divergences in nats a text.
    """
    rows: list[Row] = []
    for text, (runs, points) in _maps(measures):
        for label in LABELS:
            kept = [at for at, run in enumerate(runs) if label in WITHIN or run.data != BASE]
            here = [runs[at] for at in kept]
            if len(here) < SMALLEST:
                continue
            blocks = ["all" if label == "base" else run.model for run in here]
            labels = _labels(survey, here, label)
            found = grouping(points[kept], labels, blocks, survey.seed_for("map", text, label))
            if found is None:
                continue
            rows.append(
                {
                    "text": text,
                    "label": label,
                    "models": len(here),
                    "groups": found.groups,
                    "silhouette": found.silhouette,
                    "silhouette_chance": found.silhouette_chance,
                    "silhouette_p": found.silhouette_p,
                    "share_nearest": found.nearest,
                    "share_nearest_chance": found.nearest_chance,
                    "nearest_p": found.nearest_p,
                    "divergence_within": found.squares.within / (2 * points.shape[1]),
                    "divergence_between": found.squares.between / (2 * points.shape[1]),
                    "shuffled": WITHIN.get(label, "models within each base"),
                }
            )
    return rows


def _maps(measures: Measures) -> Iterator[tuple[str, tuple[Sequence[Run], Floats]]]:
    """The maps with enough models and texts, as points: clipped and double-centred."""
    for text, (runs, values) in measures.maps.items():
        if len(runs) >= SMALLEST and values.shape[1] > 1:
            yield text, (runs, likelihood_map(values))


def _labels(survey: Survey, runs: Sequence[Run], label: str) -> list[str]:
    if label == "family":
        return survey.about.labels([run.model for run in runs], "family")
    return [str(run.model if label == "base" else getattr(run, label)) for run in runs]
