"""cluster.yaml is what Ray's own schema asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).parents[2] / "cluster.yaml"


def test_cluster_yaml_passes_ray_s_validation_and_a_misspelt_key_does_not() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(FILE.read_text()))
    validate_config(config)
    with pytest.raises(ValidationError, match="max_wrokers"):
        validate_config(config | {"max_wrokers": 3})
