"""A study on a Ray cluster of three nodes with addresses of their own: whole, and with kills at random moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.outcome import compare, totals
from tests.chaos.plan import short
from tests.chaos.story import PLAIN, calm, possible, storm, three_nodes
from tests.e2e.conftest import STUDY, Study
from tests.support.nodes import Nodes

pytestmark = pytest.mark.slow

SEED = 0  # any will do; a failing one is replayed by `make chaos SEED=... KILLS=3 PLAIN=1`
KILLS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[Nodes]:
    with three_nodes(folder) as started:
        yield started


@pytest.mark.rest
@pytest.mark.timeout(1200)
def test_a_study_on_three_nodes_has_the_bits_of_one(nodes: Nodes, folder: Path, finished: Study) -> None:
    run = calm(nodes, folder, STUDY, PLAIN)
    assert compare(run.store, finished.store) > 50
    where: dict[str, set[str]] = {}
    for line in run.trace.lines:
        where.setdefault(line["stage"], set()).add(line["node"])
    workers = {f"{nodes.mark}-1", f"{nodes.mark}-2"}
    assert where["tuned"] | where["other ranks"] == workers and not where["tuned"] & where["other ranks"]
    assert (
        where["mastery"] <= workers and where["evaluation"] <= workers
    )  # one may be done before the other starts


@pytest.mark.rest
@pytest.mark.timeout(1800)
def test_kills_and_faults_leave_the_same_bits(nodes: Nodes, folder: Path, finished: Study) -> None:
    blows = [blow for blow in short(SEED, KILLS, totals(finished.store)) if possible(blow, nodes)]
    run = storm(nodes, blows, folder, "storm", finished.store, STUDY, PLAIN)
    assert len(run.marks) == len(blows) > KILLS and not run.left
