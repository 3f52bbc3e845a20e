"""Studies with a strategy applied."""

from __future__ import annotations

from typing import Any

import sftlab.strategies
from sftlab.strategies import (
    get_strategy,
)
from sftlab.studies.knowledge.spec import StudySpec

LADDER = (0, 10, 60)


def study(**fields: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "t", "pocket": {}, "restore": {"percents": LADDER}, **fields})


def applied(name: str, spec: StudySpec | None = None, **parameters: Any) -> StudySpec:
    spec = spec or study()
    return spec.with_treatment(get_strategy(name, parameters).apply(spec.treatment))


def documented_example() -> str:
    """The module that the package's docstring shows."""
    lines = (sftlab.strategies.__doc__ or "").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("    from dataclasses"))
    return "\n".join(line.removeprefix("    ") for line in lines[start:])
