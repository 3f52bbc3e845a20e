"""The base of every specification and runtime: frozen, unknown keys refused, defaults on the field."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable record that a component owns and a study is composed of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
