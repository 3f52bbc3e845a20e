"""An engine that hangs is ended from outside; one that works is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil

from sftlab.inference.watchdog import BEGIN, BREATH, END, START, Listener, Watchdog

HANGS = """
import time
from sftlab.inference.watchdog import Watchdog
dog = Watchdog(1.5)
with dog:
    time.sleep(0.2)
print("ready", flush=True)
{then}
print("done", flush=True)
"""
WORKS = "for _ in range(8):\n    with dog:\n        time.sleep(0.3)"  # longer than the limit, in short calls
CALL = "with dog:\n    time.sleep(60)"
IDLE = "time.sleep(60)"


def start(*thens: str) -> list[subprocess.Popen[str]]:
    """Processes that have had one call each, all of them started together."""
    processes = [
        subprocess.Popen([sys.executable, "-c", HANGS.format(then=then)], stdout=subprocess.PIPE, text=True)
        for then in thens
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return processes


def test_a_call_that_takes_too_long_ends_the_process_and_short_ones_do_not() -> None:
    works, hangs, stopped = start(WORKS, CALL, IDLE)
    stopped.send_signal(signal.SIGSTOP)  # idle, but it breathes no more
    assert works.communicate(timeout=60)[0] == "done\n" and works.returncode == 0
    assert hangs.wait(60) == stopped.wait(60) == -signal.SIGKILL


def test_what_the_process_started_ends_with_it() -> None:
    (hangs,) = start('import subprocess\nprint(subprocess.Popen(["sleep", "600"]).pid, flush=True)\n' + CALL)
    assert hangs.stdout is not None
    child = int(hangs.stdout.readline())
    assert hangs.wait(60) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(child)


def test_the_listener_counts_the_call_or_the_silence() -> None:
    listener = Listener(10, now=0)
    listener.hear(BREATH, now=9)
    assert not listener.overdue(18) and listener.overdue(19.1)
    listener.hear(BEGIN, now=18)
    listener.hear(BREATH, now=28)
    assert not listener.overdue(28) and listener.overdue(28.1)  # it breathes, but the call goes on
    listener.hear(END + BREATH, now=28.2)
    assert not listener.overdue(38)
    listener.hear(BEGIN + END + BEGIN, now=38)
    assert listener.overdue(48.1)
    listener.hear(END + START, now=50)
    assert not listener.overdue(89) and listener.overdue(90.1)  # the start of an engine takes longer


def test_the_watcher_ends_with_the_process_it_watches() -> None:
    (process,) = start(IDLE)
    (watcher,) = children(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(watcher) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(watcher)


def test_without_a_limit_nothing_is_watched() -> None:
    before = children(os.getpid())
    with Watchdog(None):
        assert children(os.getpid()) == before


def lives(pid: int) -> bool:
    """Not so a zombie, which a container's first process may leave."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]
