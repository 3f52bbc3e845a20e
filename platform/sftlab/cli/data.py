"""Commands that make data: prepare and pocket."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sftlab.cli.common import JsonFlag, _bar_once_begun, interruptible


def prepare(
    source: Annotated[
        Path, typer.Option(help="EntityQuestions zip or folder, or own facts (.jsonl, .parquet).")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the tables.")],
    templates: Annotated[Path | None, typer.Option(help="YAML of topics; the published 24 if unset.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Read facts and write them as tables.

    The tables are train, test, test_ood, dev and dev_ood.
    """
    with interruptible():
        typer.echo(prepare_facts(source, output, templates, as_json))


def pocket(
    output: Annotated[Path, typer.Option(help="Folder for `facts/` and `model/`.")],
    source: Annotated[
        Path | None, typer.Option(help="EntityQuestions zip or folder in place of invented facts.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world and of the model.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Make a small world of facts, and a model of it.

    Invented facts, and a small Llama pre-trained on them (minutes, on the CPU).
    """
    with interruptible():
        typer.echo(make_pocket(output, source, seed, threads))


def prepare_facts(source: Path, output: Path, templates: Path | None, as_json: bool) -> str:
    """Read and write facts; returns the counts by split and topic as text or JSON."""
    from sftlab.facts.prepare import left_out, read_source, write_facts

    tables, topics = read_source(source, templates)
    counts = write_facts(tables, topics, output)
    if told := left_out(source, topics):
        print(told, file=sys.stderr)  # not into the JSON
    totals = {split: sum(topics.values()) for split, topics in counts.items()}
    if as_json:
        return json.dumps({"facts": totals, "topics": counts}, indent=1)
    lines = [f"{split:<9} {total:>8,} facts, {len(counts[split])} topics" for split, total in totals.items()]
    return "\n".join([*lines, f"written to {output}"])


def make_pocket(output: Path, source: Path | None, seed: int, threads: int) -> str:
    """Make the pocket world and model below `output`; what is finished there already is left as it is."""
    from sftlab.facts.prepare import read_source
    from sftlab.pocket.make import make_world
    from sftlab.pocket.spec import PocketRuntime, PocketSpec

    spec = PocketSpec(seed=seed, source=str(source) if source else None)
    tables = read_source(source, None)[0] if source else None
    with _bar_once_begun("pre-training") as update:
        made = make_world(
            spec,
            output,
            tables,
            PocketRuntime(threads=threads),
            progress=lambda done, total, loss: update(done, total, f"loss {loss:.3f}"),
        )
    return f"{'' if made else 'found: '}facts in {output / 'facts'}, model in {output / 'model'}"
