"""Options, progress, runtime and store that the commands share."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sftlab.errors import ExitCode, UserError
from sftlab.shell import command

if TYPE_CHECKING:
    from sftlab.execution.progress import Bar, Progress
    from sftlab.execution.runtime import Runtime
    from sftlab.store.artifact import Store


RuntimeFile = Annotated[
    Path | None, typer.Option("--runtime", help="Runtime file (YAML): workers, GPUs, store, tracking.")
]
# Text and not a Path, which would merge the two slashes of an address into one.
StoreFolder = Annotated[
    str | None, typer.Option("--store", help="Folder or address of the results (runtime.store).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field; runtime fields as runtime.KEY=VALUE."),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON; progress goes to stderr.")]


@dataclass(frozen=True)
class Shown:
    """The result of a command: for a program (JSON values, with keys of docs/command-line.md) and for a person.

    text: empty where the command prints by itself while it works.
    """

    data: Mapping[str, Any]
    text: str = ""


def show(as_json: bool, work: Callable[[], Shown]) -> None:
    """Do the work of a command and print its result: as JSON, with nothing else on stdout, or as text."""
    with interruptible():
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            found = work()
        if as_json:
            typer.echo(json.dumps(found.data, indent=1, ensure_ascii=False))
        elif found.text:
            typer.echo(found.text)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C: leave by way of every `finally`, say how to go on, exit with its code."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted. What is finished is kept; run the same command to go on.", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def probe_tracking(runtime: Runtime) -> None:
    """Raises UserError where the server that a run logs to at its end does not answer: before anything is computed."""
    from sftlab.tracking.settings import probe

    if runtime.track and runtime.tracking.is_server and runtime.tracking.address:
        probe(runtime.tracking.address)


@contextmanager
def with_advice_to_log_later(what: str, file: Path) -> Iterator[None]:
    """Wraps logging, which comes last: if it fails, the message says that the results are kept and how to log them."""
    try:
        yield
    except UserError as error:
        logs = command("sftlab", "track", file)
        finished = f"The {what} is finished all the same. `{logs}` with the same options logs it."
        raise UserError(
            error.problem,
            place=error.place,
            value=error.value,
            expected=error.expected,
            advice="\n".join(text for text in (error.advice, finished) if text),
        ) from error


Place = Path | str | None  # of a store: a folder, an address, or what the runtime file says


def shown_progress() -> Progress:
    from sftlab.execution.progress import choose_progress

    return choose_progress(sys.stderr.isatty(), os.environ.get("TERM", ""))


@contextmanager
def bar_once_begun(title: str) -> Iterator[Callable[..., None]]:
    """A bar that appears at its first update: errors in the arguments are reported before anything begins."""
    with ExitStack() as shown:
        bars: list[Bar] = []

        def update(done: int, total: int, note: str = "") -> None:
            if not bars:
                bars.append(shown.enter_context(shown_progress().bar(title)))
            bars[0].update(done, total, note)

        yield update


@contextmanager
def fetching() -> Iterator[Callable[[int, int], None]]:
    """A bar of the bytes that are fetched from a hub; nothing is shown where none are."""
    from sftlab.files import bytes_text

    with bar_once_begun("fetching") as update:
        yield lambda done, total: update(done, total, f"{bytes_text(done)} of {bytes_text(total)}")


def local_folder(path: Path, kind: Literal["model", "dataset"] = "model") -> Path:
    """A path of an option; of an id of a hub, where no such path is, what is fetched from there."""
    from sftlab.store.hub import fetch, is_on_hub

    if not is_on_hub(str(path)):
        return path
    with fetching() as report:
        return fetch(str(path), kind, report=report) or path


def runtime_of(file: Path | None, store: Place, overrides: Sequence[str]) -> Runtime:
    """The runtime of a command; `--store` is the same as `--set runtime.store`, and comes last."""
    from sftlab.studies.load import RUNTIME_PREFIX, load_runtime

    named = [] if store is None else [f"{RUNTIME_PREFIX}store={json.dumps(str(store))}"]
    return load_runtime(file, [*overrides, *named])


def open_store(runtime: Runtime) -> Store:
    """The store of a runtime. Raises UserError where it cannot be one, or does not answer."""
    from sftlab.store.artifact import Store
    from sftlab.store.mirror import HASH_LIMIT

    limit = runtime.hash_up_to_gib
    os.environ[HASH_LIMIT] = (
        "inf" if limit is None else f"{limit:g}"
    )  # for the processes that this one starts, too
    return Store(runtime.store, None if runtime.mirror is None else Path(runtime.mirror))


def recommended_json(best: Path) -> dict[str, Any]:
    """The recommended model, from the committed folder of the stage `best`: its folder, and why it was chosen."""
    from sftlab.config.documents import parse_json

    choice = best / "choice.json"
    found = parse_json(choice.read_bytes(), str(choice), "delete its folder and run the study again.")
    return {"model": str(next(best.glob("restored-*"))), "recommended": found}
