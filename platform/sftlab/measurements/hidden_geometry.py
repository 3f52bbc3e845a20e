"""Geometry of the hidden states of prompts at every layer of a model, in a Ray actor. States are never stored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftlab.analysis.geometry.layer_geometry import layer_geometry
from sftlab.analysis.geometry.model_map import coordinates
from sftlab.cluster.out_of_memory import is_out_of_memory
from sftlab.errors import UserError
from sftlab.inference.hidden import last_states
from sftlab.inference.spec import EngineRuntime
from sftlab.weights.restoration import ModelSource

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


def geometry_schema() -> pa.Schema:
    """Columns of the table: a row a layer.

    points: distinct states; dimensions: GRIDE at `analysis.geometry.dimension.SCALES`; clusters: density peaks; ari:
    their adjusted Rand index with the labels; consistency: by label the share of nearest neighbours that have it.
    """
    import pyarrow as pa

    share = pa.struct([("label", pa.string()), ("share", pa.float64())])
    return pa.schema(
        [
            ("layer", pa.int32()),
            ("layers", pa.int32()),
            ("points", pa.int64()),
            ("dimensions", pa.list_(pa.float64())),
            ("clusters", pa.int32()),
            ("ari", pa.float64()),
            ("consistency", pa.list_(share)),
        ]
    )


def state_map_schema() -> pa.Schema:
    """Columns of the table: a row a prompt.

    label: the set of the prompt; x, y: the state of the last layer in the plane by t-SNE.
    """
    import pyarrow as pa

    return pa.schema([("label", pa.string()), ("x", pa.float64()), ("y", pa.float64())])


class GeometryWorker:
    """The process that computes and reduces hidden states; one model at a time."""

    def __init__(self, runtime: EngineRuntime) -> None:
        import torch

        self.device = "cuda" if runtime.gpus_per_engine else "cpu"
        if not runtime.gpus_per_engine:
            torch.set_num_threads(runtime.threads or len(os.sched_getaffinity(0)))

    def measure(
        self, source: ModelSource, dtype: str, prompts: Sequence[Sequence[int]], labels: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Rows of `geometry_schema` of one model. Raises UserError where it does not fit into memory."""
        states = self._states(source, dtype, prompts)
        rows = []
        for layer, state in enumerate(states):  # one layer in float64 at a time
            found = layer_geometry(state.double().numpy(), labels)
            rows.append(
                {
                    "layer": layer,
                    "layers": len(states),
                    "points": found.points,
                    "dimensions": list(found.dimensions),
                    "clusters": found.clusters,
                    "ari": found.ari,
                    "consistency": [
                        {"label": label, "share": share} for label, share in found.consistency.items()
                    ],
                }
            )
        return rows

    def draw(
        self, source: ModelSource, dtype: str, prompts: Sequence[Sequence[int]], labels: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Rows of `state_map_schema` of one model, none of fewer than four prompts. Raises UserError as `measure`."""
        points = coordinates(self._states(source, dtype, prompts)[-1].double().numpy())
        if points is None:
            return []
        return [
            {"label": label, "x": float(x), "y": float(y)}
            for label, (x, y) in zip(labels, points, strict=True)
        ]

    def _states(
        self, source: ModelSource, dtype: str, prompts: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        try:
            return last_states(source, prompts, dtype, self.device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"does not fit into the memory of one process for measure.geometry ({error})",
                place=source.folder,
                advice="leave measure.geometry out of the survey, or run on a larger machine.",
            ) from error
