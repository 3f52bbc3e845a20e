"""The commands. Each parses, checks and hands over; heavy libraries are imported where they are used."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sftlab import __version__
from sftlab.cli import compare, data, explain, listing, rank, report, store, study, survey, sweep, weights
from sftlab.cluster.environment import name_user, spin_briefly
from sftlab.errors import ExitCode, UserError
from sftlab.shell import command

app = typer.Typer(
    name="sftlab",
    help="What does fine-tuning do to what a language model knows, and how to undo the harm?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sftlab {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See `sftlab COMMAND --help` for examples."""


app.command(epilog="Example: sftlab prepare --source data/entity_questions.zip --output data/facts --json")(
    data.prepare
)
app.command(epilog="Example: sftlab pocket --output runs/pocket")(data.pocket)
app.add_typer(data.data, name="data")
app.command(epilog="Example: sftlab change --base models/base --tuned models/tuned --output runs/change")(
    weights.change
)
app.command(
    epilog="Example: sftlab restore --base models/base --tuned models/tuned --percent 5,10 --output runs/r"
)(weights.restore)
app.command(
    epilog="Example: sftlab pack --base models/base --tuned models/tuned --output models/tuned.delta"
)(weights.pack)
app.command(
    epilog="Example: sftlab unpack --base models/base --packed models/tuned.delta --output models/again"
)(weights.unpack)
app.command(epilog="Example: sftlab plan jobs/configs/pocket.yaml --set training_sets.sizes=[25,100]")(
    study.plan
)
app.command(
    epilog="Example: sftlab run jobs/configs/pocket.yaml --runtime jobs/configs/runtimes/laptop-2cpu.yaml"
)(study.run)
app.command(epilog="Example: sftlab status jobs/configs/pocket.yaml --json")(study.status)
app.command(epilog="Example: sftlab explain jobs/configs/pocket.yaml 3fa94c1b --json")(explain.explain)
app.command(
    epilog="Example: sftlab sweep jobs/configs/sweeps/pocket.yaml --runtime jobs/configs/runtimes/laptop-2cpu.yaml"
)(sweep.sweep)
app.command(
    epilog="Example: sftlab report jobs/configs/sweeps/pocket.yaml --time; "
    "sftlab report jobs/configs/llama2-7b.yaml jobs/configs/llama3-8b.yaml"
)(report.report)
app.command(
    epilog="Example: sftlab survey jobs/configs/surveys/tiny.yaml --runtime jobs/configs/runtimes/laptop-2cpu.yaml"
)(survey.survey)
app.command(
    epilog="Example: sftlab materialize 3fa94c1b2d07 --output models/restored; "
    "sftlab materialize a-general-n200-full-e2 --survey jobs/configs/surveys/pocket.yaml"
)(store.materialize)
app.command(epilog="Example: sftlab recipe 3fa94c1b2d07")(store.recipe)
app.command(epilog="Example: sftlab push 3fa94c1b2d07 my-org/restored-10")(store.push)
app.command(
    epilog="Example: sftlab track jobs/configs/pocket.yaml --set runtime.tracking.address=http://localhost:5000"
)(store.track)
app.command(epilog="Example: sftlab compare scores.csv --about about.yaml --output runs/compare")(
    compare.compare
)
app.command(
    epilog="Example: sftlab rank --model models/base --data alpaca.json support.jsonl --benchmarks tickets.jsonl"
)(rank.rank)
app.command(
    epilog="Example: sftlab ask --model models/tuned --benchmark tickets.jsonl --metric contains --json"
)(rank.ask)
app.command("list", epilog="Example: sftlab list strategies")(listing.list_names)
app.command(epilog="Example: sftlab verify --store /shared/sftlab/store")(store.verify)


def at_home(arguments: list[str]) -> list[str]:
    """The arguments with `~` as the user's home where it follows `--option=`; shells leave it there."""
    split = [argument.partition("=~") for argument in arguments]
    return [
        f"{option}={os.path.expanduser(f'~{rest}')}" if found and option.startswith("--") else argument  # noqa: PTH111
        for argument, (option, found, rest) in zip(arguments, split, strict=True)
    ]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point. Exits with one of `ExitCode`."""
    name_user()
    spin_briefly()
    # Also where a shell that started this in the background had Ctrl-C ignored: whoever sends it means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what `ray job stop` sends
    try:
        given = at_home(sys.argv[1:] if arguments is None else arguments)
        app(rank.spread(given) if given[:1] == ["rank"] else given)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.USER_ERROR)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = error.filename or "a file"
        typer.echo(
            f"error: {where}: cannot be written ({error.strerror}); nothing half-written counts.", err=True
        )
        sys.exit(ExitCode.USER_ERROR)
    sys.exit(ExitCode.SUCCESS)


def job(*words: str, positional: str = "") -> NoReturn:
    """Entry point of the scripts in `jobs/`: these words, then those of the script; `--config FILE` is FILE.

    positional: what the usage line names before `--config`, for a script whose first word completes `words`.
    """
    given = [word.removeprefix("--config=") for word in sys.argv[1:] if word != "--config"]
    if not given or {"-h", "--help"} & set(given):
        script = command("python", Path(sys.argv[0]))
        typer.echo(f"As a job: {script} {positional}--config FILE.yaml [OPTIONS], with the options of:\n")
        main([words[0], "--help"])
    main([*words, *given])
