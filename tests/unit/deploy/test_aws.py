"""`ray up cluster.yaml` against a simulated AWS: what Ray itself prepares and launches from the file."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())
IMAGE = {
    "ami_id": "ami-00000000000000000",
    "name": "any",
    "description": "any",
    "owner_id": "099720109477",
    "image_location": "amazon/any",
    "state": "available",
    "public": True,
    "architecture": "x86_64",
    "image_type": "machine",
    "platform": None,
    "root_device_name": "/dev/sda1",
    "root_device_type": "ebs",
    "sriov": "simple",
    "virtualization_type": "hvm",
    "hypervisor": "xen",
}
ACCOUNT = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_SESSION_TOKEN": "testing"}


def launch(provider: Any, config: dict[str, Any], kind: str, **changed: Any) -> Any:
    """The one instance that Ray's node provider makes of a node type."""
    tags = {
        "ray-node-type": "head" if kind == config["head_node_type"] else "worker",
        "ray-user-node-type": kind,
        "ray-cluster-name": config["cluster_name"],
        "ray-launch-config": "x",
        "ray-node-name": kind,
    }
    node = copy.deepcopy(config["available_node_types"][kind]["node_config"]) | changed
    (made,) = provider.create_node(node, tags, 1).values()
    return made


def test_ray_launches_the_head_and_a_worker_from_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import boto3
    from botocore.exceptions import ParamValidationError
    from moto import mock_aws
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler._private.util import prepare_config

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key pair that it makes there
    monkeypatch.setenv("MOTO_AMIS_PATH", str(tmp_path / "images.json"))  # one image in place of hundreds
    (tmp_path / "images.json").write_text(json.dumps([IMAGE]))
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    region = CONFIG["provider"]["region"]
    with mock_aws():
        ec2 = boto3.client("ec2", region)
        role = boto3.client("iam", region).create_instance_profile(InstanceProfileName="sftlab")
        config = copy.deepcopy(CONFIG)
        for node in config["available_node_types"].values():
            assert node["node_config"]["ImageId"] == IMAGE["ami_id"]  # to be filled in
        # Without it Ray makes a role, and moto would have to load all of Amazon's policies.
        head = config["available_node_types"][config["head_node_type"]]["node_config"]
        head["IamInstanceProfile"] = {"Arn": role["InstanceProfile"]["Arn"]}
        config = bootstrap_aws(prepare_config(config))
        provider = _get_node_provider(config["provider"], config["cluster_name"])
        for kind, node in CONFIG["available_node_types"].items():
            made = launch(provider, config, kind)
            assert made.instance_type == node["node_config"]["InstanceType"]
            assert made.metadata_options["HttpTokens"] == "required"
            (disk,) = list(made.volumes.all())
            assert (disk.size, disk.encrypted) == (200, True)
        with pytest.raises(ParamValidationError, match="HttpToken"):
            launch(provider, config, "gpu", MetadataOptions={"HttpToken": "required"})
        open_ports = {
            rule.get("FromPort")
            for group in ec2.describe_security_groups()["SecurityGroups"]
            for rule in group["IpPermissions"]
            if any(entry["CidrIp"] == "0.0.0.0/0" for entry in rule["IpRanges"])
        }
    assert open_ports == {22}  # neither Ray's ports nor the dashboard


def test_lines_to_be_filled_in_are_ones_that_ray_and_a_shell_read() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (ROOT / "cluster.yaml").read_text()
    filled = yaml.safe_load(
        re.sub(r"(?m)^( +)# (SecurityGroupIds|IamInstanceProfile|- >-|  )", r"\1\2", text)
    )
    for node in filled["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] == ["sg-00000000000000000"]
    assert "Arn" in filled["available_node_types"]["gpu"]["node_config"]["IamInstanceProfile"]
    validate_config(prepare_config(filled))
    assert any("/mirror" in command for command in filled["setup_commands"])
    for command in filled["setup_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_head_s_autoscaler_finds_the_library_that_it_talks_to_the_cloud_with() -> None:
    lock = (ROOT / "requirements" / "gpu.lock").read_text()
    assert CONFIG["provider"]["type"] == "aws" and "\nboto3==" in lock
