"""YAML files and overrides, validated into configuration models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sftlab.config.documents import load_yaml, parse_yaml
from sftlab.config.messages import Keys, explained
from sftlab.config.words import FROM_FILE
from sftlab.errors import UserError, joined

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Setting:
    """A key that an option set over a file.

    option: how it is named in messages, such as "--set sft.epochs". known: how many of its parts the file itself has.
    """

    option: str
    parts: tuple[str, ...]
    known: int

    def brought(self, place: Keys) -> tuple[bool, int] | None:
        """Whether a place is in what was set, and how many parts they share; None where it came otherwise.

        Also what came into the document with the key was brought by it, such as the record that holds it.
        """
        shared = 0
        for mine, other in zip(self.parts, place, strict=False):
            if mine != str(other):
                break
            shared += 1
        inside = shared == len(self.parts)
        return (inside, shared) if inside or shared > self.known else None


@dataclass(frozen=True)
class Origin:
    """Where a document comes from: a source, such as a file, and what options set over it."""

    source: str
    settings: tuple[Setting, ...] = ()

    def of(self, place: Keys) -> str:
        """Who is to be named for an error at a place: the option that is nearest to it, or the source."""
        found = [(s.brought(place) or (False, 0), number, s) for number, s in enumerate(self.settings)]
        (_, shared), _, nearest = max(found, default=((False, 0), 0, None))
        return nearest.option if nearest is not None and shared else self.source


def origin_of(source: str, document: Mapping[str, Any], overrides: Sequence[str], prefix: str = "") -> Origin:
    """The origin of a document that is not yet overridden; `prefix` was cut from the overrides."""
    keys = [text.partition("=")[0] for text in overrides]
    found = [(key, tuple(key.split("."))) for key in keys]
    return Origin(
        source, tuple(Setting(f"--set {prefix}{key}", parts, _known(document, parts)) for key, parts in found)
    )


def _known(document: Any, parts: Sequence[str]) -> int:
    """How many parts of a key a document has, from its top."""
    for number, part in enumerate(parts):
        if not isinstance(document, dict) or part not in document:
            return number
        document = document[part]
    return len(parts)


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_yaml(
    path: Path,
    model: type[BaseModel],
    kinds: Mapping[type[BaseModel], str],
    advice: str = "give a YAML file.",
) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError where it is none, or a file of another kind than `model`.

    kinds: what a file of each model is called, and how it is to be given. advice: what to do about a missing file.
    """
    document = load_yaml(path, advice)
    if not isinstance(document, dict):
        raise UserError(place=path, value=document, expected="a mapping of keys to values at the top")
    if not document.keys() <= model.model_fields.keys():
        for other, kind in kinds.items():
            if document.keys() <= other.model_fields.keys():
                raise UserError(f"is {kind}", place=path)
    return document


def override(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set `a.b=c` texts in a document, in place; `a.0.b=c` goes to the first entry of a list.

    Raises UserError for what is not such a text.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(
                place="--set", value=text, expected="KEY=VALUE, as in training_sets.sizes=[25,100]"
            )
        parsed = parse_yaml(value, f"--set {text}")
        *parents, last = key.split(".")
        place: Any = document
        for parent in parents:
            inner = _held(place, parent, text)
            if inner is None:
                inner = place[parent] = {}  # a list has no empty places
            if not isinstance(inner, dict | list):
                raise UserError(
                    f"{parent!r} holds a value and not further keys", place=f"--set {text}", value=inner
                )
            place = inner
        _held(place, last, text)
        place[int(last) if isinstance(place, list) else last] = parsed
    return document


def _held(place: Any, key: str, text: str) -> Any:
    """What a mapping or a list holds at a key, None where a mapping lacks it. Raises UserError outside of a list."""
    if isinstance(place, dict):
        return place.get(key)
    if not key.isdecimal() or int(key) >= len(place):
        raise UserError(
            f"{key!r} is no place in a list of {len(place)}",
            place=f"--set {text}",
            expected=f"0 to {len(place) - 1}",
        )
    return place[int(key)]


def validated(model: type[Model], document: Mapping[str, Any], source: str | Origin) -> Model:
    """A document as a record. Raises UserError naming file (or option) and field, with the nearest known key."""
    origin = source if isinstance(source, Origin) else Origin(source)
    try:
        return model.model_validate(document, context=FROM_FILE)
    except ValidationError as error:
        found = explained(model, document, error)
        raise joined([one.error(origin.of(one.keys)) for one in found]) from error
