"""Fewer resamples and permutations than a user gets: the tests are of directions and names, not of third digits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sftlab.analysis import agreement, effects, predictors, transfer
from sftlab.studies.survey import claim_tests, tables


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (agreement, effects, predictors, transfer):
            patch.setattr(module, "PERMUTATIONS", 1999)
        patch.setattr(effects, "RESAMPLES", 200)
        patch.setattr(claim_tests, "RESAMPLES", 40)
        patch.setattr(tables, "COMPONENT_DRAWS", 20)
        yield
