"""Parameters of a custom strategy are checked as those of a built-in one, whatever types it gives them."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from sftlab.errors import UserError
from sftlab.strategies import EditStrategy, get_strategy, register
from sftlab.strategies.registry import KNOWN
from sftlab.weights.edits import Interpolation
from sftlab.weights.regions import in_region
from tests.support.refusals import refused


@pytest.fixture(autouse=True)
def custom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftlab.strategies.registry.KNOWN", dict(KNOWN))

    class Loose(EditStrategy):
        name: ClassVar[str] = "loose"
        title: ClassVar[str] = "Loosely typed"
        source: ClassVar[str] = "a test"
        region: str = "all"
        order: str = "top"
        measure: Any = None
        layers: str | None = None

        def edit(self, percent: float, cut: Any) -> Interpolation:  # noqa: ARG002
            return Interpolation(percent, region=self.region, layers=self.layers)  # type: ignore[arg-type]

    register(Loose)


@pytest.mark.parametrize(
    ("field", "value", "built_in"),
    [
        ("region", "mpl", "wise-ft"),
        ("region", "", "wise-ft"),
        ("order", "bottoms", "restore"),
        ("measure", "relativ", "restore"),
        ("layers", "3-1", "wise-ft"),
    ],
)
def test_a_misspelt_value_is_refused_as_by_a_built_in_strategy(field: str, value: str, built_in: str) -> None:
    messages = []
    for name in ("loose", built_in):
        with pytest.raises(UserError) as caught:
            get_strategy(name, {field: value})
        messages.append(str(caught.value).replace(f"strategy {name}: ", ""))
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{field}: ") and repr(value) in messages[0]


def test_right_values_and_defaults_pass() -> None:
    get_strategy("loose")
    right = {"region": "mlp", "order": "random", "measure": "absolute", "layers": "0-1"}
    assert get_strategy("loose", right).model_dump() == right


def test_a_region_that_is_unknown_holds_no_parameter_silently() -> None:
    with refused("region 'mpl' is unknown", value="mpl", expected="one of layers, attention, mlp"):
        in_region("model.layers.0.mlp.up_proj.weight", "mpl")  # type: ignore[arg-type]
