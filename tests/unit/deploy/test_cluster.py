"""cluster.yaml is what Ray's own schema asks for, and the shipped GPU runtimes fit on it."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from sftlab.studies.load import load_runtime

ROOT = Path(__file__).parents[3]
FILE = ROOT / "cluster.yaml"
CONFIG = yaml.safe_load(FILE.read_text())
RUNTIMES = sorted((ROOT / "jobs" / "configs" / "runtimes").glob("*h100*.yaml"))


def test_cluster_yaml_passes_ray_s_validation_and_a_misspelt_key_does_not() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(FILE.read_text()))
    validate_config(config)
    with pytest.raises(ValidationError, match="max_wrokers"):
        validate_config(config | {"max_wrokers": 3})


@pytest.mark.parametrize("path", RUNTIMES, ids=lambda path: path.stem)
def test_every_shipped_gpu_runtime_fits_on_the_cluster(path: Path) -> None:
    config, runtime = yaml.safe_load(FILE.read_text()), load_runtime(path)
    node = config["available_node_types"]["gpu"]
    nodes = min(node["max_workers"], config["max_workers"])
    engine, training = runtime.engine, runtime.training
    for count, gpus, cpus in (
        (engine.engines, engine.gpus_per_engine, engine.cpus_per_engine),
        (training.workers, training.gpus_per_worker, training.cpus_per_worker),
    ):
        a_node = min(node["resources"]["GPU"] // gpus, node["resources"]["CPU"] // cpus)
        assert count <= nodes * a_node  # neither an engine nor a worker is spread over nodes
    nodes_meant = {"8x": 1, "32x": 4}[path.stem.partition("-")[0]]
    asked = sum(bundle["GPU"] for bundle in runtime.most_bundles)
    if path.stem.endswith("-sweep"):  # engines and workers at the same time
        asked = engine.engines * engine.gpus_per_engine + training.workers * training.gpus_per_worker
    assert asked == nodes_meant * node["resources"]["GPU"]
    assert Path(runtime.store).is_absolute() and runtime.gpu_wait_minutes > 0


def test_every_node_has_the_token_that_ray_asks_for() -> None:
    config = yaml.safe_load(FILE.read_text())
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in config[key]:
            assert "RAY_AUTH_MODE=token" in command or command.endswith("ray stop")
        assert any("ray start" in command for command in config[key])
    assert any("chmod 600" in command and "auth_token" in command for command in config["setup_commands"])


def test_no_node_lacks_a_file_of_the_package() -> None:
    """rsync's patterns that begin with a slash match at the top of the checkout alone."""
    top = {path.name for path in (ROOT / "platform").iterdir()} | {
        "platform",
        "jobs",
        "requirements",
        "deploy",
    }
    patterns = CONFIG["rsync_exclude"]
    assert {"/.git", "/.venv", "/data", "/runs", "/models"} <= set(patterns)
    for pattern in patterns:
        assert pattern.startswith("/") and pattern.strip("/") not in top


def test_files_with_keys_stay_here_but_for_the_two_that_a_node_needs() -> None:
    """rsync applies rsync_exclude to single files too, so it would keep back the token and the head's key."""
    from ray.autoscaler._private.command_runner import SSHCommandRunner

    given = {name: CONFIG[name] for name in ("rsync_exclude", "rsync_filter")}
    words = SSHCommandRunner._create_rsync_filter_args(None, given)
    assert words[-2:] == ["--filter", "dir-merge,- .gitignore"]
    kept_back = (ROOT / ".gitignore").read_text().splitlines()
    assert {"*.env", ".env*", "*.pem", "*.key", "auth_token"} <= set(kept_back)
    for needed in ("auth_token", "ray-autoscaler_us-east-1.pem"):
        assert not any(fnmatch(needed, pattern.strip("/")) for pattern in CONFIG["rsync_exclude"])


def test_every_node_installs_the_locked_gpu_profile_and_is_looked_at_before_it_joins() -> None:
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(yaml.safe_load(FILE.read_text()))
    for node, gpus in (("head", 0), ("gpu", config["available_node_types"]["gpu"]["resources"]["GPU"])):
        # A node type's own list would replace the common ones, and nothing would be installed.
        assert "worker_setup_commands" not in config["available_node_types"][node]
        commands = config["head_setup_commands" if node == "head" else "worker_setup_commands"]
        setup = next(i for i, command in enumerate(commands) if "make setup PROFILE=gpu" in command)
        check = next(
            i for i, command in enumerate(commands) if "deploy/check_node.py --profile gpu" in command
        )
        assert setup < check == len(commands) - 1
        assert f"--gpus {gpus}" in commands[check] or gpus == 0
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup", "PROFILE=gpu"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert "requirements/gpu.lock" in done.stdout and "cpu.lock" not in done.stdout


def test_the_head_has_no_gpu_and_shows_its_dashboard_to_itself_alone() -> None:
    types = CONFIG["available_node_types"]
    assert types[CONFIG["head_node_type"]]["resources"]["GPU"] == 0
    assert types["gpu"]["min_workers"] == 0 and types["gpu"]["resources"]["GPU"] > 0
    start = next(command for command in CONFIG["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("key", [key for key in CONFIG if key.endswith("_commands")])
def test_every_command_is_one_that_a_shell_reads(key: str) -> None:
    for command in CONFIG[key]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        assert "\n" not in command  # the autoscaler runs each as one line
        for path in re.findall(r"deploy/\S+\.py", command):
            assert (ROOT / path).is_file()
