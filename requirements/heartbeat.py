"""Run a command and report while it works: python heartbeat.py SECONDS COMMAND [ARGUMENT...]

After every SECONDS without an end, one line shows the elapsed time and the newest line of the command's output.
Errors (stderr) pass through as they come. When the command fails, the end of its output is printed, and its exit
status is kept. `make setup` runs pip through this program, before any package is installed, so that only the standard
library is used.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import deque
from typing import IO

LINES_AFTER_FAILURE = 20
WIDTH = 100


def collect(output: IO[str], lines: deque[str]) -> None:
    lines.extend(line.rstrip() for line in output if line.strip())


def run(seconds: float, command: list[str]) -> int:
    """The command's exit status, or 128 + the number of the signal that ended it, as a shell gives it."""
    started = time.monotonic()
    lines: deque[str] = deque(maxlen=LINES_AFTER_FAILURE)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    assert process.stdout is not None
    # Ctrl-C reaches the whole process group; a termination reaches only this process, which passes it on.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    reader = threading.Thread(target=collect, args=(process.stdout, lines), daemon=True)
    reader.start()
    while True:
        try:
            status = process.wait(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            newest = lines[-1].strip() if lines else "started"
            shown = newest if len(newest) <= WIDTH else newest[:WIDTH] + "..."
            print(f"  {time.monotonic() - started:.0f} s: {shown}", flush=True)
    if status:
        reader.join(timeout=5)  # seconds; a process that the command left behind may keep the pipe open
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))
