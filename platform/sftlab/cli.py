"""The commands. Each parses, checks and hands over; heavy libraries are imported where they are used."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sftlab import __version__
from sftlab.errors import UserError
from sftlab.shell import command

app = typer.Typer(
    name="sftlab",
    help="What does fine-tuning do to what a language model knows, and how to undo the harm?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

Study = Annotated[Path, typer.Argument(help="Study file (YAML).", metavar="STUDY.yaml")]
RuntimeFile = Annotated[
    Path | None, typer.Option("--runtime", help="Runtime file (YAML): workers, GPUs, store, tracking.")
]
# Text and no Path, which would make one stroke of the two in an address.
StoreFolder = Annotated[
    str | None, typer.Option("--store", help="Folder or address of the results (runtime.store).")
]
# The stages of study/plan.py, which is heavy to import; a test compares them.
UNTIL = "Last stage to build: facts, model, mastery, training-set, tuned, change, evaluation, results, best or report."
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field; runtime fields as runtime.KEY=VALUE."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sftlab {__version__}")
        raise typer.Exit


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C: leave by way of every `finally`, say how to go on, exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted. What is finished stands; run the same command to go on.", err=True)
        raise typer.Exit(130) from None


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See `sftlab COMMAND --help` for examples."""


@app.command(epilog="Example: sftlab prepare --source data/entity_questions.zip --output data/facts --json")
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
    from sftlab.commands import prepare_facts

    with interruptible():
        typer.echo(prepare_facts(source, output, templates, as_json))


@app.command(epilog="Example: sftlab pocket --output runs/pocket")
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
    from sftlab.commands import make_pocket

    with interruptible():
        typer.echo(make_pocket(output, source, seed, threads))


RegionOption = Annotated[str, typer.Option(help="layers, attention, mlp, embeddings or all.")]
OrderOption = Annotated[str, typer.Option(help="top, bottom or random.")]
MeasureOption = Annotated[str, typer.Option(help="Change that top and bottom rank by: relative or absolute.")]
LayersOption = Annotated[
    str | None, typer.Option(help="Narrow the region to these transformer layers, as 0-3 or 0,2,5-7.")
]
BaseFolder = Annotated[Path, typer.Option(help="Folder of the model before fine-tuning.")]
TunedFolder = Annotated[Path, typer.Option(help="Folder of the model after fine-tuning.")]


@app.command(epilog="Example: sftlab change --base models/base --tuned models/tuned --output runs/change")
def change(
    base: BaseFolder,
    tuned: TunedFolder,
    output: Annotated[Path, typer.Option(help="Folder for change.json.")],
    percent: Annotated[str, typer.Option(help="Percentages, separated by commas.")] = "1,3,5,10,20,40,60",
    region: RegionOption = "layers",
    order: OrderOption = "top",
    seed: Annotated[int, typer.Option(help="Seed of the random order.")] = 0,
    measure: MeasureOption = "relative",
    layers: LayersOption = None,
) -> None:
    """Measure how far each weight moved.

    And how concentrated the movement is.
    """
    from sftlab.commands import change_weights

    with interruptible():
        typer.echo(change_weights(base, tuned, output, percent, region, order, seed, measure, layers))


@app.command(
    epilog="Example: sftlab restore --base models/base --tuned models/tuned --percent 5,10 --output runs/r"
)
def restore(
    base: BaseFolder,
    tuned: TunedFolder,
    output: Annotated[Path, typer.Option(help="Folder for restored-10/ and so on, and change.json.")],
    percent: Annotated[str, typer.Option(help="Percentages, separated by commas.")] = "1,3,5,10,20,40,60",
    region: RegionOption = "layers",
    order: OrderOption = "top",
    seed: Annotated[int, typer.Option(help="Seed of the random order.")] = 0,
    measure: MeasureOption = "relative",
    layers: LayersOption = None,
) -> None:
    """Put the most-changed weights back to base values.

    Writes a model for each percentage.
    """
    from sftlab.commands import restore_weights

    with interruptible():
        typer.echo(restore_weights(base, tuned, output, percent, region, order, seed, measure, layers))


@app.command(epilog="Example: sftlab plan jobs/configs/pocket.yaml --set training_sets.sizes=[25,100]")
def plan(
    study: Study,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    as_json: JsonFlag = False,
    every_step: Annotated[bool, typer.Option("--steps", help="List each step, also of large grids.")] = False,
) -> None:
    """Show what a study has, lacks and will cost.

    Every step with HIT or BUILD, the reason, and the cost. Computes nothing.
    """
    from sftlab.commands import print_plan

    with interruptible():
        print_plan(study, runtime, store, overrides or [], as_json, every_step)


@app.command(
    epilog="Example: sftlab run jobs/configs/pocket.yaml --runtime jobs/configs/runtimes/laptop-2cpu.yaml"
)
def run(
    study: Study,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    until: Annotated[str, typer.Option(help=UNTIL)] = "report",
) -> None:
    """Build what a study lacks, to its report.

    Run it again after a kill: it goes on where it stopped.
    """
    from sftlab.commands import run_to_report

    with interruptible():
        run_to_report(study, runtime, store, overrides or [], until)


@app.command(
    epilog="Example: sftlab sweep jobs/configs/sweeps/pocket.yaml --runtime jobs/configs/runtimes/laptop-2cpu.yaml"
)
def sweep(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).", metavar="SWEEP.yaml")],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what there is and what it will cost.")
    ] = False,
) -> None:
    """Run a study over data, sizes and strategies.

    Finished trials are used again: run it again after a kill, or with a longer axis.
    """
    from sftlab.commands import print_sweep_plan, sweep_to_report

    with interruptible():
        (print_sweep_plan if plan else sweep_to_report)(file, runtime, store, overrides or [])


@app.command(epilog="Example: sftlab report jobs/configs/sweeps/pocket.yaml --time")
def report(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).", metavar="SWEEP.yaml")],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    time: Annotated[bool, typer.Option("--time", help="Print where the time of the trials went.")] = False,
) -> None:
    """Say what a finished sweep recommends.

    And where its report lies, or (--time) where its time went.
    """
    from sftlab.commands import sweep_report

    with interruptible():
        sweep_report(file, runtime, store, overrides or [], time)


@app.command(epilog="Example: sftlab materialize 3fa94c1b2d07 --output models/restored")
def materialize(
    id: Annotated[
        str,
        typer.Argument(
            help="Id (8 digits do) as MLflow and STORE/evaluation have it, or models:/SWEEP@champion.",
            metavar="ID",
        ),
    ],
    output: Annotated[Path | None, typer.Option(help="New folder; below the store if unset.")] = None,
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base model, where the store does not know it.")
    ] = None,
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
    plugins: Annotated[
        list[str] | None, typer.Option("--plugin", help="Module of an own strategy that made the model.")
    ] = None,
) -> None:
    """Write a model's folder from its recipe."""
    from sftlab.commands import materialize_model

    with interruptible():
        materialize_model(id, runtime, store, output, base, overrides or [], plugins or [])


@app.command(
    epilog="Example: sftlab track jobs/configs/pocket.yaml --set runtime.tracking.address=http://localhost:5000"
)
def track(
    file: Annotated[Path, typer.Argument(help="Study or sweep file (YAML).", metavar="FILE.yaml")],
    runtime: RuntimeFile = None,
    store: StoreFolder = None,
    overrides: Overrides = None,
) -> None:
    """Log a finished study or sweep to MLflow.

    Nothing is computed, and nothing is logged twice.
    """
    from sftlab.commands import track_finished

    with interruptible():
        track_finished(file, runtime, store, overrides or [])


@app.command(epilog="Example: sftlab verify --store /shared/sftlab/store")
def verify(runtime: RuntimeFile = None, store: StoreFolder = None, overrides: Overrides = None) -> None:
    """Read every result and compare its hash.

    Damaged results are set aside, so that the next run builds them again. Reads the whole store.
    """
    from sftlab.commands import verify_store

    with interruptible():
        verify_store(runtime, store, overrides or [])


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point: exit code 0 for success, 2 for what the user can mend, 130 for Ctrl-C."""
    # Before torch is loaded: threads that spin while they wait slow a busy machine down tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Also where a shell that started this in the background had Ctrl-C ignored: whoever sends it means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what `ray job stop` sends
    try:
        app(arguments)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = error.filename or "a file"
        typer.echo(
            f"error: {where}: cannot be written ({error.strerror}); nothing half-written counts.", err=True
        )
        sys.exit(2)
    sys.exit(0)


def job(*words: str) -> NoReturn:
    """Entry point of the scripts in `jobs/`: these words, then the script's own; `--config FILE` is FILE."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        script = command("python", Path(sys.argv[0]))
        typer.echo(f"As a job: {script} --config FILE.yaml [OPTIONS], with the options of:\n")
    main([*words, *(word.removeprefix("--config=") for word in sys.argv[1:] if word != "--config")])
