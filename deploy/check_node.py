"""Says what a machine lacks to be a node of the cluster; exits with 1 where that is anything.

The last setup command of cluster.yaml: a node that fails it does not join. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 13))  # as pyproject.toml asks for
TOKEN = Path.home() / ".ray" / "auth_token"


def python_problem(python: tuple[int, int]) -> str | None:
    """Why this Python (major, minor) cannot run the project, or None."""
    if PYTHONS[0] <= python <= PYTHONS[1]:
        return None
    return f"Python {python[0]}.{python[1]}: 3.11 to 3.13 is needed; choose another machine image"


def package_problems(lock: Path) -> Iterator[str]:
    """Packages that are missing or of another version than the lock file names."""
    for line in lock.read_text(encoding="utf-8").splitlines():
        name, equals, rest = line.partition("==")
        if not equals or name.lstrip().startswith(("#", "-")):
            continue
        wanted = rest.split()[0].rstrip("\\")
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            yield f"{name}: {found}, {lock.name} names {wanted}; run make setup with its PROFILE"


def gpu_problem(wanted: int, listing: list[str]) -> str | None:
    """Why the GPUs are not those wanted, or None. `listing` is a command that prints a line a GPU."""
    if wanted == 0:
        return None
    try:
        done = subprocess.run(listing, capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        return f"{listing[0]}: {error.strerror}; choose a machine image with NVIDIA's driver"
    found = len(done.stdout.splitlines()) if done.returncode == 0 else 0
    return (
        None
        if found >= wanted
        else f"{found} of {wanted} GPUs are there: {done.stdout}{done.stderr}".rstrip()
    )


def shared_problem(folder: Path) -> str | None:
    """Why the folder cannot hold what all nodes share, or None: it must be a mount, and take a file."""
    if not any(path.is_mount() for path in (folder, *folder.parents) if path != Path(path.anchor)):
        return f"{folder}: is on this machine's own disk; mount what all nodes share there"
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"sftlab")
            file.flush()
    except OSError as error:
        return f"{folder}: cannot be written ({error.strerror}); run sudo chown $USER {folder}"
    return None


def token_problem(file: Path) -> str | None:
    """Why Ray would not find its token, or others would, or None."""
    try:
        empty, mode = not file.read_text(encoding="utf-8").strip(), file.stat().st_mode
    except OSError as error:
        return (
            f"{file}: {error.strerror}; make Ray's token by `ray get-auth-token --generate` and copy it there"
        )
    if empty:
        return f"{file}: is empty; make Ray's token by `ray get-auth-token --generate`"
    return f"{file}: others may read it; run chmod 600 on it" if mode & 0o077 else None


def problems(profile: str, shared: Path | None, gpus: int) -> list[str]:
    """Everything that this machine lacks, a line each."""
    found = [
        python_problem(sys.version_info[:2]),
        *package_problems(ROOT / "requirements" / f"{profile}.lock"),
        gpu_problem(gpus, ["nvidia-smi", "-L"]),
        None if shared is None else shared_problem(shared),
        token_problem(TOKEN),
    ]
    return [problem for problem in found if problem is not None]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--profile", choices=("cpu", "gpu"), required=True, help="lock file that is installed"
    )
    parser.add_argument("--shared", type=Path, help="folder that all nodes share")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs that the node offers")
    given = parser.parse_args()
    found = problems(given.profile, given.shared, given.gpus)
    for problem in found:
        print(f"this node cannot join: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
