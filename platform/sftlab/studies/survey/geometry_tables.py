"""Tables of the geometry of hidden states: base models against the models tuned from them. Rows as dicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sftlab.analysis.effects import mean_effect
from sftlab.analysis.geometry.dimension import SCALES
from sftlab.analysis.geometry.layer_geometry import DENSITY_K
from sftlab.analysis.layers import POINTS, on_grid, positions
from sftlab.studies.survey.measures import Measures
from sftlab.studies.survey.score_table import BASE, Run
from sftlab.studies.survey.survey import Survey

Row = dict[str, Any]
Layer = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
Of = Callable[[Layer], float]


def _consistency(layer: Layer) -> float:
    shares = [found["share"] for found in layer["consistency"]]
    return float(np.mean(shares)) if shares else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


QUANTITIES: dict[str, Of] = {
    "dimension": lambda layer: _number(layer["dimensions"][SCALES.index(DENSITY_K)]),
    "clusters": lambda layer: _number(layer["clusters"]),
    "ari": lambda layer: _number(layer["ari"]),
    "consistency": _consistency,
}


def geometry_layers(measures: Measures) -> list[Row]:
    """Of each base and layer the quantities of the base, and their means over the models tuned from it."""
    rows: list[Row] = []
    for base, tuned in _by_base(measures).items():
        layers = measures.geometry[Run(base, BASE)]
        for layer, found in enumerate(layers):
            row: Row = {"model": base, "layer": layer, "position": (layer + 0.5) / len(layers)}
            for name, of in QUANTITIES.items():
                row[f"{name}_base"] = of(found)
                row[f"{name}_tuned"] = float(np.mean([of(one[layer]) for one in tuned]))
            rows.append({**row, "tuned_models": len(tuned)})
    return rows


def geometry(survey: Survey, measures: Measures) -> list[Row]:
    """By position and quantity: base models, tuned models, and the difference with its interval (Figures 5d, A.2).

    Means over bases, of a base over its tuned models. A quantity that a layer of a base lacks has no row there.
    """
    pairs = _by_base(measures)
    rows: list[Row] = []
    for name, of in QUANTITIES.items() if pairs else ():
        base = np.stack([_curve(measures.geometry[Run(model, BASE)], of) for model in pairs])
        tuned = np.stack([np.mean([_curve(one, of) for one in found], axis=0) for found in pairs.values()])
        for at, position in enumerate(positions(POINTS)):
            difference = tuned[:, at] - base[:, at]
            if not np.isfinite(difference).all():
                continue
            row: Row = {
                "quantity": name,
                "position": float(position),
                "base": float(base[:, at].mean()),
                "tuned": float(tuned[:, at].mean()),
                "difference": float(difference.mean()),
            }
            effect = (
                mean_effect(difference, ("models",), survey.seed_for("geometry", name, at))
                if len(difference) > 1
                else None
            )
            rows.append(
                {
                    **row,
                    "low": effect.low if effect else None,
                    "high": effect.high if effect else None,
                    "p": effect.p if effect else None,
                    "bases": len(difference),
                }
            )
    return rows


def consistency(measures: Measures) -> list[Row]:
    """In the last layer, by the set that a prompt is from, the share of neighbours from the same set (Figure A.3)."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for base, tuned in _by_base(measures).items():
        for share in measures.geometry[Run(base, BASE)][-1]["consistency"]:
            found.setdefault(share["label"], ([], []))[0].append(share["share"])
        for one in tuned:
            for share in one[-1]["consistency"]:
                found.setdefault(share["label"], ([], []))[1].append(share["share"])
    return [
        {"data": label, "share_base": float(np.mean(base)), "share_tuned": float(np.mean(tuned))}
        for label, (base, tuned) in found.items()
        if base and tuned
    ]


def scales(measures: Measures) -> list[Row]:
    """The dimension of the last layer by the scale at which GRIDE looks."""
    pairs = _by_base(measures)
    rows: list[Row] = []
    for at, scale in enumerate(SCALES if pairs else ()):

        def of(layer: Layer, at: int = at) -> float:
            return _number(layer["dimensions"][at])

        base = [of(measures.geometry[Run(model, BASE)][-1]) for model in pairs]
        tuned = [of(one[-1]) for found in pairs.values() for one in found]
        rows.append({"neighbour": scale, "base": float(np.mean(base)), "tuned": float(np.mean(tuned))})
    return rows


def state_map(measures: Measures) -> list[Row]:
    """The states of the last layer in the plane (Figure A.4): a row a prompt, base models before their tuned ones."""
    return [
        {
            "model": row["model"],
            "trained_on": row["data"],
            "method": row["method"],
            "prompt_of": row["label"],
            "x": row["x"],
            "y": row["y"],
        }
        for row in measures.states
    ]


def _by_base(measures: Measures) -> dict[str, list[Sequence[Layer]]]:
    """Of each base that was measured, the layers of the models tuned from it; bases without any are left out."""
    found: dict[str, list[Sequence[Layer]]] = {}
    for run, layers in measures.geometry.items():
        if run.data != BASE and Run(run.model, BASE) in measures.geometry:
            found.setdefault(run.model, []).append(layers)
    return found


def _curve(layers: Sequence[Layer], of: Of) -> Floats:
    """A quantity on the common grid of positions; NaN where a layer next to the position lacks it."""
    return on_grid([of(layer) for layer in layers])
