"""What a survey measured besides scores: forms of answers, changes of weights by layer. A table of scores has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sftlab.store.tables import read_table
from sftlab.studies.survey.grid import Condition, Grid
from sftlab.studies.survey.score_table import BASE, Run

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
FORMS, MOVEMENT, PERPLEXITY = "forms.parquet", "movement.parquet", "perplexity.parquet"
RESTORED = "restored.parquet"
"""Names of the files, with the columns that identify a run."""


@dataclass(frozen=True)
class Measures:
    """By run; empty where nothing was measured.

    Attributes:
        forms: by run and benchmark, the share of answers in the asked form and the score of these (NaN without any),
            both in [0, 1].
        movement: by run, the relative Frobenius change of each layer: [layers].
        by_likelihood: by run and benchmark, the share of questions of which the right choice is the likeliest.
        perplexity: by base, set and size, the numbers of `perplexity_schema`.
        restored: rows of `restored_schema`.
    """

    forms: Mapping[tuple[Run, str], tuple[float, float]] = field(default_factory=dict)
    movement: Mapping[Run, Floats] = field(default_factory=dict)
    by_likelihood: Mapping[tuple[Run, str], float] = field(default_factory=dict)
    perplexity: Mapping[tuple[str, str, int], Mapping[str, Any]] = field(default_factory=dict)
    restored: Sequence[Mapping[str, Any]] = ()

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
    layers: dict[Run, dict[int, list[float]]] = defaultdict(dict)
    for row in _rows(folder / MOVEMENT, movement_rows_schema()):
        if row["layer"] is not None:
            sums = layers[_run(row)].setdefault(int(row["layer"]), [0.0, 0.0])
            sums[0] += float(row["squared_change"])
            sums[1] += float(row["squared_base"])
    movement = {
        run: np.sqrt([moved / size if size else np.nan for _, (moved, size) in sorted(found.items())])
        for run, found in layers.items()
    }
    perplexity = {
        (row["model"], row["data"], row["size"]): row
        for row in _rows(folder / PERPLEXITY, perplexity_schema())
    }
    restored = _rows(folder / RESTORED, restored_schema())
    return Measures(forms, movement, by_likelihood, perplexity, restored)


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
    """Columns of FORMS."""
    import pyarrow as pa

    share = pa.float64()
    own = [
        ("benchmark", pa.string()),
        ("questions", pa.int64()),
        ("in_form", share),
        ("score_given_form", share),
    ]
    return pa.schema([*run_fields(), *own, ("errors", pa.int64()), ("right_by_likelihood", share)])


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
    in_form, score_given_form, right_by_likelihood: shares.
    """
    import pyarrow as pa

    share = pa.float64()
    part = [("percent", share), ("benchmark", pa.string()), ("half", pa.string()), ("questions", pa.int64())]
    shares = [(name, share) for name in ("in_form", "score_given_form", "right_by_likelihood")]
    return pa.schema([*run_fields(), *part, *shares, ("errors", pa.int64())])


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
