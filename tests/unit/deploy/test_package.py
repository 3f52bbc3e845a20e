"""What `ray job submit` sends to the cluster, made by Ray's own packaging code."""

from __future__ import annotations

import logging
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
BOUND = 4 * 2**20  # bytes of the package; Ray refuses more than 512 MiB and warns long before
RUNTIME_ENV = yaml.safe_load((ROOT / "jobs" / "runtime_env.yaml").read_text())
QUIET = logging.getLogger("tests.packaging")


def package(folder: Path, target: Path, **options: Any) -> set[str]:
    """Names in the package that Ray makes of a folder."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), target, include_gitignore=True, logger=QUIET, **options)
    return {name for name in zipfile.ZipFile(target).namelist() if not name.endswith("/")}


def test_the_working_folder_is_small_and_holds_all_that_a_job_reads(tmp_path: Path) -> None:
    names = package(ROOT, tmp_path / "package.zip", excludes=RUNTIME_ENV["excludes"])
    assert (tmp_path / "package.zip").stat().st_size < BOUND
    wanted = [*(ROOT / "jobs").rglob("*.py"), *(ROOT / "jobs").rglob("*.yaml")]
    wanted += [p for p in (ROOT / "platform" / "sftlab").rglob("*.py") if "__pycache__" not in p.parts]
    wanted += [p for p in (ROOT / "platform" / "sftlab").glob("*/data/*") if p.is_file()]
    assert len(wanted) > 100
    assert {str(p.relative_to(ROOT)) for p in wanted} <= names
    for folder in (".git", ".venv", "runs", "data", "models", "docs", "tests", "benchmarks", "deploy"):
        assert not any(name.startswith(f"{folder}/") for name in names)
    assert not any("__pycache__" in name or name.endswith((".db", "auth_token")) for name in names)


def test_the_package_goes_with_the_job_where_the_runtime_environment_says_so(tmp_path: Path) -> None:
    (module,) = RUNTIME_ENV["py_modules"]
    names = package(
        ROOT / module, tmp_path / "module.zip", include_parent_dir=True, excludes=RUNTIME_ENV["excludes"]
    )
    assert (tmp_path / "module.zip").stat().st_size < BOUND
    assert {"sftlab/__init__.py", "sftlab/cli/app.py", "sftlab/execution/run.py"} <= names
    assert not any("cache" in Path(name).parent.name for name in names)


SECRET = (
    "object-storage.env",
    ".env",
    ".env.prod",
    "jobs/node.pem",
    "deep/er/cluster.key",
    ".ray/auth_token",
)


def plant(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("AWS_SECRET_ACCESS_KEY=x")


def test_files_with_keys_stay_with_who_submits_and_out_of_git(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    plant(checkout, *SECRET, "platform/sftlab/x.env", "platform/sftlab/cli/app.py", "jobs/run_study.py")
    for name in (".gitignore", ".rayignore"):
        (checkout / name).write_text((ROOT / name).read_text())
    names = package(checkout, tmp_path / "package.zip")
    assert names == {"jobs/run_study.py", "platform/sftlab/cli/app.py", ".gitignore", ".rayignore"}
    options = {"include_parent_dir": True, "excludes": RUNTIME_ENV["excludes"]}
    plant(checkout / "platform" / "sftlab", *SECRET)  # which has no ignore file of its own
    names = package(checkout / "platform" / "sftlab", tmp_path / "module.zip", **options)
    assert names == {"sftlab/cli/app.py"}
    (checkout / ".rayignore").write_text("")  # git alone
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    told = ["git", "-C", str(checkout), "ls-files", "--others", "--exclude-standard"]
    found = subprocess.run(told, check=True, capture_output=True, text=True).stdout.split()
    assert set(found) == {"jobs/run_study.py", "platform/sftlab/cli/app.py", ".gitignore", ".rayignore"}


@pytest.mark.parametrize(
    "ignored", ["runs/store/tuned/model.safetensors", "data/entity_questions.zip", ".git/x"]
)
def test_results_and_data_of_a_checkout_stay_where_they_are(ignored: str, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in (".gitignore", ".rayignore"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text((ROOT / name).read_text())
    for name in (ignored, "platform/sftlab/facts/data/topics.yaml"):
        (checkout / name).parent.mkdir(parents=True)
        (checkout / name).write_text("x")
    names = package(checkout, tmp_path / "package.zip")
    assert ignored not in names and "platform/sftlab/facts/data/topics.yaml" in names
