"""Strategies by name, custom ones included."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from sftlab import PLUGIN_PATH
from sftlab.config.documents import nearest
from sftlab.errors import UserError
from sftlab.store.fingerprint import file_hash, rows_hash
from sftlab.strategies.base import EditStrategy, Strategy, explained
from sftlab.weights.cut import percent_label
from sftlab.weights.edits import Edit, Restoration

if TYPE_CHECKING:
    from sftlab.strategies.treatment import RestoreSpec
    from sftlab.weights.cut import Cut

AnyStrategy = TypeVar("AnyStrategy", bound=Strategy)
AnyRestore = TypeVar("AnyRestore", bound="RestoreSpec")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
KNOWN: dict[str, type[Strategy]] = {}
SOURCES: dict[str, str | None] = {}  # by name, see `source_of`


def register(strategy: type[AnyStrategy]) -> type[AnyStrategy]:
    """Class decorator that makes a strategy known by its name.

    Raises UserError for a class without name, title or source, a name of another form, and a name taken.
    """
    where = f"{strategy.__module__}.{strategy.__qualname__}"
    for attribute in ("name", "title", "source"):
        if not isinstance(getattr(strategy, attribute, None), str):
            raise UserError(f"has no {attribute}", place=where, advice="set it on the class, as a text.")
    if not _NAME.fullmatch(strategy.name):
        raise UserError(
            f"name {strategy.name!r}",
            place=where,
            value=strategy.name,
            expected="lower case words joined by hyphens",
        )
    other = KNOWN.get(strategy.name)
    if other is not None and (other.__module__, other.__qualname__) != (
        strategy.__module__,
        strategy.__qualname__,
    ):
        raise UserError(
            f"the name {strategy.name!r} is taken by {other.__module__}.{other.__qualname__}",
            place=where,
            value=strategy.name,
            advice="choose another.",
        )
    SOURCES[strategy.name] = _source_hash(strategy)
    KNOWN[strategy.name] = strategy
    return strategy


def source_of(name: str) -> str | None:
    """SHA-256 over the source files of a custom strategy's class and its custom base classes, as it was registered.

    None for a strategy of this package, whose meaning changes with the revision of its stage. What the files import is
    not part of it. Raises UserError for a class without a file, as nothing identifies its code.
    """
    found = SOURCES.get(name)
    if found == "":
        raise UserError(
            f"its class {KNOWN[name].__qualname__} is in no file, so that nothing identifies its code",
            place=f"strategy {name}",
            expected="a class in a module's file",
        )
    return found


def _source_hash(strategy: type[Strategy]) -> str | None:
    """As `source_of`; "" for a class without a file."""
    custom = [
        kind.__module__
        for kind in strategy.__mro__
        if issubclass(kind, Strategy) and kind.__module__.partition(".")[0] != "sftlab"
    ]
    files = [getattr(sys.modules.get(module), "__file__", None) for module in dict.fromkeys(custom)]
    if not files:
        return None
    if not all(isinstance(file, str) and Path(file).is_file() for file in files):
        return ""
    return rows_hash((str(number), file_hash(Path(str(file)))) for number, file in enumerate(files))


def known_strategies() -> dict[str, type[Strategy]]:
    """All strategies by name, in the order of their names."""
    return dict(sorted(KNOWN.items()))


def get_strategy(name: str, parameters: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy of that name with these parameters.

    Raises UserError for an unknown name, with the nearest and all known ones, and for wrong parameters.
    """
    if not isinstance(name, str) or name not in KNOWN:
        near = nearest(name, KNOWN)
        hint = f"did you mean {near!r}? " if near else ""
        raise UserError(
            f"strategy {name!r} is unknown",
            value=name,
            expected=f"one of {', '.join(known_strategies())}",
            advice=f"{hint}custom ones are known once their module is named under `plugins`.",
        )
    kind = KNOWN[name]
    if not isinstance(parameters, Mapping | None):
        raise UserError(
            f"parameters {parameters!r}",
            place=f"strategy {name}",
            value=parameters,
            expected="a mapping of names to values",
        )
    try:
        return kind.model_validate(dict(parameters or {}))
    except ValidationError as error:
        raise explained(error, f"strategy {name}", list(kind.model_fields)) from error


def get_edit_strategy(name: str, parameters: Mapping[str, Any] | None = None) -> EditStrategy:
    """`get_strategy` for a value of `restore.method`. Raises UserError for another strategy too."""
    strategy = get_strategy(name, parameters)
    if not isinstance(strategy, EditStrategy):
        methods = ", ".join(
            name for name, kind in known_strategies().items() if issubclass(kind, EditStrategy)
        )
        raise UserError(
            f"{name} is no edit of its own but a choice of other fields, which a sweep makes",
            place="restore.method",
            value=name,
            expected=f"one of {methods}, or none for the restoration",
        )
    return strategy


def with_method(restore: AnyRestore) -> AnyRestore:
    """The restoration with all parameters of its method written out, so that a default and its value share ids.

    Raises UserError for an unknown method, wrong parameters, and percentages with which its edit cannot be made.
    """
    if restore.method is None:
        return restore
    strategy = get_edit_strategy(restore.method, restore.parameters)
    strategy.check_percents(restore.percents)
    return restore.model_copy(update={"parameters": strategy.model_dump(mode="json")})


def edit_for(restore: RestoreSpec, percent: float, cuts: Mapping[str, Cut]) -> Edit | None:
    """What makes the model of a percentage of the ladder; None for 0 %, the tuned model as it is.

    cuts: percent label -> cut, as the change stage found them; a method without cuts looks at none.
    """
    if percent == 0:
        return None
    label = percent_label(percent)
    if restore.method is None:
        return Restoration(cuts[label])
    strategy = get_edit_strategy(restore.method, restore.parameters)
    return strategy.edit(percent, cuts[label] if strategy.uses_cut else None)


def load_plugins(modules: Sequence[str], folder: Path | None = None) -> None:
    """Imports modules (by dotted name) that register strategies, from `folder` or wherever Python finds them.

    The list of plugins is not part of any id. The source file of a custom strategy that edits weights is part of the
    ids of the models that the strategy makes (`source_of`). Every process that loads an edited model unpickles the
    strategy's edit, so the modules must be importable on all nodes; `folder` is made known
    to the processes that this one starts. Raises UserError that names the module which cannot be imported.
    """
    if modules and folder is not None:
        _make_importable(str(folder.resolve()))
    for module in modules:
        try:
            import_module(module)
        except UserError:
            raise
        except Exception as error:  # a custom module may raise anything; the cause stays attached
            raise UserError(
                f"{module} cannot be imported ({type(error).__name__}: {error})",
                place="plugins",
                value=module,
                expected=(
                    "a module's dotted name, its file in the folder of the study or sweep file or on the "
                    "PYTHONPATH of every node"
                ),
            ) from error


def _make_importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)
    known = [path for path in os.environ.get(PLUGIN_PATH, "").split(os.pathsep) if path]
    if folder not in known:
        os.environ[PLUGIN_PATH] = os.pathsep.join([*known, folder])
