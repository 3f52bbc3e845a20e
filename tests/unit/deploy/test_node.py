"""deploy/check_node.py finds each thing that a node can lack."""

from __future__ import annotations

import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "check_node.py"
CHECK: dict[str, Any] = runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("python", "fine"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)]
)
def test_a_python_that_the_project_does_not_run_on_is_told(python: tuple[int, int], fine: bool) -> None:
    assert (CHECK["python_problem"](python) is None) is fine


def test_a_missing_and_another_version_of_a_package_is_told(tmp_path: Path) -> None:
    lock = tmp_path / "gpu.lock"
    lock.write_text(
        f"# made by hand\npyarrow=={version('pyarrow')} \\\n    --hash=sha256:00\nray==0.1\nno-such-package==1.0\n"
    )
    ray, missing = CHECK["package_problems"](lock)
    assert "ray" in ray and version("ray") in ray and "0.1" in ray
    assert "no-such-package: not installed" in missing


def test_fewer_gpus_than_the_cluster_file_promises_are_told() -> None:
    one = ["printf", "GPU 0: NVIDIA H100\\n"]
    assert CHECK["gpu_problem"](1, one) is None
    assert "1 of 2 GPUs" in CHECK["gpu_problem"](2, one)
    assert "0 of 1 GPUs" in CHECK["gpu_problem"](1, ["false"])
    assert "driver" in CHECK["gpu_problem"](1, ["no-such-program"])
    assert CHECK["gpu_problem"](0, ["no-such-program"]) is None  # a head has none


def test_a_shared_folder_is_a_mount_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path)
    assert CHECK["shared_problem"](tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert "run sudo chown $USER" in CHECK["shared_problem"](tmp_path / "missing")
    assert "own disk" in CHECK["shared_problem"](tmp_path.parent)


def test_a_token_is_there_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    token = tmp_path / "auth_token"
    assert "get-auth-token" in CHECK["token_problem"](token)
    token.write_text("\n")
    assert "empty" in CHECK["token_problem"](token)
    token.write_text("0123456789abcdef")
    token.chmod(0o644)
    assert "chmod 600" in CHECK["token_problem"](token)
    token.chmod(0o600)
    assert CHECK["token_problem"](token) is None


def test_a_node_that_lacks_something_exits_with_1_and_names_it() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--profile", "cpu", "--gpus", "4096"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "this node cannot join: " in done.stderr
    assert "Traceback" not in done.stderr  # the tests' own packages are locked
