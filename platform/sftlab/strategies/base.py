"""What a strategy is: a setting of fine-tuning, of the edit of the finished weights, or of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import TypeAdapter, ValidationError, ValidationInfo, field_validator

from sftlab.config.documents import nearest
from sftlab.config.frozen import Frozen
from sftlab.errors import UserError, joined
from sftlab.weights.cut import Measure, Order, Region, ShareOf
from sftlab.weights.spec import LayerRange

if TYPE_CHECKING:
    from sftlab.strategies.treatment import Treatment
    from sftlab.weights.cut import Cut
    from sftlab.weights.edits import Edit


_SHARED: dict[str, TypeAdapter[Any]] = {
    "region": TypeAdapter(Region),
    "order": TypeAdapter(Order),
    "measure": TypeAdapter(Measure),
    "layers": TypeAdapter(LayerRange),
    "share_of": TypeAdapter(ShareOf),
}


class Strategy(Frozen, ABC):
    """One way to fine-tune with less harm. The fields of a subclass are its parameters.

    The parameters region, order, measure, layers and share_of mean the same for every strategy, and their values are
    checked whatever type a subclass gives them.

    A strategy is a function from treatment to treatment and cannot change the rest of a study, so that all strategies
    are measured in the same way. `strategies.registry.register` makes it known.
    """

    name: ClassVar[str]
    """What studies and sweeps call it: lower case, words joined by hyphens."""
    title: ClassVar[str]
    """What reports call it."""
    source: ClassVar[str]
    """Where it was published."""
    has_ladder: ClassVar[bool] = False
    """Whether the restore percentage means anything; if not, `apply` leaves the tuned model alone."""

    @field_validator(*_SHARED, mode="after", check_fields=False)
    @classmethod
    def _known_value(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            try:
                _SHARED[str(info.field_name)].validate_python(value)
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return value

    @abstractmethod
    def apply(self, treatment: Treatment) -> Treatment:
        """The treatment with this strategy in place of its settings.

        Raises UserError where the two contradict each other, and for a field that the specification lacks.
        """

    def training_set(self, asked: int | str, own: Sequence[int | str] | None) -> int | str:
        """What a trial of a sweep is trained on where the axis `data` asks for this bucket or mixture.

        own: the buckets that `apply` put in place of the treatment's; None where it left them alone. Raises
        UserError for data that the strategy is not made for.
        """
        if own is None or asked in own:
            return asked
        if len(own) == 1:
            return own[0]
        raise UserError(
            f"its data are {', '.join(map(str, own))}, and axes.data has {asked}",
            place=f"strategy {self.name}",
            value=asked,
            advice="list those alone.",
        )

    def edit(self, percent: float, cut: Cut | None) -> Edit:  # noqa: ARG002
        """The edit that makes the model of a percentage, above 0, out of the base and the tuned model.

        cut: the weights that a restoration of this percentage takes back, for strategies that use it.
        Raises UserError for a strategy that leaves finished weights alone.
        """
        raise UserError(
            "changes the fine-tuning",
            place=f"strategy {self.name}",
            advice="it does not edit finished weights.",
        )


class EditStrategy(Strategy):
    """A strategy with a custom edit of finished weights: `restore.method` may name it.

    The edit is sent to the processes that load the model by pickle; the module that defines it must be
    importable there (on the PYTHONPATH of every node).
    """

    has_ladder: ClassVar[bool] = True
    uses_cut: ClassVar[bool] = False
    """Whether `edit` is given the cut that region, layers, order, measure and seed of the study ask for."""

    def apply(self, treatment: Treatment) -> Treatment:
        """The treatment with `restore.method` set, and its percentages kept.

        Without a cut, region and order of the restoration have no effect; they are set to their defaults so
        that they have none on the ids either. Raises UserError as `check_percents` does.
        """
        self.check_percents(treatment.restore.percents)
        method = {"method": self.name, "parameters": self.model_dump(mode="json")}
        if self.uses_cut:
            return changed(treatment, "restore", **method)
        return replaced(treatment, "restore", percents=treatment.restore.percents, **method)

    def check_percents(self, percents: Sequence[float]) -> None:  # noqa: ARG002
        """Raises UserError for a percentage from 0 to 100 with which this edit cannot be made."""
        return

    @abstractmethod
    def edit(self, percent: float, cut: Cut | None) -> Edit:
        """As `Strategy.edit`; cut is None unless `uses_cut`."""


def changed(treatment: Treatment, part: str, **fields: Any) -> Treatment:
    """The treatment with some fields of one part (`sft`, `restore`, ...) changed, checked like a study file."""
    return replaced(treatment, part, **{**getattr(treatment, part).model_dump(), **fields})


def replaced(treatment: Treatment, part: str, **fields: Any) -> Treatment:
    """The treatment with these fields in one part of it and defaults in all others of that part."""
    kind = type(getattr(treatment, part))
    try:
        return treatment.model_copy(update={part: kind.model_validate(fields)})
    except ValidationError as error:
        raise explained(error, part, list(kind.model_fields)) from error


def without_ladder(treatment: Treatment) -> Treatment:
    """The treatment that leaves its tuned models as they are."""
    return replaced(treatment, "restore", percents=(0,))


def explained(error: ValidationError, where: str, known: Sequence[str]) -> UserError:
    """Everything that pydantic found wrong in the fields of `where` as one error; `known` are their names."""
    found = []
    for entry in error.errors():
        path = ".".join(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden" and len(entry["loc"]) == 1:
            near = nearest(path, known)
            names = ", ".join(known) or "none"
            hint = f"did you mean {near!r}?" if near else f"known are: {names}."
            found.append(UserError(f"unknown key {path!r}", place=where, value=path, advice=hint))
        elif entry["type"] == "missing":
            found.append(UserError(f"{path} is required", place=where, value=path))
        else:
            at = f"{path}: " if path else ""
            value = f" (found {entry['input']!r})" if path else ""
            problem = f"{at}{entry['msg'].removeprefix('Value error, ')}{value}"
            found.append(UserError(problem, place=where, value=entry["input"]))
    return joined(found)
