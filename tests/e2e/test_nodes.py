"""A study on a Ray cluster of three nodes with addresses of their own: whole, and with kills at random moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.outcome import compare, totals
from tests.chaos.plan import draw
from tests.chaos.runner import calm, storm, three_nodes
from tests.e2e.conftest import STUDY, Study
from tests.nodes import Nodes

pytestmark = pytest.mark.slow

SEED = 0  # any will do; a failing one can be replayed by `make chaos SEED=... KILLS=3`
KILLS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[Nodes]:
    with three_nodes(folder) as started:
        yield started


@pytest.mark.timeout(600)
def test_a_study_on_three_nodes_has_the_bits_of_one(nodes: Nodes, folder: Path, finished: Study) -> None:
    run = calm(nodes, folder, STUDY, {})
    assert compare(run.store, finished.store) > 50
    where: dict[str, set[str]] = {}
    for line in run.trace.lines:
        where.setdefault(line["stage"], set()).add(line["node"])
    workers = {f"{nodes.mark}-1", f"{nodes.mark}-2"}
    assert where["tuned"] | where["other ranks"] == workers and not where["tuned"] & where["other ranks"]
    assert (
        where["mastery"] <= workers and where["evaluation"] <= workers
    )  # one may be done before the other starts


@pytest.mark.timeout(900)
def test_kills_at_random_moments_leave_the_same_bits(nodes: Nodes, folder: Path, finished: Study) -> None:
    blows = draw(SEED, KILLS, totals(finished.store))
    run = storm(nodes, blows, folder, "storm", finished.store, STUDY, {})
    assert len(run.marks) == KILLS and not run.left
