"""What a training worker's process finds in its environment, whatever other tools left there."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.cluster.environment import MPI_PREFIXES, without_mpi
from sftlab.training.deepspeed import prepare_process
from sftlab.training.spec import TrainingRuntime

LEFT = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PMI_SIZE": "8",
    "PMI_RANK": "3",
    "PMIX_NAMESPACE": "x",
    "MV2_COMM_WORLD_RANK": "3",
}
KEPT = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MPICH_HOME": "/opt/mpich", "NOT_PMI_RANK": "1"}


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_worker_sees_no_process_of_mpi_and_no_accelerator_that_it_does_not_use(
    gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("DeepSpeed")
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    for name, value in (LEFT | KEPT | {"DS_ACCELERATOR": "cuda", "HF_HUB_OFFLINE": "0"}).items():
        monkeypatch.setenv(name, value)
    prepare_process(TrainingRuntime(gpus_per_worker=gpus))
    assert not set(LEFT) & set(os.environ)
    assert {name: os.environ[name] for name in KEPT} == KEPT
    assert os.environ["DS_ACCELERATOR"] == ("cuda" if gpus else "cpu")
    assert os.environ["HF_HUB_OFFLINE"] == "0" and logger.level == logging.WARNING
    monkeypatch.delenv("HF_HUB_OFFLINE")
    prepare_process(TrainingRuntime(gpus_per_worker=gpus))  # once more, in the same process
    assert os.environ["HF_HUB_OFFLINE"] == "1"


NAMES = st.builds(str.__add__, st.sampled_from([*MPI_PREFIXES, "", "X", "PM"]), st.text("ABI_PM", max_size=6))


@given(st.dictionaries(NAMES, st.just("1")))
def test_what_is_removed_is_what_begins_as_variables_of_mpi_do(given: dict[str, str]) -> None:
    removed = without_mpi(given)
    assert len(set(removed)) == len(removed)
    for name in given:
        begins = any(name[: len(prefix)] == prefix for prefix in ("OMPI_", "PMI_", "PMIX_", "MV2_COMM_"))
        assert (name in removed) is begins
