"""Which part of which parameter each tensor of a checkpoint fills.

transformers renames the tensors of some families when it loads them, stacks experts and divides fused matrices. Its
conversion tables are applied to tensors without data: every result is a view, and the place of the view in its source
says which numbers a stored tensor and a parameter share. Training and export then need no rule for any family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.weights.shards import Checkpoint

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stretch:
    """A rectangular part of a contiguous tensor, as `torch.as_strided` takes it."""

    size: Shape
    stride: Shape
    offset: int

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of `tensor`, which is contiguous; a view."""
        return tensor.contiguous().as_strided(self.size, self.stride, self.offset)


@dataclass(frozen=True)
class Part:
    """Numbers that a stored tensor and a parameter share: all of either, where the stretch is None."""

    parameter: Any
    place: Stretch | None = None
    stored: Stretch | None = None

    def in_parameter(self, whole: torch.Tensor) -> torch.Tensor:
        """The shared numbers of `whole`, which has the parameter's shape."""
        return whole if self.place is None else self.place.of(whole)

    def in_stored(self, whole: torch.Tensor) -> torch.Tensor:
        """The shared numbers of `whole`, which has the stored tensor's shape."""
        return whole if self.stored is None else self.stored.of(whole)


Homes = Mapping[str, tuple[Part, ...]]
"""Stored tensor name -> the parts of parameters that it fills."""


def homes(folder: Path, model: Any) -> dict[str, tuple[Part, ...]]:
    """What each stored tensor of `folder` fills in `model`; tensors that fill no parameter (buffers) are left out.

    A checkpoint of a bare backbone lacks the backbone's prefix. Raises UserError where a parameter is filled by no
    stored tensor, or in a way that cannot be undone: the export could not give back the base model's tensors.
    """
    with Checkpoint.open(folder) as checkpoint:
        return placed({name: checkpoint.shape(name) for name in checkpoint.names}, model, folder)


def placed(shapes: Mapping[str, Shape], model: Any, folder: Path) -> dict[str, tuple[Part, ...]]:
    """As `homes`, of stored tensors with these shapes; `folder` is named in messages."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, tuple[Part, ...]] = {}
    for group in _groups(shapes, model):
        for name, part in _parts(folder, group, parameters, shapes, model):
            found[name] = (*found.get(name, ()), part)
    _check_filled(folder, model, parameters, found)
    return found


@dataclass
class _Group:
    """Stored tensors that one conversion takes together, and the name of the first parameter that it makes.

    stored: name after renaming -> stored name. converter: None for tensors that are only renamed.
    """

    target: str
    converter: Any
    pattern: str | None
    stored: dict[str, str]


def _groups(shapes: Mapping[str, Shape], model: Any) -> list[_Group]:
    """The stored tensors by the parameter that transformers loads them into, in the order in which it does."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    table = get_model_conversion_mapping(model)
    renamings = [entry for entry in table if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in table if isinstance(entry, WeightConverter)]
    of_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    known = dict.fromkeys([name for name, _ in model.named_parameters(remove_duplicate=False)], True)
    known |= dict.fromkeys([name for name, _ in model.named_buffers()], True)
    groups: dict[str, _Group] = {}
    for name in sorted(shapes, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        renamed, _ = rename_source_key(name, renamings, [])
        if target not in known and name in known:
            target, pattern, renamed = name, None, name
        if target in known:
            converter = None if pattern is None else of_pattern.get(pattern)
            group = groups.setdefault(target, _Group(target, converter, pattern, {}))
            group.stored[f"{renamed}\0{name}" if renamed in group.stored else renamed] = name
    return list(groups.values())


def _parts(
    folder: Path,
    group: _Group,
    parameters: Mapping[str, Any],
    shapes: Mapping[str, Shape],
    model: Any,
) -> list[tuple[str, Part]]:
    """Stored names with the parts that a group fills; none for buffers."""
    if group.target not in parameters:
        return []
    parameter = parameters[group.target]
    if group.converter is None:
        for name in group.stored.values():
            if shapes[name] != full_shape(parameter):
                raise _unlike(folder, name, shapes[name], group.target, full_shape(parameter))
        return [(name, Part(parameter)) for name in group.stored.values()]
    found = _divided(group, parameters, shapes, model) or _stacked(group, parameter, shapes, model)
    if found is None:
        first = next(iter(group.stored.values()))
        raise UserError(
            (
                f"transformers computes {group.target} of {type(model).__name__} from {first} in a "
                "way that does not keep every number, so a trained model could not be written under "
                "the base model's names"
            ),
            place=folder,
            advice="this architecture cannot be fine-tuned here.",
        )
    return found


def _stacked(
    group: _Group, parameter: Any, shapes: Mapping[str, Shape], model: Any
) -> list[tuple[str, Part]] | None:
    """Several stored tensors, such as experts, as parts of one parameter; None where they are not its views."""
    import torch
    from transformers.core_model_loading import rename_source_key

    whole = torch.empty(full_shape(parameter), device="meta")
    back = group.converter.reverse_transform()
    first, pattern = rename_source_key(group.target, [], [back], reverse=True)
    if pattern is None:
        return None
    made = _converted(back, first, group.target, pattern, [whole], model)
    found, filled = [], 0
    for renamed, tensor in (made or {}).items():
        name = _stored_name(group, renamed)
        if name is None:
            return None
        view = _view(tensor, whole, shapes[name])
        if view is None:
            return None
        found.append((name, Part(parameter, place=view)))
        filled += prod(view.size)
    return found if len(found) == len(group.stored) and filled == whole.numel() else None


def _divided(
    group: _Group, parameters: Mapping[str, Any], shapes: Mapping[str, Shape], model: Any
) -> list[tuple[str, Part]] | None:
    """One stored tensor, such as a fused matrix, that holds several parameters; None where they are not its views."""
    import torch

    if len(group.stored) != 1:
        return None
    (name,) = group.stored.values()
    whole = torch.empty(shapes[name], device="meta")
    made = _converted(deepcopy(group.converter), group.target, name, str(group.pattern), [whole], model)
    found, filled = [], 0
    for target, tensor in (made or {}).items():
        if target not in parameters:
            return None
        view = _view(tensor, whole, full_shape(parameters[target]))
        if view is None:
            return None
        found.append((name, Part(parameters[target], stored=view)))
        filled += prod(view.size)
    return found if found and filled == whole.numel() else None


def _converted(
    converter: Any, layer: str, source: str, pattern: str, tensors: list[torch.Tensor], model: Any
) -> dict[str, torch.Tensor] | None:
    """What transformers' converter makes of tensors without data; None where it cannot."""
    for tensor in tensors:
        converter.add_tensor(layer, source, pattern, tensor)
    try:
        with _views_for_copies():
            made = converter.convert(layer, model=model, config=getattr(model, "config", None))
    except (ValueError, RuntimeError, NotImplementedError, KeyError, IndexError, AttributeError, TypeError):
        return None  # an operation without a way back, or that reads numbers
    return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def _views_for_copies() -> Any:
    """A context in which a copy in another order of memory stays a view of its source."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Views(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            return args[0] if func is torch.ops.aten.clone.default else func(*args, **(kwargs or {}))

    return Views()  # type: ignore[no-untyped-call]  # of its base class


def _view(tensor: torch.Tensor, whole: torch.Tensor, shape: Shape) -> Stretch | None:
    """Where `tensor`, in the wanted shape, is in `whole`; None for a copy, and for other numbers than wanted."""
    if tensor.untyped_storage()._cdata != whole.untyped_storage()._cdata or tensor.numel() != prod(shape):
        return None
    if tuple(tensor.shape) != shape:  # transformers drops dimensions of one
        try:
            tensor = tensor.view(shape)
        except RuntimeError:
            return None
    return Stretch(shape, tuple(tensor.stride()), int(tensor.storage_offset()))


def _stored_name(group: _Group, renamed: str) -> str | None:
    """The stored tensor of a name that the way back gives, with or without the prefix of the backbone."""
    if renamed in group.stored:
        return group.stored[renamed]
    close = [one for one in group.stored if renamed.endswith(f".{one}") or one.endswith(f".{renamed}")]
    return group.stored[close[0]] if len(close) == 1 else None


def _check_filled(folder: Path, model: Any, parameters: Mapping[str, Any], found: Homes) -> None:
    covered = {id(part.parameter) for parts in found.values() for part in parts}
    lost = sorted(name for name, parameter in parameters.items() if id(parameter) not in covered)
    if lost:
        raise UserError(
            (
                f"the weights stored there do not fill {lost[0]} ({len(lost)} such tensors) of "
                f"{type(model).__name__}"
            ),
            place=folder,
            advice=(
                "transformers would leave them at random values. The checkpoint is incomplete or of "
                "another architecture than its config.json says; fetch the model again."
            ),
        )


def _unlike(folder: Path, name: str, stored: Shape, target: str, shape: Shape) -> UserError:
    return UserError(
        f"{name} is stored with shape {list(stored)}, and config.json makes {target} {list(shape)}",
        place=folder,
        advice="the two do not belong together, fetch the model again.",
    )


def full_shape(parameter: Any) -> Shape:
    """The shape of a whole parameter, which ZeRO-3 may have divided among ranks."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def by_parameter(places: Homes) -> list[tuple[Any, list[tuple[str, Part]]]]:
    """Each parameter once, with the stored tensors that fill it; `places` is homes(...)."""
    found: dict[int, tuple[Any, list[tuple[str, Part]]]] = {}
    for name, parts in places.items():
        for part in parts:
            found.setdefault(id(part.parameter), (part.parameter, []))[1].append((name, part))
    return list(found.values())


def assembled(
    parameter: Any, parts: Iterable[tuple[str, Part]], read: Callable[[str], torch.Tensor]
) -> torch.Tensor:
    """The whole value of a parameter, on the CPU, from the stored tensors that `read` gives."""
    import torch

    whole: torch.Tensor | None = None
    for name, part in parts:
        value = part.in_stored(read(name))
        if part.place is None:
            return value
        if whole is None:
            whole = torch.empty(full_shape(parameter), dtype=value.dtype)
        part.place.of(whole).copy_(value)
    assert whole is not None, "a parameter without stored tensors"
    return whole
