"""Options of commands: groups of them as records, and those that also take the id of a hub.

A parameter of a command that is a dataclass stands for one option a field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Literal, get_type_hints

from sftlab.cli.common import interruptible, local_folder


@dataclass(frozen=True)
class OnHub:
    """In the annotation of an option of paths: each may be the id of a hub, and the command gets what is fetched."""

    kind: Literal["model", "dataset"]


MODEL, DATA = OnHub("model"), OnHub("dataset")


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer reads it: parameters that are dataclasses are replaced by the fields of these.

    Each field is annotated as an option or argument of Typer. The command is called with the records, and with local
    paths in place of ids of a hub.
    """
    hints = get_type_hints(command, include_extras=True)
    records: dict[str, tuple[type[Any], list[str]]] = {}
    shown: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        kind = hints[parameter.name]
        if not (isinstance(kind, type) and is_dataclass(kind)):
            shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind))
            continue
        types = get_type_hints(kind, include_extras=True)
        records[parameter.name] = kind, [field.name for field in fields(kind)]
        for field in fields(kind):
            default = Parameter.empty if field.default is MISSING else field.default
            shown.append(
                Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])
            )

    marked = {
        parameter.name: mark for parameter in shown if (mark := on_hub(parameter.annotation)) is not None
    }

    @wraps(command)
    def call(**given: Any) -> None:
        with interruptible():
            given |= {name: _local(given[name], mark) for name, mark in marked.items()}
        made = {
            name: kind(**{field: given.pop(field) for field in names})
            for name, (kind, names) in records.items()
        }
        command(**made, **given)

    call.__signature__ = signature(command).replace(parameters=shown)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return call


def on_hub(annotation: Any) -> OnHub | None:
    """The mark of an annotated type, if it has one."""
    return next((mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, OnHub)), None)


def _local(given: Any, mark: OnHub) -> Any:
    if given is None:
        return None
    return [_local(one, mark) for one in given] if isinstance(given, list) else local_folder(given, mark.kind)
