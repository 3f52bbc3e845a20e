"""Reading what people write: YAML and JSON, with errors that name the place and the nearest right word."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml

from sftlab.errors import Place, UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Kind = TypeVar("Kind")
MAX_YAML = 2**20  # characters, which bounds the time too
MAX_VALUES = 1_000_000
MAX_DIGITS = 300
MERGE = "tag:yaml.org,2002:merge"
_TWO_READINGS = re.compile(r"[-+]?0[0-7_]*[0-7]|.*:.*")


class _Bounded(yaml.SafeLoader):
    """A safe loader that refuses a key which is given twice, and numbers that take an age to read."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Hashable] = set()
        for part, _ in node.value:
            if part.tag == MERGE:
                continue  # `<<: *shared` fills in what is not given here
            key = self.construct_object(part, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused by PyYAML, with its line
            if key in seen:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> Any:
        if len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a number of {len(node.value):,} digits")
        if _TWO_READINGS.fullmatch(node.value):
            raise yaml.YAMLError(
                f"line {node.start_mark.line + 1}: {node.value} is another number for other readers of YAML (base 8 "
                "or 60); write it without leading zeros and colons, or quote it if it is a text"
            )
        is_int = node.tag.endswith("int")
        return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)


# YAML 1.2 and people write 1e-4, which PyYAML takes for a text: it wants a point and a sign.
_Bounded.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)
for _kind in ("int", "float"):
    _Bounded.add_constructor(f"tag:yaml.org,2002:{_kind}", _Bounded.number)


def _written_out(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """How many values (long texts count more) a node holds with its aliases written out.

    A few lines of aliases to aliases hold more than any memory. Raises YAMLError above MAX_VALUES, and where an
    alias holds itself.
    """
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: an alias holds itself")
        return size
    sizes[id(node)] = None
    if isinstance(node, yaml.ScalarNode):
        total = 1 + len(node.value) // 64
    elif isinstance(node, yaml.MappingNode):
        total = 1 + sum(_written_out(part, sizes) for pair in node.value for part in pair)
    else:
        total = 1 + sum(_written_out(part, sizes) for part in node.value)
    if total > MAX_VALUES:
        raise yaml.YAMLError(f"it holds more than {MAX_VALUES:,} values with its aliases written out")
    sizes[id(node)] = total
    return total


def parse_yaml(text: str, where: str | Place) -> Any:
    """The value of a YAML text. Raises UserError naming `where` for what is none, and for a key given twice."""
    if len(text) > MAX_YAML:
        raise UserError(
            f"has over {MAX_YAML:,} characters, more than any YAML file that people write", place=where
        )
    loader = _Bounded("")
    try:
        loader = _Bounded(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _written_out(node, {})
        return loader.construct_document(node)
    except RecursionError as error:
        raise UserError("is not valid YAML: it is nested too deeply", place=where) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-01
        raise UserError(f"is not valid YAML: {error}", place=where) from error
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # PyYAML's own, for `!!int` and the like before what is none.
        raise UserError(
            "is not valid YAML: a value does not have the type of its tag", place=where
        ) from error
    finally:
        loader.dispose()


def load_yaml(path: Path, advice: str) -> Any:
    """The value in a YAML file, read as UTF-8. Raises UserError as `parse_yaml`; `advice` says what to give."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_YAML + 1)  # whatever is named: /dev/zero never ends
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", place=path, advice=advice) from error
    except UnicodeDecodeError as error:
        raise UserError(f"is not valid YAML: {error}", place=path) from error
    except ValueError as error:
        raise UserError(f"is no path ({error})", place=repr(str(path)), advice=advice) from error
    return parse_yaml(text, str(path))


class _RepeatedKeyError(Exception):
    """No ValueError, which means what is no JSON."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return found


def parse_json(text: str | bytes, where: str | Place, advice: str) -> Any:
    """The value of a JSON text. Raises UserError naming `where` for what is none, with what to do (`advice`), and
    for an object that has a key twice, of which other readers take the last in silence.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
        json.dumps(
            value, ensure_ascii=False
        ).encode()  # half of a surrogate pair can be neither hashed nor stored
    except _RepeatedKeyError as error:
        raise UserError(
            f"key {error.key!r} is given twice in one object",
            place=where,
            value=error.key,
            advice="keep the one that is right.",
        ) from error
    except RecursionError as error:
        raise UserError("is not valid JSON: it is nested too deeply", place=where, advice=advice) from error
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(
            f"is not valid JSON: {half!r} is half of a character", place=where, value=half, advice=advice
        ) from error
    except ValueError as error:
        raise UserError(f"is not valid JSON: {error}", place=where, advice=advice) from error
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def parse_record(kind: type[Kind], text: bytes, where: str, advice: str) -> Kind:
    """A JSON text as a dataclass, every field of its type; what it does not know is left out.

    Raises UserError naming `where` and the field, with what to do (`advice`).
    """
    from pydantic import ValidationError

    try:
        found: Kind = _adapter(cast(Any, kind)).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{f'field {field}: ' if field else ''}{first['msg']}",
            place=where,
            value=first["input"],
            advice=advice,
        ) from error
    return found


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`, or None where none is much like it."""
    found = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_hint(word: object, known: Iterable[str]) -> str:
    """What to say after an unknown key: the nearest right one, or all of them."""
    names = list(known)
    near = nearest(word, names)
    return f"did you mean {near!r}?" if near else f"known keys are {', '.join(names)}."
