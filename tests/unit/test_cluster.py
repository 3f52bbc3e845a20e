"""cluster.yaml is what Ray's own schema asks for, and the shipped GPU runtimes fit on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sftlab.study.cluster import gpu_bundles
from sftlab.study.config import load_runtime

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster.yaml"
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
    assert sum(bundle["GPU"] for bundle in gpu_bundles(runtime)) == nodes_meant * node["resources"]["GPU"]
    assert Path(runtime.store).is_absolute() and runtime.gpu_wait_minutes > 0


def test_every_node_has_the_token_that_ray_asks_for() -> None:
    config = yaml.safe_load(FILE.read_text())
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [command for command in config[key] if "ray start" in command]
        assert "RAY_AUTH_MODE=token" in start


def test_no_node_and_no_job_lacks_a_file_of_the_package() -> None:
    """Patterns of rsync and of .rayignore that begin with a slash match at the top of the checkout alone."""
    top = {path.name for path in (ROOT / "platform").iterdir()} | {"platform", "jobs", "requirements"}
    patterns = yaml.safe_load(FILE.read_text())["rsync_exclude"] + (ROOT / ".rayignore").read_text().split()
    assert {"/data", "/runs", "/models"} <= set(patterns)
    for pattern in patterns:
        assert pattern.startswith("/") and pattern.strip("/") not in top
