"""Types of fields that a specification of edited weights is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from sftlab.errors import UserError
from sftlab.weights.regions import layers_label


def _layers(value: Any) -> Any:
    """The one writing of a set of layers; a single number, as YAML reads `3`, is a set too."""
    text = str(value) if type(value) is int else value
    if not isinstance(text, str):
        return value  # for pydantic to refuse
    try:
        return layers_label(text)
    except UserError as error:
        raise ValueError(str(error)) from error


LayerRange = Annotated[str, BeforeValidator(_layers)]
