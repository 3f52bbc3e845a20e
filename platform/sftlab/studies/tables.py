"""The committed results of studies, sweeps and surveys as Arrow tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.store.artifact import Store
from sftlab.store.mirror import pull
from sftlab.store.record import FOLDER_DIGITS, Record
from sftlab.studies.knowledge.results.tables import Results

if TYPE_CHECKING:
    import pyarrow as pa

SURVEY = "survey-results"
STAGES = ("results", "sweep-results", SURVEY)
_ID = re.compile(r"[0-9a-f]{8,64}")


def read_results(store: Store | Path | str, name: str) -> dict[str, pa.Table]:
    """The result tables of a finished study, sweep or survey.

    Of a study or sweep: `cells` (one row a training run), `accuracy`, `paired`, `divergence`, `concentration`,
    `distribution`, `undone`, `mastery` and `training` (one row an optimiser step), and of a study with `gradients` the
    tables `gradients`, `restored_gradients` and `forgetting`, and of one with `few_shot` that table, each with the
    column `variant`; and `groups`, `comparisons`, `choice` and `times` over all variants. The modules of
    `studies/knowledge/results/` whose names end in `rows` document every column. Accuracies and shares are fractions
    of 1, divergences are in nats, `percent` is the percentage of restored weights.

    Of a survey: `scores` (one row a model and benchmark, in per cent), and a table for each other parquet file of its
    results, such as `forms`, `movement` and `perplexity`.

    Args:
        store: the store, or its folder or address.
        name: of the study, sweep or survey, as its file gives it. Where several results have this name, those that
            were committed last are read. At least 8 digits of the id of the results name others.

    Returns:
        Arrow tables by name: columns of int64, float64 and string; null where a value is not defined.

    Raises:
        UserError: no result has this name or id, or one of its files is not readable.
        Damaged: a file has other bytes than its record says.
    """
    opened = store if isinstance(store, Store) else Store(store)
    record = _latest(opened, name)
    folder = pull(opened.path(record.step))
    return _survey_tables(folder) if record.stage == SURVEY else Results.read(folder).tables()


def _latest(store: Store, name: str) -> Record:
    found = [record for stage in STAGES for record in store.records(stage, slug=name)]
    if not found and _ID.fullmatch(name):
        found = [record for stage in STAGES for record in store.records(stage, name)]
    if found:
        return max(found, key=lambda record: record.provenance.get("time", ""))
    known = sorted(
        f"{record.slug} ({record.id[:FOLDER_DIGITS]})" for stage in STAGES for record in store.records(stage)
    )
    raise UserError(
        f"has no results of {name!r}",
        place=store,
        value=name,
        expected=f"one of {', '.join(known)}" if known else "",
        advice="`sftlab run`, `sftlab sweep` and `sftlab survey` build results.",
    )


def _survey_tables(folder: Path) -> dict[str, pa.Table]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    files = [folder / "scores.csv", *sorted(folder.glob("*.parquet"))]
    found: dict[str, pa.Table] = {}
    for file in files:
        try:
            found[file.stem] = pa.csv.read_csv(file) if file.suffix == ".csv" else pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"is not a readable table: {error}", place=file) from error
    return found
