"""Runs a generated program in a process without network, with a file system of its own and limits on what it takes.

The process has namespaces of its own for network, processes and mounts, an empty root with the interpreter's folders
read-only, no capabilities, and limits on time, memory, files and processes. Where this user can become root of the
machine's namespaces, it runs as the user nobody.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sftlab.errors import UserError

TOOLS = ("unshare", "mount", "chroot", "prlimit", "setpriv", "sh")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin")
NOBODY = "65534"
PROCESSES, FILES, OUTPUT = 64, 64, 2**20
SETUP = 10.0  # seconds for the namespaces, besides the program's own
_NAMESPACES = ("--net", "--pid", "--ipc", "--uts", "--mount", "--fork", "--kill-child")
_NO_RIGHTS = ("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")

# $1: an empty folder, which becomes the root; then the folders to show in it, "--", and the command.
_SCRIPT = """
set -e
root=$1; shift
mount --make-rprivate /
mount -t tmpfs -o size=16m,mode=755 tmpfs "$root"
while [ "$1" != -- ]; do
  if [ -L "$1" ]; then ln -s "$(readlink "$1")" "$root$1"
  else mkdir -p "$root$1"; mount --rbind "$1" "$root$1"; mount -o remount,bind,ro "$root$1"; fi
  shift
done
shift
mkdir -m 1777 "$root/tmp"
cd "$root/tmp"
exec chroot "$root" "$@"
"""

# Keeps its way to the parent to itself; a program that ends the process has not passed.
_RUNNER = """
import json, os, signal, sys
given = json.load(sys.stdin)
signal.setitimer(signal.ITIMER_REAL, given["seconds"])
out = os.dup(1)
os.close(0); os.close(1); os.close(2)
os.chdir("/tmp")
try:
    compile(given["answer"], "answer", "exec")
except BaseException:
    os._exit(0)
os.write(out, (given["word"] + " parsed\\n").encode())
try:
    exec(compile(given["answer"] + "\\n" + given["test"], "program", "exec"), {"__name__": "__main__"})
except BaseException:
    os._exit(0)
os.write(out, (given["word"] + " passed\\n").encode())
os._exit(0)
"""


@dataclass(frozen=True)
class Limits:
    """What a program may take: seconds of processor time and of waiting, MiB of memory."""

    seconds: float = 5.0
    memory_mib: int = 1024


@dataclass(frozen=True)
class Ran:
    """Whether the answer is a program, and whether its test ran to the end without an error."""

    parsed: bool
    passed: bool


def run_program(answer: str, test: str, limits: Limits) -> Ran:
    """Run an answer and then its test. Raises UserError where this machine makes no sandbox."""
    return _run(answer, test, limits, as_nobody=runs_as_nobody())


def require_sandbox() -> None:
    """Raises UserError where this machine makes no sandbox."""
    runs_as_nobody()


@cache
def runs_as_nobody() -> bool:
    """Whether programs run as nobody, which needs root; otherwise as root of a user namespace."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not lacking:
        for as_nobody in (True, False) if os.geteuid() == 0 else (False,):
            if _run("x = 1", "assert x == 1", Limits(), as_nobody).passed:
                return as_nobody
    why = f"{', '.join(lacking)} not found" if lacking else "namespaces are not allowed here"
    raise UserError(
        f"generated programs run in a sandbox alone, and none can be made ({why})",
        place="benchmarks.code",
        advice=("run where `unshare --user --map-root-user --net --mount true` works, or leave `code` out."),
    )


def _run(answer: str, test: str, limits: Limits, as_nobody: bool) -> Ran:
    word = secrets.token_hex(16)
    given = json.dumps({"answer": answer, "test": test, "word": word, "seconds": limits.seconds})
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as out:
        with suppress(subprocess.TimeoutExpired):  # what it wrote counts: it may have parsed
            subprocess.run(
                _command(folder, limits, as_nobody),
                input=given.encode(errors="replace"),
                stdout=out,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd="/",
                timeout=limits.seconds + SETUP,
                check=False,
            )
        out.seek(0)
        lines = out.read(OUTPUT).decode(errors="replace").splitlines()
    return Ran(f"{word} parsed" in lines, f"{word} passed" in lines)


def _command(folder: str, limits: Limits, as_nobody: bool) -> list[str]:
    python, base = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    shown = [path for path in SYSTEM if os.path.lexists(path)]
    if not any(Path(base).is_relative_to(path) for path in shown):
        shown.append(base)
    user = [] if as_nobody else ["--user", "--map-root-user"]
    takes = {
        "cpu": math.ceil(limits.seconds),
        "as": limits.memory_mib * 2**20,
        "fsize": OUTPUT,
        "nofile": FILES,
        "core": 0,
        **({"nproc": PROCESSES} if as_nobody else {}),
    }
    becomes = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if as_nobody else []
    return [
        *("unshare", *user, *_NAMESPACES, "sh", "-c", _SCRIPT, "sh", folder, *shown, "--"),
        *("prlimit", *(f"--{name}={value}" for name, value in takes.items())),
        *("setpriv", *becomes, *_NO_RIGHTS),
        *(python, "-I", "-S", "-B", "-c", _RUNNER),
    ]
