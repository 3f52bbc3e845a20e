"""What a survey measured besides scores: forms of answers, changes of weights by layer. A table of scores has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from sftlab.analysis.layer_maps import LayerSwap
from sftlab.store.tables import read_table
from sftlab.studies.survey.grid import Condition, Grid
from sftlab.studies.survey.score_table import BASE, Run

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
Key = TypeVar("Key", int, str)
FORMS, MOVEMENT, PERPLEXITY = "forms.parquet", "movement.parquet", "perplexity.parquet"
RESTORED = "restored.parquet"
MAP, LAYER_MAPS, GEOMETRY = "map.parquet", "layer_maps.parquet", "geometry.parquet"
STATES = "states.parquet"
"""Names of the files, with the columns that identify a run."""


@dataclass(frozen=True)
class LayerMap:
    """Scores of the swaps of one model, of its base and of itself, at the same questions.

    Attributes:
        layers: of the model.
        scores: [swaps, questions]; base, tuned: [questions].
        benchmarks: [questions], the number of the benchmark of each question.
    """

    layers: int
    swaps: tuple[LayerSwap, ...]
    scores: Floats
    base: Floats
    tuned: Floats
    benchmarks: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measures:
    """By run; empty where nothing was measured.

    Attributes:
        forms: by run and benchmark, the share of answers in the asked form and the score of these (NaN without any),
            both in [0, 1].
        movement: by run, the relative Frobenius change of each layer: [layers].
        modules: by run, the relative Frobenius change of each module over all layers, and of what is outside of them.
        by_likelihood: by run and benchmark, the share of questions of which the right choice is the likeliest.
        perplexity: by base, set and size, the numbers of `perplexity_schema`.
        restored: rows of `restored_schema`.
        maps: by kind of text, the models and their log-likelihoods of the texts that all models could score:
            [models, texts].
        layer_maps: by tuned model, the scores of its swaps.
        geometry: by model, the rows of its layers in their order, as `geometry_rows_schema`.
        states: rows of `state_map_rows_schema`.
    """

    forms: Mapping[tuple[Run, str], tuple[float, float]] = field(default_factory=dict)
    movement: Mapping[Run, Floats] = field(default_factory=dict)
    by_likelihood: Mapping[tuple[Run, str], float] = field(default_factory=dict)
    perplexity: Mapping[tuple[str, str, int], Mapping[str, Any]] = field(default_factory=dict)
    restored: Sequence[Mapping[str, Any]] = ()
    maps: Mapping[str, tuple[tuple[Run, ...], Floats]] = field(default_factory=dict)
    layer_maps: Mapping[Run, LayerMap] = field(default_factory=dict)
    geometry: Mapping[Run, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    modules: Mapping[Run, Mapping[str, float]] = field(default_factory=dict)
    states: Sequence[Mapping[str, Any]] = ()

    def forms_of(self, grid: Grid) -> tuple[Floats, Floats, Floats, Floats] | None:
        """Form and score given form of the grid [models, sets, benchmarks], and of the bases [models, 1, benchmarks].

        None where a cell was not measured.
        """
        bases = [[Run(model, BASE)] for model in grid.models]
        runs = [[grid.condition.run(model, name) for name in grid.sets] for model in grid.models]
        found = []
        for rows in (runs, bases):
            cells = [[[self.forms.get((run, b)) for b in grid.benchmarks] for run in row] for row in rows]
            if any(cell is None for row in cells for line in row for cell in line):
                return None
            pair = np.array(cells, dtype=np.float64)
            found += [pair[..., 0], pair[..., 1]]
        return found[0], found[1], found[2], found[3]

    def perplexity_of(self, grid: Grid, kind: str) -> Floats | None:
        """One number of `perplexity_schema` for each model and set of the grid: [models, sets]; None with a gap."""
        keys = [[(model, name, grid.condition.size) for name in grid.sets] for model in grid.models]
        found = [[self.perplexity.get(key, {}).get(kind) for key in row] for row in keys]
        return None if any(value is None for row in found for value in row) else np.array(found, np.float64)

    def by_likelihood_of(self, grid: Grid, benchmark: str) -> tuple[float, float] | None:
        """Mean share of likeliest choices that are right, of the bases and of the tuned models; None with a gap."""
        bases = [self.by_likelihood.get((Run(model, BASE), benchmark)) for model in grid.models]
        runs = [grid.condition.run(model, name) for model in grid.models for name in grid.sets]
        tuned = [self.by_likelihood.get((run, benchmark)) for run in runs]
        known = [[value for value in part if value is not None] for part in (bases, tuned)]
        if [len(part) for part in known] != [len(bases), len(tuned)]:
            return None
        return float(np.mean(known[0])), float(np.mean(known[1]))

    def movement_of(
        self, models: tuple[str, ...], sets: tuple[str, ...], condition: Condition
    ) -> dict[str, Floats]:
        """Of each model the change of its layers by set: [sets, layers]; models with a gap are left out."""
        found = {}
        for model in models:
            rows = [self.movement.get(condition.run(model, name)) for name in sets]
            if all(row is not None for row in rows):
                found[model] = np.array(rows, dtype=np.float64)
        return found


def read_measures(folder: Path) -> Measures:
    """The measures in the folder of a survey's results, none where it has no such files.

    Raises UserError for damaged ones.
    """
    forms, by_likelihood = {}, {}
    for row in _rows(folder / FORMS, forms_schema()):
        given = np.nan if row["score_given_form"] is None else row["score_given_form"]
        forms[_run(row), str(row["benchmark"])] = (float(row["in_form"]), float(given))
        if row["right_by_likelihood"] is not None:
            by_likelihood[_run(row), str(row["benchmark"])] = float(row["right_by_likelihood"])
    moved = _rows(folder / MOVEMENT, movement_rows_schema())
    layers = _relative((_run(row), int(row["layer"]), row) for row in moved if row["layer"] is not None)
    movement = {run: np.array([found[layer] for layer in sorted(found)]) for run, found in layers.items()}
    modules = _relative((_run(row), _module(row), row) for row in moved)
    perplexity = {
        (row["model"], row["data"], row["size"]): row
        for row in _rows(folder / PERPLEXITY, perplexity_schema())
    }
    maps = _maps(_rows(folder / MAP, map_schema()))
    layer_maps = _layer_maps(_rows(folder / LAYER_MAPS, layer_map_rows_schema()))
    geometry: dict[Run, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(folder / GEOMETRY, geometry_rows_schema()):
        geometry[_run(row)].append(row)
    restored = _rows(folder / RESTORED, restored_schema())
    states = _rows(folder / STATES, state_map_rows_schema())
    return Measures(
        forms, movement, by_likelihood, perplexity, restored, maps, layer_maps, geometry, modules, states
    )


def _relative(rows: Iterable[tuple[Run, Key, Mapping[str, Any]]]) -> dict[Run, dict[Key, float]]:
    """By run and key the relative Frobenius change of all its rows; NaN where the base is zero."""
    sums: dict[Run, dict[Key, list[float]]] = defaultdict(dict)
    for run, key, row in rows:
        found = sums[run].setdefault(key, [0.0, 0.0])
        found[0] += float(row["squared_change"])
        found[1] += float(row["squared_base"])
    return {
        run: {key: float(np.sqrt(moved / size)) if size else np.nan for key, (moved, size) in found.items()}
        for run, found in sums.items()
    }


def _module(row: Mapping[str, Any]) -> str:
    """The module of a row, whatever its layer; the norm after the last layer is a part of its own."""
    module = str(row["module"])
    return f"final {module}" if row["layer"] is None and module == "norm" else module


def _layer_maps(rows: Sequence[Mapping[str, Any]]) -> dict[Run, LayerMap]:
    """The layer maps by model; a question that was not asked counts as wrong."""
    by_run: dict[Run, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_run[_run(row)].append(row)
    found = {}
    for run, here in by_run.items():
        swaps = tuple(dict.fromkeys(LayerSwap(row["kind"], int(row["part"])) for row in here))
        first = here[: len(here) // len(swaps)]  # every swap has the same questions in the same order
        places = {name: place for place, name in enumerate(dict.fromkeys(row["benchmark"] for row in first))}
        scores = np.array([row["score"] or 0.0 for row in here], dtype=np.float64).reshape(len(swaps), -1)
        base, tuned = (
            np.array([row[name] or 0.0 for row in first], dtype=np.float64) for name in ("base", "tuned")
        )
        benchmarks = np.array([places[row["benchmark"]] for row in first], dtype=np.int64)
        found[run] = LayerMap(int(here[0]["layers"]), swaps, scores, base, tuned, benchmarks)
    return found


def _maps(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[tuple[Run, ...], Floats]]:
    """The maps by kind of text, without the texts that a model could not score."""
    found = {}
    for text in dict.fromkeys(str(row["text"]) for row in rows):
        here = [row for row in rows if row["text"] == text]
        values = np.array([row["log_likelihoods"] for row in here], dtype=np.float64)
        found[text] = (tuple(_run(row) for row in here), values[:, np.isfinite(values).all(axis=0)])
    return found


def run_fields() -> list[tuple[str, Any]]:
    """Columns that identify a run."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return [
        ("model", text),
        ("data", text),
        ("method", text),
        ("size", pa.int64()),
        ("epoch", number),
        ("schedule", text),
    ]


def forms_schema() -> pa.Schema:
    """Columns of FORMS; tokens: written in all answers, null for judgments from elsewhere."""
    import pyarrow as pa

    share = pa.float64()
    own = [
        ("benchmark", pa.string()),
        ("questions", pa.int64()),
        ("in_form", share),
        ("score_given_form", share),
    ]
    counts = [("errors", pa.int64()), ("tokens", pa.int64())]
    return pa.schema([*run_fields(), *own, *counts, ("right_by_likelihood", share)])


def perplexity_schema() -> pa.Schema:
    """Columns of PERPLEXITY: of a set under a base, before it is trained on.

    response, full: perplexity of the tokens of responses, and of whole texts; bits_per_byte: of responses; tokens: of a
    response on average, with its closing token; errors: texts that could not be scored.
    """
    import pyarrow as pa

    names = [("model", pa.string()), ("data", pa.string()), ("size", pa.int64())]
    numbers = [(name, pa.float64()) for name in ("response", "full", "bits_per_byte", "tokens")]
    return pa.schema([*names, *numbers, ("errors", pa.int64())])


def restored_schema() -> pa.Schema:
    """Columns of RESTORED: of a tuned model and of its restorations, by benchmark and half of its questions.

    percent: of the restored weights, 0 for the tuned model; half: `dev` or `test`, see `champions.dev_questions`;
    in_form, score_given_form, right_by_likelihood: shares; tokens: written in all answers.
    """
    import pyarrow as pa

    share = pa.float64()
    part = [("percent", share), ("benchmark", pa.string()), ("half", pa.string()), ("questions", pa.int64())]
    shares = [(name, share) for name in ("in_form", "score_given_form", "right_by_likelihood")]
    return pa.schema([*run_fields(), *part, *shares, ("errors", pa.int64()), ("tokens", pa.int64())])


def map_schema() -> pa.Schema:
    """Columns of MAP: a model's log-likelihoods of one kind of texts, in the order of the questions of the benchmarks.

    A text that the model could not score is null.
    """
    import pyarrow as pa

    return pa.schema([*run_fields(), ("text", pa.string()), ("log_likelihoods", pa.list_(pa.float64()))])


def layer_map_rows_schema() -> pa.Schema:
    """Columns of LAYER_MAPS: the score of a swap at a question, next to those of the base and of the tuned model.

    Sorted by model and swap; the questions of all swaps of a model are in one order.
    """
    import pyarrow as pa

    swap = [("kind", pa.string()), ("part", pa.int32()), ("layers", pa.int32())]
    asked = [("benchmark", pa.string()), ("question_id", pa.string())]
    scores = [(name, pa.float64()) for name in ("score", "base", "tuned")]
    return pa.schema([*run_fields(), *swap, *asked, *scores])


def geometry_rows_schema() -> pa.Schema:
    """Columns of GEOMETRY: those of `measurements.hidden_geometry.geometry_schema`, layers in their order."""
    import pyarrow as pa

    from sftlab.measurements.hidden_geometry import geometry_schema

    return pa.schema([*run_fields(), *geometry_schema()])


def state_map_rows_schema() -> pa.Schema:
    """Columns of STATES: those of `measurements.hidden_geometry.state_map_schema`, a model after another."""
    import pyarrow as pa

    from sftlab.measurements.hidden_geometry import state_map_schema

    return pa.schema([*run_fields(), *state_map_schema()])


def movement_rows_schema() -> pa.Schema:
    """Columns of MOVEMENT."""
    import pyarrow as pa

    sums = [("squared_change", pa.float64()), ("squared_base", pa.float64())]
    counts = [("weights", pa.int64()), ("changed", pa.int64())]
    return pa.schema([*run_fields(), ("layer", pa.int32()), ("module", pa.string()), *counts, *sums])


def _rows(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = read_table(path, schema).to_pylist()
    return rows


def _run(row: Mapping[str, Any]) -> Run:
    if row["data"] == BASE:
        return Run(str(row["model"]), BASE)
    return Run(
        str(row["model"]),
        str(row["data"]),
        str(row["method"]),
        int(row["size"]),
        float(row["epoch"]),
        str(row["schedule"]),
    )
