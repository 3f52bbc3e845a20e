"""The command for tables of scores: compare."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sftlab.cli.common import JsonFlag, Shown, bar_once_begun, show
from sftlab.cli.options import expanded


@dataclass(frozen=True)
class Choices:
    """What of a table is analysed, and how."""

    about: Annotated[
        Path | None,
        typer.Option(help="YAML with families, languages, lengths, chance levels by name."),
    ] = None
    baseline: Annotated[
        str | None, typer.Option(help="What data says for base models, if not base or pretrain.")
    ] = None
    models: Annotated[str | None, typer.Option(help="Only these models, separated by commas.")] = None
    benchmarks: Annotated[str | None, typer.Option(help="Only these benchmarks, separated by commas.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of bootstraps and permutations.")] = 0


@expanded
def compare(
    scores: Annotated[
        Path,
        typer.Argument(
            help="CSV with model, data, benchmark, score, and where they vary method, size, epoch, schedule; "
            "or one column a benchmark with model_name and data_name.",
            metavar="CSV",
        ),
    ],
    choices: Choices,
    output: Annotated[Path, typer.Option(help="Folder for compare.html and tables/.")] = Path("runs/compare"),
    as_json: JsonFlag = False,
) -> None:
    """Analyse any table of scores of fine-tuned models.

    Gains, agreement, factors, faults of the table, and the claims of Harada et al. 2025, as a page and tables.
    """
    show(as_json, lambda: compare_scores(scores, choices, output))


def compare_scores(scores: Path, choices: Choices, output: Path) -> Shown:
    """Analyse a table of scores and write its page and tables."""
    from sftlab.studies.survey.compare import PAGE, Options, compare_file, summary, write
    from sftlab.studies.survey.report.page import finding, render

    models, benchmarks = _names(choices.models), _names(choices.benchmarks)
    options = Options(choices.about, choices.baseline, models, benchmarks, choices.seed)
    # In a log, progress is plain lines on stdout, which is for the result here.
    with redirect_stdout(sys.stderr), bar_once_begun("comparing") as update:
        found = compare_file(scores, options, update)
    write(found, render(found), output)
    page = output / PAGE
    lines = [finding(found)]
    if left_out := found.survey.grid.left_out:
        lines.append(f"not in the main grid: {'; '.join(left_out)}")
    if counts := found.counts():
        lines.append(f"claims: {', '.join(f'{word} {number}' for word, number in counts.items())}")
    return Shown({**summary(found), "page": str(page)}, "\n".join([*lines, f"report: {page}"]))


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
