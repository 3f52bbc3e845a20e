"""Trials are logged to MLflow while a sweep runs, by a thread of the driver, which holds no engine and no GPU.

What is logged comes from the store, as after the sweep; so the logging at its end finds these trials there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic

from sftlab.errors import UserError
from sftlab.sweeps.trial import T

BATCH_SECONDS = 15.0  # a batch costs a connection and a search for what is there already
RETRY_SECONDS = 30.0  # as long is a server left alone that did not answer
TRIALS_A_BATCH = 16
STOP_SECONDS = 60.0  # a batch that is under way is waited for so long at most


class LiveTracking(Generic[T]):
    """Hands finished trials to `write`, in batches. While that raises UserError trials wait, and the sweep goes on."""

    def __init__(
        self,
        write: Callable[[Sequence[T]], None],
        say: Callable[[str], None],
        batch_seconds: float = BATCH_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._write, self._say = write, say
        self._batch_seconds, self._retry_seconds = batch_seconds, retry_seconds
        self._added: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep-tracking", daemon=True)
        self.logged = 0

    def add(self, trial: T) -> None:
        """A trial is finished; returns at once."""
        self._added.put(trial)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Log no further batch, and wait for the one under way; what is left belongs to the logging at the end."""
        self._over.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        waiting: list[T] = []
        away = False
        while not self._over.wait(self._retry_seconds if away else self._batch_seconds):
            while not self._added.empty():
                waiting.append(self._added.get())
            try:
                while waiting and not self._over.is_set():
                    self._write(waiting[:TRIALS_A_BATCH])
                    self.logged += len(waiting[:TRIALS_A_BATCH])
                    del waiting[:TRIALS_A_BATCH]
                    if away:
                        self._say("MLflow is back; the trials that waited are logged")
                        away = False
            except UserError as error:
                if not away:
                    first = str(UserError(error.problem, place=error.place)).splitlines()[0]
                    self._say(f"{first} The sweep goes on; its trials are logged when MLflow answers again.")
                away = True
            except Exception as error:  # the logging at the end meets it again, and reports all of it
                self._say(f"trials are logged only at the end of the sweep ({type(error).__name__}: {error})")
                return
