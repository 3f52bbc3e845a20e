"""Commands that make data and show it: prepare, pocket and data show."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sftlab.cli.common import JsonFlag, Shown, bar_once_begun, show
from sftlab.cli.options import DATA, MODEL, expanded
from sftlab.errors import UserError

if TYPE_CHECKING:
    from sftlab.datasets.preview import Model
    from sftlab.datasets.spec import DataFileSpec, TemplateSpec

data = typer.Typer(help="Look at data sets before anything is trained on them.", no_args_is_help=True)


@expanded
def prepare(
    source: Annotated[
        Path,
        typer.Option(help="EntityQuestions zip or folder, or your facts (.jsonl, .json, .parquet)."),
        DATA,
    ],
    output: Annotated[Path, typer.Option(help="Folder for the tables.")],
    templates: Annotated[Path | None, typer.Option(help="YAML of topics; the published 24 if unset.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read facts and write them as tables.

    The tables are train, test, test_ood, dev and dev_ood.
    """
    show(as_json, lambda: prepare_facts(source, output, templates))


@expanded
def pocket(
    output: Annotated[Path, typer.Option(help="Folder for `facts/` and `model/`.")],
    source: Annotated[
        Path | None, typer.Option(help="EntityQuestions zip or folder in place of invented facts."), DATA
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world and of the model.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Make a small world of facts, and a model of it.

    Invented facts, and a small Llama pre-trained on them (minutes, on the CPU).
    """
    show(as_json, lambda: make_pocket(output, source, seed, threads))


@data.callback()
def _data() -> None:
    """Look at data sets before anything is trained on them."""


@dataclass(frozen=True)
class Reading:
    """How the rows of a data set are read and shown."""

    models: Annotated[
        list[Path] | None,
        typer.Option("--model", help="Folder of a model whose tokens are shown; repeatable."),
        MODEL,
    ] = None
    template: Annotated[str, typer.Option(help="paper, chat, text, or a file of Jinja text.")] = "paper"
    format: Annotated[str | None, typer.Option(help="Format of the rows; found by the columns if unset.")] = (
        None
    )
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option("--benchmark", help="File of questions to look for in the examples; repeatable."),
        DATA,
    ] = None
    rows: Annotated[int, typer.Option(min=0, help="Examples to print.")] = 3
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Count examples over this length in place of refusing the longest."),
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="How rows are read, such as turns=first, columns.prompt=ask."
        ),
    ] = None


@data.command(
    "show",
    epilog="Example: sftlab data show data/alpaca.json --model models/base --benchmark data/questions.jsonl",
)
@expanded
def show_data(
    file: Annotated[
        Path,
        typer.Argument(
            help="Data set (.jsonl, .ndjson, .json, each also .gz, .parquet), or its id on a hub."
        ),
        DATA,
    ],
    reading: Reading,
    as_json: JsonFlag = False,
) -> None:
    """Show what a model would see of a data set.

    The format that was found, lengths, repetitions, overlap with benchmarks, and examples as tokens: [[trained part]].
    """
    show(as_json, lambda: preview_data(file, reading))


def preview_data(file: Path, reading: Reading) -> Shown:
    """What a model would see of a data set."""
    from sftlab.datasets.overlap import Overlap, read_questions
    from sftlab.datasets.preview import as_json as preview_json
    from sftlab.datasets.preview import preview
    from sftlab.datasets.preview_text import as_text
    from sftlab.datasets.source import open_data
    from sftlab.datasets.templates import make_template, read_template

    rendered = read_template(reading.template)
    source = open_data(_data_file(file, reading.format, reading.overrides or []))
    measured = [_measured(folder, rendered) for folder in reading.models or []]
    shown = measured[0].encoder.template if measured else make_template(rendered)
    overlaps = [Overlap(str(path), read_questions(path)) for path in reading.benchmarks or []]
    found = preview(source, shown, measured, overlaps, reading.rows, reading.max_tokens)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return Shown(preview_json(found), as_text(found, colour=coloured))


def _data_file(file: Path, format: str | None, overrides: Sequence[str]) -> DataFileSpec:
    from sftlab.config.documents import unknown_hint
    from sftlab.config.overrides import origin_of, override, validated
    from sftlab.datasets.spec import FORMAT_NAMES, DataFileSpec

    if format is not None and format not in FORMAT_NAMES:
        raise UserError("is no format", place=f"--format {format}", advice=unknown_hint(format, FORMAT_NAMES))
    for text in overrides:
        if text.partition("=")[0] == "source":
            raise UserError(
                "the file is the argument of the command",
                place=f"--set {text}",
                advice="leave this option out.",
            )
    settings = [f"format={format}", *overrides] if format else list(overrides)
    document: dict[str, Any] = {"source": str(file)}
    origin = origin_of(str(file), document, settings)
    return validated(DataFileSpec, override(document, settings), origin)


def _measured(folder: Path, template: TemplateSpec) -> Model:
    """A model's tokenizer, checked, with a template; and how long a text its config.json allows."""
    from sftlab.config.documents import parse_json
    from sftlab.datasets.encode import Encoder
    from sftlab.datasets.preview import Model
    from sftlab.datasets.templates import make_template
    from sftlab.inference.tokenizer_check import check_tokenizer, load_tokenizer

    name, tokenizer = str(folder), load_tokenizer(folder)
    made = make_template(template, tokenizer, name)
    for loss in check_tokenizer(folder, tokenizer):
        print(f"{name}: the tokenizer does not give back {loss}.", file=sys.stderr)
    config, limit = folder / "config.json", None
    if config.is_file():
        settings = parse_json(config.read_bytes(), str(config), "copy it again from the model's source.")
        given = settings.get("max_position_embeddings") if isinstance(settings, dict) else None
        limit = given if isinstance(given, int) and given > 0 else None
    return Model(Encoder(tokenizer, made, name), limit)


def prepare_facts(source: Path, output: Path, templates: Path | None) -> Shown:
    """Read and write facts; shows how many each topic has in each split."""
    from sftlab.facts.prepare import counts_text, notices, read_source, write_facts

    tables, topics = read_source(source, templates)
    counts = write_facts(tables, topics, output)
    found = notices(source, tables, topics)
    for notice in found:
        print(notice, file=sys.stderr)  # not into the text that a program reads
    totals = {split: sum(topics.values()) for split, topics in counts.items()}
    data = {"facts": totals, "topics": counts, "path": str(output), "notices": found}
    return Shown(data, f"{counts_text(counts)}\nwritten to {output}")


def make_pocket(output: Path, source: Path | None, seed: int, threads: int) -> Shown:
    """Make the pocket world and model below `output`; what is finished there already is left as it is."""
    from sftlab.facts.prepare import read_source
    from sftlab.pocket.make import make_world
    from sftlab.pocket.spec import PocketRuntime, PocketSpec

    spec = PocketSpec(seed=seed, source=str(source) if source else None)
    tables = read_source(source, None)[0] if source else None
    with bar_once_begun("pre-training") as update:
        made = make_world(
            spec,
            output,
            tables,
            PocketRuntime(threads=threads),
            progress=lambda done, total, loss: update(done, total, f"loss {loss:.3f}"),
        )
    facts, model = output / "facts", output / "model"
    return Shown(
        {"facts": str(facts), "model": str(model), "made": bool(made)},
        f"{'' if made else 'found: '}facts in {facts}, model in {model}",
    )
