"""Reading what people write: YAML and JSON, with errors that name the place and the nearest right word."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from sftlab.errors import UserError


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key which is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: key {key!r} is given twice")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises UserError naming `where` for what is none, and for a key given twice."""
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except RecursionError as error:
        raise UserError(f"{where}: is not valid YAML: it is nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-01
        raise UserError(f"{where}: is not valid YAML: {error}") from error


def load_yaml(path: Path, advice: str) -> Any:
    """The value in a YAML file, read as UTF-8. Raises UserError as `parse_yaml`; `advice` says what to give."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not valid YAML: {error}") from error
    return parse_yaml(text, str(path))


def parse_json(text: str | bytes, where: str, advice: str) -> Any:
    """The value of a JSON text. Raises UserError naming `where` for what is none, with what to do (`advice`)."""
    try:
        value = json.loads(text)
        json.dumps(
            value, ensure_ascii=False
        ).encode()  # half of a surrogate pair can be neither hashed nor stored
    except RecursionError as error:
        raise UserError(f"{where}: is not valid JSON: it is nested too deeply; {advice}") from error
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(f"{where}: is not valid JSON: {half!r} is half of a character; {advice}") from error
    except ValueError as error:
        raise UserError(f"{where}: is not valid JSON: {error}; {advice}") from error
    return value


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`, or None where none is much like it."""
    found = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown_hint(word: object, known: Iterable[str]) -> str:
    """What to say after an unknown key: the nearest right one, or all of them."""
    names = list(known)
    near = nearest(word, names)
    return f"did you mean {near!r}?" if near else f"known keys are {', '.join(names)}."
