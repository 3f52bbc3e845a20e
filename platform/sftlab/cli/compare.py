"""The command for tables of scores: compare."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from sftlab.cli.common import JsonFlag, bar_once_begun, interruptible


def compare(
    scores: Annotated[
        Path,
        typer.Argument(
            help="CSV with model, data, benchmark, score, and where they vary method, size, epoch, schedule; "
            "or one column a benchmark with model_name and data_name.",
            metavar="CSV",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for compare.html and tables/.")] = Path("runs/compare"),
    about: Annotated[
        Path | None,
        typer.Option(help="YAML with families, languages, lengths, chance levels by name."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="What data says for base models, if not base or pretrain.")
    ] = None,
    models: Annotated[str | None, typer.Option(help="Only these models, separated by commas.")] = None,
    benchmarks: Annotated[
        str | None, typer.Option(help="Only these benchmarks, separated by commas.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of bootstraps and permutations.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Analyse any table of scores of fine-tuned models.

    Gains, agreement, factors, faults of the table, and the claims of Harada et al. 2025, as a page and tables.
    """
    from sftlab.studies.survey.compare import PAGE, Options, compare_file, summary, write
    from sftlab.studies.survey.report.page import finding, render

    options = Options(about, baseline, _names(models), _names(benchmarks), seed)
    with interruptible():
        # In a log, progress is plain lines on stdout, which is for the result here.
        with redirect_stdout(sys.stderr), bar_once_begun("comparing") as update:
            found = compare_file(scores, options, update)
        write(found, render(found), output)
        page = output / PAGE
        if as_json:
            typer.echo(json.dumps({**summary(found), "page": str(page)}, indent=1, ensure_ascii=False))
            return
        typer.echo(finding(found))
        if counts := found.counts():
            typer.echo(f"claims: {', '.join(f'{word} {number}' for word, number in counts.items())}")
        typer.echo(f"report: {page}")


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
