"""Edits: what makes another model of a base model and a model tuned from it, one tensor at a time.

An edit holds its settings and no weights, so that it is cheap to send to the process that loads the model.
It is sent by pickle: a module that defines an own edit must be importable in that process too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from sftlab.errors import UserError
from sftlab.weights.bits import code_of, is_finite, raw_view
from sftlab.weights.cut import Cut, Region, percent_label
from sftlab.weights.draws import random_keys
from sftlab.weights.mixer import restored_tensors
from sftlab.weights.pairs import check_finite, is_shared, parameters, tied_aliases
from sftlab.weights.regions import check_layers, in_region, is_buffer, place
from sftlab.weights.shards import Checkpoint

if TYPE_CHECKING:
    import torch

KEYS = 2**31  # how many keys `random_keys` draws from


class Edit(ABC):
    """Turns a pair of open checkpoints that fit each other (`check_pair`) into tensors of another model.

    Subclasses are frozen dataclasses of plain values: equal edits make equal models, to the bit.
    """

    @property
    def scope(self) -> tuple[Region, str | None]:
        """Region and layers outside of which all stays as tuned."""
        return "all", None

    @abstractmethod
    def tensors(self, base: Checkpoint, tuned: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors that the tuned model stores, in its shapes and types, one at a time.

        Raises UserError that names the tensor for weights that are not finite.
        """


@dataclass(frozen=True)
class Restoration(Edit):
    """The weights of a cut go back to the base model's bits, all others keep the tuned model's."""

    cut: Cut

    @property
    def scope(self) -> tuple[Region, str | None]:
        return self.cut.region, self.cut.layers

    def tensors(self, base: Checkpoint, tuned: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
        return restored_tensors(base, tuned, self.cut)


@dataclass(frozen=True)
class TunedLayers(Edit):
    """The tuned model's bits in these layers, the base model's in all others.

    A layer has all its parameters, norms included. outside: whether what is outside of the layers (embeddings, final
    norm) is the tuned model's.
    """

    layers: frozenset[int]
    outside: bool = False

    def tensors(self, base: Checkpoint, tuned: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
        aliases = tied_aliases(tuned)
        for name in tuned.names:
            source = aliases.get(name, name)
            layer = place(source).layer
            kept = self.outside if layer is None else layer in self.layers
            from_base = not kept and not is_buffer(source) and is_shared(base, tuned, source)
            yield name, base.read(source) if from_base else tuned.read(name)


@dataclass(frozen=True)
class TensorEdit(Edit):
    """An edit that is a function of one parameter's base and tuned values; subclasses implement `edit`.

    Parameters outside of `region`, or outside of `layers` (such as "0-3") where these are given, and
    buffers stay as tuned, to the bit. A tied tensor stored twice is edited under the name of its source and
    comes the same both times. A few float32 copies of one parameter are held at a time.
    """

    region: Region = field(default="all", kw_only=True)
    layers: str | None = field(default=None, kw_only=True)

    @property
    def scope(self) -> tuple[Region, str | None]:
        return self.region, self.layers

    @abstractmethod
    def edit(self, name: str, base: torch.Tensor, tuned: torch.Tensor) -> torch.Tensor:
        """New values of the parameter `name`: float32 of its shape.

        base, tuned: float32, exact, of one shape; they may be overwritten. The result is rounded once, to the
        type that the model is stored in.
        """

    def tensors(self, base: Checkpoint, tuned: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
        check_layers(self.layers, parameters(tuned), tuned.path)
        aliases = tied_aliases(tuned)
        for name in tuned.names:
            source = aliases.get(name, name)
            yield name, (tuned.read(name) if is_buffer(source) else self._edited(source, base, tuned))

    def _edited(self, name: str, base: Checkpoint, tuned: Checkpoint) -> torch.Tensor:
        new = tuned.read(name)
        check_finite(tuned, name, raw_view(new))
        inside = in_region(name, self.region, self.layers)
        if name not in base.names or (not inside and base.shape(name) != tuned.shape(name)):
            return new
        old = base.read(name)
        check_finite(base, name, raw_view(old))
        if not inside:
            return new
        shape, dtype = new.shape, new.dtype
        values = self.edit(name, old.float(), new.float())
        if values.shape != shape:
            raise UserError(
                f"gave {name} the shape {list(values.shape)}",
                place=f"{type(self).__name__}.edit",
                value=list(values.shape),
                expected=f"{list(shape)}, as in {tuned.path}",
            )
        edited = values.to(dtype).contiguous()
        if not is_finite(raw_view(edited), code_of(edited)):
            raise UserError(
                f"{self} makes weights of {name} that are NaN or beyond {dtype}",
                place=tuned.path,
                advice="choose milder settings.",
            )
        return edited


@dataclass(frozen=True)
class Interpolation(TensorEdit):
    """WiSE-FT (Wortsman et al. 2022): w = s + a (p - s) with a = percent / 100, in float32.

    percent: 0 to 100; 0 gives the tuned model's bits, 100 the base model's. Raises UserError for others.
    """

    percent: float

    def __post_init__(self) -> None:
        percent_label(self.percent)

    def edit(self, name: str, base: torch.Tensor, tuned: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        # the ends apart: s + (p - s) is not p in floating point
        if self.percent == 0:
            return tuned
        if self.percent == 100:
            return base
        return tuned + self.percent / 100 * (base - tuned)


@dataclass(frozen=True)
class Dare(TensorEdit):
    """DARE, drop and rescale (Yu et al. 2023): each difference s - p is dropped with the probability
    q = percent / 100, independently; the others are kept as (s - p) / (1 - q). w = p + what is left.

    A weight is dropped if its key of the order "random" is among the largest q of all possible keys
    (`random_keys`): the choice depends on seed, parameter name and position alone, and a larger percentage
    drops what a smaller one does. percent: from 0, which gives the tuned model's bits, to below 100, where
    nothing is left to rescale; raises UserError for others.
    """

    percent: float
    seed: int = 0

    def __post_init__(self) -> None:
        percent_label(self.percent)
        if self.percent == 100:
            raise UserError(
                "100 % drops every difference and leaves none to rescale",
                place="dare",
                value=100,
                expected="below 100",
            )

    def edit(self, name: str, base: torch.Tensor, tuned: torch.Tensor) -> torch.Tensor:
        import torch

        if self.percent == 0:
            return tuned
        rest = KEYS - int(KEYS * Fraction(percent_label(self.percent)) / 100)
        keeps = torch.from_numpy(random_keys(self.seed, name, 0, base.numel()) < rest).reshape(base.shape)
        kept = base + (tuned - base) / (1 - self.percent / 100)
        return torch.where(keeps, kept, base)
