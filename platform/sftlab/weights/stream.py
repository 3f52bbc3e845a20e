"""Walking through all weights in small stretches with several threads, in constant memory."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Lock
from typing import TypeVar

# 1 MB in float32: the working set of a thread stays in its L2 cache.
CHUNK = 1 << 18
_MOST_THREADS = 16

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Chunk:
    """The elements start..stop of the flattened parameter `name`."""

    name: str
    start: int
    stop: int


@dataclass
class Progress:
    """Counts bytes done over all passes and calls `report(done, total)`."""

    total: int
    report: Report | None = None
    done: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, amount: int) -> None:
        """Callable from any thread; does not report."""
        with self._lock:
            self.done += amount

    def show(self) -> None:
        if self.report is not None:
            self.report(self.done, self.total)


class Worker(ABC):
    """Work on chunks by one thread, which also makes it; with buffers and tallies of its own."""

    @abstractmethod
    def __call__(self, chunk: Chunk) -> int:
        """Works on one chunk and returns the bytes read and written."""

    def finish(self) -> None:
        """Called by the worker's thread when no chunk is left."""
        return


AnyWorker = TypeVar("AnyWorker", bound=Worker)
Item = TypeVar("Item")
Result = TypeVar("Result")


def chunks(sizes: Mapping[str, int]) -> Iterator[Chunk]:
    """Stretches of at most CHUNK elements of all parameters, in the order of the mapping."""
    for name, size in sizes.items():
        for start in range(0, size, CHUNK):
            yield Chunk(name, start, min(start + CHUNK, size))


def walk(
    work: Iterable[Chunk], make: Callable[[], AnyWorker], progress: Progress, threads: int | None = None
) -> list[AnyWorker]:
    """Lets threads, one worker each, take the chunks as they come; returns the workers with their tallies.

    Which worker gets which chunk is left to chance, so tallies must not depend on it: integer sums do not.
    The first error of a worker stops the others and is raised.
    """
    threads = thread_count() if threads is None else threads
    source, lock, stop = iter(work), Lock(), Event()

    def run() -> AnyWorker:
        worker = make()
        while not stop.is_set():
            with lock:
                chunk = next(source, None)
            if chunk is None:
                worker.finish()
                break
            progress.add(worker(chunk))
        return worker

    with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
        try:
            return _watch([pool.submit(run) for _ in range(threads)], progress)
        finally:
            stop.set()


def in_order(
    work: Iterable[Item], call: Callable[[Item], Result], threads: int | None = None
) -> Iterator[Result]:
    """The results of `call` in the order of `work`, computed by threads that are at most two items each ahead."""
    threads = thread_count() if threads is None else threads
    source = iter(work)
    with ThreadPoolExecutor(threads, thread_name_prefix="weights") as pool:
        waiting = deque(pool.submit(call, item) for item in islice(source, 2 * threads))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(call, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def thread_count() -> int:
    """As many threads as this process may use processors; OMP_NUM_THREADS, which Ray sets, lowers it."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    processors = len(os.sched_getaffinity(0))
    return max(1, min(int(allowed) if allowed.isdigit() else processors, processors, _MOST_THREADS))


def _watch(futures: list[Future[AnyWorker]], progress: Progress) -> list[AnyWorker]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.1)
        progress.show()
        for future in done:
            future.result()
    return [future.result() for future in futures]
