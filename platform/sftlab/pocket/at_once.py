"""Several bases of the pocket survey pre-trained at once, each in a process of its own.

A process works for one caller and ends with it: it reports every step through a pipe, which breaks when the caller
dies. A base has the same bits in whichever process, and with however many others, it is trained.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.pocket.spec import FamilySpec, PocketRuntime

END_SECONDS = 10.0

Report = Callable[[str, int, int, float], None]
"""Takes the name of a base, its steps done, its steps in all, and the loss in nats per token."""


@dataclass(frozen=True)
class BaseTask:
    """One base to pre-train.

    Attributes:
        world: seed and number of people of the world that it is pre-trained on.
        folder: takes the model.
        start: folder of the base that it continues.
        after: the name of that base if it is to be pre-trained too.
    """

    spec: FamilySpec
    world: tuple[int, int]
    folder: Path
    runtime: PocketRuntime
    start: Path | None = None
    after: str | None = None

    @property
    def work(self) -> float:
        """What it costs, for comparison with others: length of the text times parameters, about."""
        shape = self.spec.shape
        layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate
        return self.spec.scale * (shape.layers * layer + shape.vocabulary * shape.hidden)


def order_of(tasks: Mapping[str, BaseTask]) -> list[str]:
    """Names in the order in which they are begun: first those that the longest work depends on."""

    def chain(name: str) -> float:
        following = (chain(other) for other, task in tasks.items() if task.after == name)
        return tasks[name].work + max(following, default=0.0)

    return sorted(tasks, key=lambda name: -chain(name))


def pretrain_bases(
    tasks: Mapping[str, BaseTask], processes: int, report: Report, finished: Callable[[str], None]
) -> None:
    """Pre-train bases by name, so many at once, each after the one that it continues.

    `report` and `finished` are called in this thread. Raises the error of the base that failed first, and UserError
    where a process ends; the others end too, and go on from their checkpoints in the next call.
    """
    processes = min(processes, len(tasks))
    if processes < 2:
        for name in order_of(tasks):
            pretrain_base(tasks[name], _with_name(report, name))
            finished(name)
        return
    open_names, done = order_of(tasks), set[str]()
    idle = [_Process() for _ in range(processes)]
    busy: dict[Connection, tuple[_Process, str]] = {}
    try:
        while open_names or busy:
            ready = [name for name in open_names if tasks[name].after in (None, *done)]
            for name in ready[: len(idle)]:
                process = idle.pop()
                open_names.remove(name)
                busy[process.connection] = process, name
                process.connection.send(tasks[name])
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                process, name = busy[connection]
                message = process.receive(name)
                if message is not None:
                    report(name, *message)
                    continue
                del busy[connection]
                idle.append(process)
                done.add(name)
                finished(name)
    finally:
        for process in [*idle, *(process for process, _ in busy.values())]:
            process.end()


def _with_name(report: Report, name: str) -> Callable[[int, int, float], None]:
    return lambda done, total, loss: report(name, done, total, loss)


def pretrain_base(task: BaseTask, progress: Callable[[int, int, float], None]) -> None:
    """Pre-train one base in this process."""
    from sftlab.pocket.families import family_documents
    from sftlab.pocket.pretrain import pretrain_on
    from sftlab.pocket.skills import skill_world

    documents = family_documents(skill_world(*task.world), task.spec)
    runtime = task.runtime.model_copy(update={"threads": task.runtime.base_threads})
    pretrain_on(documents, task.spec, task.folder, runtime, progress, task.start)


class _Process:
    """A process that pre-trains one base after another."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the caller's
            )

    def receive(self, name: str) -> tuple[int, int, float] | None:
        """Steps done, steps in all and loss of the base that is trained; None when it is finished."""
        try:
            message: Any = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            code = self._process.wait()
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise UserError(
                f"the process that pre-trained {name} ended ({reason})",
                value=name,
                advice="run again to continue from the last checkpoint; if the machine was out of memory, lower "
                "runtime.pocket.bases.",
            ) from error
        if isinstance(message, Exception):
            raise message
        steps: tuple[int, int, float] | None = message
        return steps

    def end(self) -> None:
        self.connection.close()
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(connection: Connection) -> None:
    """Pre-train what the caller sends, until it closes the pipe or dies."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the caller's bar is on the same terminal
    try:
        while True:
            task = connection.recv()
            try:
                pretrain_base(task, lambda *step: connection.send(step))
            except ConnectionError:
                return
            except Exception as error:  # raised by the caller
                connection.send(error)
            else:
                connection.send(None)
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    from sftlab.pocket import at_once  # the tasks of the caller are of this module, and not of __main__

    at_once.serve(Connection(int(sys.argv[1])))
