"""Commands for one model: rank, which compares training sets before anything is trained, and ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftlab.cli.common import (
    JsonFlag,
    Overrides,
    Place,
    RuntimeFile,
    Shown,
    StoreFolder,
    open_store,
    runtime_of,
    show,
    shown_progress,
)
from sftlab.cli.options import DATA, MODEL, expanded
from sftlab.errors import UserError

if TYPE_CHECKING:
    from sftlab.execution.runtime import Runtime

SPREAD = ("--data", "--benchmarks")  # options of rank that take several words
Dtype = Annotated[
    str, typer.Option(help="float32, bfloat16, float16, or auto: that of the checkpoint.", metavar="DTYPE")
]


@dataclass(frozen=True)
class Candidates:
    """What is ranked, and how it is read."""

    model: Annotated[Path, typer.Option(help="Folder, or id of a hub, of the base model."), MODEL]
    data: Annotated[
        list[Path],
        typer.Option(help="Training sets (.jsonl, .json, .parquet), or ids of a hub: --data A B C."),
        DATA,
    ]
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option(help="Files of questions to look for in the sets: --benchmarks X Y."),
        DATA,
    ] = None
    template: Annotated[str, typer.Option(help="paper, chat, text, or a file of Jinja text.")] = "paper"
    examples: Annotated[int, typer.Option(min=2, help="Examples of each set that are measured.")] = 1000
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help="Leave out longer examples; the model's context if unset.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of examples.")] = 0
    dtype: Dtype = "auto"


@dataclass(frozen=True)
class Questions:
    """One benchmark, and how it is asked."""

    model: Annotated[Path, typer.Option(help="Folder, or id of a hub, of the model."), MODEL]
    benchmark: Annotated[
        Path, typer.Option(help="File of questions (docs/surveys.md), or id of a hub."), DATA
    ]
    metric: Annotated[
        str, typer.Option(help="exact, contains, number, f1 or rouge-l, where a question names none.")
    ] = "exact"
    template: Annotated[str, typer.Option(help="paper, chat, text, or a file of Jinja text.")] = "paper"
    questions: Annotated[
        int | None, typer.Option(min=1, help="Questions that are asked, drawn by seed; all if unset.")
    ] = None
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of questions.")] = 0
    output: Annotated[Path | None, typer.Option(help="New JSON lines file for every answer.")] = None
    dtype: Dtype = "auto"


@expanded
def rank(
    candidates: Candidates,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank training sets for a model, before training.

    Perplexity, length, repetitions, overlap with benchmarks, and cost. With surveys in the store, a predicted gain.
    """
    show(as_json, lambda: rank_sets(candidates, runtime, store, overrides or []))


@expanded
def ask(
    questions: Questions,
    runtime: RuntimeFile = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask one model the questions of one benchmark.

    The same prompts and verdicts as in a survey: score, form of the answers, likeliest choice.
    """
    show(as_json, lambda: ask_questions(questions, runtime, overrides or []))


def spread(arguments: Sequence[str]) -> list[str]:
    """The arguments of rank with `--data A B C` as `--data A --data B --data C`; options end the list."""
    found: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in SPREAD else None
            first = True
        elif option is not None and not first:
            found.append(option)
        if option is not None and not argument.startswith("-"):
            first = False
        found.append(argument)
    return found


def rank_sets(given: Candidates, runtime_file: Path | None, store: Place, overrides: Sequence[str]) -> Shown:
    """Read the sets, measure them on one engine, and order them."""
    from sftlab.datasets.encode import Encoder
    from sftlab.datasets.templates import read_template
    from sftlab.studies.survey.estimate import epoch_hours
    from sftlab.studies.survey.known_gains import known_gains
    from sftlab.studies.survey.one_model import context, measure, open_model
    from sftlab.studies.survey.rank import Reading, likelihoods_of, rank, ranking_json, read_candidates
    from sftlab.studies.survey.rank_text import ranking_text

    runtime, progress = runtime_of(runtime_file, store, overrides), shown_progress()
    tokenizer, template = open_model(given.model, read_template(given.template), runtime)
    encoder = Encoder(tokenizer, template, str(given.model))
    limit = given.max_tokens or context(given.model, runtime)
    reading = Reading(given.examples, given.seed, limit)
    candidates = read_candidates(given.data, encoder, reading, given.benchmarks or [])
    known = known_gains(open_store(runtime))
    wanted = {candidate.name: likelihoods_of(candidate, encoder) for candidate in candidates}
    tables = measure(given.model, wanted, runtime, progress, given.dtype)
    ranking = rank(candidates, [tables[candidate.name] for candidate in candidates], known, given.seed)
    hours = [
        epoch_hours(given.model, one.candidate.tokens, runtime.rates) if _on_gpu(runtime) else None
        for one in ranking.ranked
    ]
    return Shown(ranking_json(ranking, str(given.model), hours), ranking_text(ranking, hours))


def ask_questions(given: Questions, runtime_file: Path | None, overrides: Sequence[str]) -> Shown:
    """Ask the questions and judge the answers."""
    from sftlab.datasets.benchmark_file import METRICS, BenchmarkFileSpec
    from sftlab.datasets.templates import read_template
    from sftlab.studies.survey.ask import ask, asked_text

    if given.metric not in METRICS:
        raise UserError("is no metric", place=f"--metric {given.metric}", expected=", ".join(METRICS))
    if given.output is not None and given.output.exists():
        raise UserError(
            "exists already", place=given.output, advice="give another --output, or delete it first."
        )
    file = BenchmarkFileSpec.model_validate(
        {
            "source": str(given.benchmark),
            "metric": given.metric,
            "max_tokens": given.max_tokens,
            "questions": given.questions,
            "seed": given.seed,
        }
    )
    runtime = runtime_of(runtime_file, None, overrides)
    found = ask(given.model, file, read_template(given.template), runtime, shown_progress(), given.dtype)
    if given.output is not None:
        from sftlab.studies.survey.ask import write_answers

        write_answers(found, given.output)
    return Shown(found.summary, asked_text(found))


def _on_gpu(runtime: Runtime) -> bool:
    return bool(runtime.engine.gpus_per_engine)
