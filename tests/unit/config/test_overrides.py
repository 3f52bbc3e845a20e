"""Fields that are overridden by `--set`."""

from __future__ import annotations

import pytest

from sftlab.config.overrides import override
from sftlab.errors import UserError


def test_entry_of_a_list_is_overridden_by_its_place() -> None:
    document = {"runs": [{"sizes": [1]}, {"sizes": [2]}]}
    assert override(document, ["runs.1.sizes=[3]"]) == {"runs": [{"sizes": [1]}, {"sizes": [3]}]}
    assert override({"sizes": [1, 2]}, ["sizes.0=5"]) == {"sizes": [5, 2]}


@pytest.mark.parametrize("text", ["runs.2.sizes=[3]", "runs.first.sizes=[3]", "runs.-1=3"])
def test_place_outside_of_a_list_is_refused(text: str) -> None:
    with pytest.raises(UserError) as refused:
        override({"runs": [{}, {}]}, [text])
    assert "expected 0 to 1" in str(refused.value)
