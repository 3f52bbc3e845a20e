"""Reads a table of scores: one row a score (long), or one row a model (the wide CSV of Harada et al. 2025)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sftlab.config.documents import unknown_hint
from sftlab.errors import Place, UserError

Floats = npt.NDArray[np.float64]

REQUIRED: Final = ("model", "data", "benchmark", "score")
OPTIONAL: Final = ("method", "size", "epoch", "schedule")
WIDE: Final = {
    "model_name": "model",
    "data_name": "data",
    "lora": "method",
    "data_size": "size",
    "epoch": "epoch",
    "lr_strategy": "schedule",
}
# How a base model's row names its training set.
BASELINES: Final = ("base", "pretrain")
BASE: Final = "base"
NO_SCORE: Final = {"", "nan", "na", "n/a", "none", "null"}
METHODS: Final = {"true": "lora", "false": "full", "none": "", "": ""}


@dataclass(frozen=True, order=True)
class Run:
    """One model that was scored; of a base model, `data` is "base" and the rest is empty or 0."""

    model: str
    data: str
    method: str = ""
    size: int = 0
    epoch: float = 0.0
    schedule: str = ""

    def __str__(self) -> str:
        parts = [self.model, self.data]
        parts += [self.method] if self.method else []
        parts += [f"size {self.size:,}"] if self.size else []
        parts += [self.schedule] if self.schedule else []
        parts += [f"epoch {self.epoch:g}"] if self.epoch else []
        return ", ".join(parts)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of runs on benchmarks.

    Attributes:
        source: the file's name.
        form: "long" or "wide".
        scores: [runs, benchmarks] in the units of each benchmark; NaN where there is none.
        rows: [runs], the first row of the file that names the run; the header is row 1.
    """

    source: str
    form: str
    runs: tuple[Run, ...]
    benchmarks: tuple[str, ...]
    scores: Floats
    rows: tuple[int, ...]

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(run.model for run in self.runs))

    def index(self) -> dict[Run, int]:
        return {run: number for number, run in enumerate(self.runs)}

    def baselines(self) -> dict[str, int]:
        """The position of each base model."""
        return {run.model: number for number, run in enumerate(self.runs) if run.data == BASE}

    def only(self, models: Sequence[str] | None, benchmarks: Sequence[str] | None) -> ScoreTable:
        """The table of some models and benchmarks. Raises UserError for a name that it does not hold."""
        for kind, wanted, known in (
            ("model", models, self.models),
            ("benchmark", benchmarks, self.benchmarks),
        ):
            for name in wanted or ():
                if name not in known:
                    raise UserError(
                        f"has no {kind} {name!r}",
                        place=self.source,
                        value=name,
                        advice=unknown_hint(name, known),
                    )
        rows = [n for n, run in enumerate(self.runs) if models is None or run.model in models]
        columns = [n for n, name in enumerate(self.benchmarks) if benchmarks is None or name in benchmarks]
        return replace(
            self,
            runs=tuple(self.runs[n] for n in rows),
            benchmarks=tuple(self.benchmarks[n] for n in columns),
            scores=self.scores[np.ix_(rows, columns)],
            rows=tuple(self.rows[n] for n in rows),
        )


def read_scores(path: Path, baseline: str | None = None) -> ScoreTable:
    """Read a CSV of scores; its form is found by its columns.

    Args:
        path: UTF-8, with a header.
        baseline: what `data` says in the rows of base models, other than "base" and "pretrain".

    Raises UserError that names the file, row and column for what cannot be read, for a score that is given twice,
    and for models without a baseline.
    """
    header, lines = _lines(path)
    form = _form(path, header)
    names = {name.casefold() for name in (*BASELINES, *([baseline] if baseline else ()))}
    cells: dict[tuple[Run, str], tuple[int, float]] = {}
    first_rows: dict[Run, int] = {}
    reader = _long if form == "long" else _wide
    for row, run, benchmark, score in reader(path, header, lines, names):
        if (run, benchmark) in cells:
            raise UserError(
                f"rows {cells[run, benchmark][0]} and {row} both hold {benchmark} of {run}",
                place=path,
                expected="one score for each",
                advice=f"remove one of the rows, or name how they differ in {', '.join(OPTIONAL)}.",
            )
        cells[run, benchmark] = (row, score)
        first_rows.setdefault(run, row)
    if not cells:
        raise UserError("holds no scores below its header", place=path, expected="one row at least")
    return _checked(path, _table(path, form, cells, first_rows), names)


def _lines(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", place=path, advice="give a CSV file of scores."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"is not UTF-8 ({error.reason})", place=path, advice="save the table as UTF-8 CSV."
        ) from error
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UserError(f"is not valid CSV: {error}", place=Place(str(path), reader.line_num)) from error
    if not rows:
        raise UserError("is empty", place=path, expected=f"a header with the columns {', '.join(REQUIRED)}")
    header = [name.strip() for name in rows[0][1]]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise UserError(
            f"column {twice!r} is there twice",
            place=Place(str(path), 1),
            value=twice,
            advice="remove or rename one.",
        )
    return header, _named(path, header, rows[1:])


def _named(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]]
) -> Iterator[tuple[int, dict[str, str]]]:
    for row, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"has {len(cells)} cells",
                place=Place(str(path), row),
                value=len(cells),
                expected=f"{len(header)} as in the header",
                advice="quote texts that hold commas, and give an empty cell where there is no value.",
            )
        yield row, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _form(path: Path, header: Sequence[str]) -> str:
    if {"model_name", "data_name"} <= set(header):
        return "wide"
    known = (*REQUIRED, *OPTIONAL)
    for name in header:
        if name and name not in known:
            raise UserError(
                f"unknown column {name!r}",
                place=Place(str(path), 1),
                value=name,
                advice=unknown_hint(name, known),
            )
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise UserError(
            f"column {missing[0]!r} is missing",
            place=Place(str(path), 1),
            value=missing[0],
            expected=(
                f"{', '.join(REQUIRED)}, and where they vary {', '.join(OPTIONAL)} (one row a score), "
                "or model_name and data_name with one column a benchmark"
            ),
        )
    return "long"


def _long(
    path: Path, _header: list[str], lines: Iterator[tuple[int, dict[str, str]]], baselines: set[str]
) -> Iterator[tuple[int, Run, str, float]]:
    for row, cells in lines:
        benchmark = _filled(path, row, "benchmark", cells)
        yield row, _run(path, row, cells, baselines), benchmark, _score(path, row, "score", cells["score"])


def _wide(
    path: Path, header: list[str], lines: Iterator[tuple[int, dict[str, str]]], baselines: set[str]
) -> Iterator[tuple[int, Run, str, float]]:
    benchmarks = [name for name in header if name and name not in WIDE]
    if not benchmarks:
        raise UserError(f"has no column of scores besides {', '.join(WIDE)}", place=Place(str(path), 1))
    for row, cells in lines:
        named = {short: cells[long] for long, short in WIDE.items() if long in cells}
        method = named.get("method", "").lower()
        if method not in METHODS:
            raise UserError(place=Place(str(path), row, "lora"), value=method, expected="true or false")
        named["method"] = METHODS[method]
        run = _run(path, row, named, baselines, columns={short: long for long, short in WIDE.items()})
        for benchmark in benchmarks:
            yield row, run, benchmark, _score(path, row, benchmark, cells[benchmark])


def _run(
    path: Path,
    row: int,
    cells: Mapping[str, str],
    baselines: set[str],
    columns: Mapping[str, str] | None = None,
) -> Run:
    names = columns or {}
    model = _filled(path, row, "model", cells, names)
    data = _filled(path, row, "data", cells, names)
    if data.casefold() in baselines:
        return Run(model, BASE)
    size = _number(path, row, names.get("size", "size"), cells.get("size", ""))
    if size != int(size):
        raise UserError(
            place=Place(str(path), row, names.get("size", "size")),
            value=size,
            expected="a whole number",
        )
    epoch = _number(path, row, names.get("epoch", "epoch"), cells.get("epoch", ""))
    return Run(model, data, cells.get("method", ""), int(size), epoch, cells.get("schedule", ""))


def _filled(
    path: Path, row: int, column: str, cells: Mapping[str, str], names: Mapping[str, str] | None = None
) -> str:
    if not cells[column]:
        shown = (names or {}).get(column, column)
        raise UserError(
            "is empty",
            place=Place(str(path), row, shown),
            value="",
            expected="a name",
            advice="fill it in or remove the row.",
        )
    return cells[column]


def _number(path: Path, row: int, column: str, text: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(
            place=Place(str(path), row, column),
            value=text,
            expected="a number that is not negative, or nothing",
        )
    return value


def _score(path: Path, row: int, column: str, text: str) -> float:
    if text.lower() in NO_SCORE:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise UserError(
            place=Place(str(path), row, column),
            value=text,
            expected="a number such as 61.3, or nothing where there is no score",
        )
    return value


def _table(
    path: Path,
    form: str,
    cells: Mapping[tuple[Run, str], tuple[int, float]],
    rows: Mapping[Run, int],
) -> ScoreTable:
    runs, benchmarks = list(rows), list(dict.fromkeys(benchmark for _, benchmark in cells))
    at, columns = {run: n for n, run in enumerate(runs)}, {name: n for n, name in enumerate(benchmarks)}
    scores = np.full((len(runs), len(benchmarks)), np.nan)
    for (run, benchmark), (_, score) in cells.items():
        scores[at[run], columns[benchmark]] = score
    return ScoreTable(path.name, form, tuple(runs), tuple(benchmarks), scores, tuple(rows.values()))


def _checked(path: Path, table: ScoreTable, names: set[str]) -> ScoreTable:
    """Raises UserError where a model has no baseline, or a baseline alone."""
    tuned = {run.model: row for run, row in zip(table.runs, table.rows, strict=True) if run.data != BASE}
    without = next((model for model in tuned if model not in table.baselines()), None)
    if without is not None:
        said = ", ".join(sorted(names))
        raise UserError(
            f"model {without!r} has no baseline, so that its gains are not defined",
            place=Place(str(path), tuned[without]),
            value=without,
            advice=(
                f"add its scores before fine-tuning as rows whose data is one of {said} (another "
                "word: --baseline WORD), or leave the model out with --models."
            ),
        )
    if not tuned:
        raise UserError("holds baselines alone", place=path, expected="rows of fine-tuned models too")
    return table
