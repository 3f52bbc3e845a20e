"""Formats of instruction data: found by the columns of a row, and converted to turns.

| format | columns | source of the layout |
|---|---|---|
| messages | `messages` (or `conversations`, `conversation`): [{role, content}] | OpenAI, UltraChat-200k |
| sharegpt | `conversations`: [{from, value}] | ShareGPT, Vicuna |
| texts | `conversations` or `data`: [text, text, ...], user first | LIMA, UltraChat |
| alpaca | `instruction`, `output`; optional `input`, `system` | Alpaca, CodeAlpaca, MathInstruct |
| flan | `inputs`, `targets` | FLAN 2021 |
| prompt-response | one of PROMPTS and one of RESPONSES; optional `input`, `context`, `system` | TRL, Dolly, MetaMath |

Decisions, made once. `input` and `context` follow the prompt after a line break. The roles `human`, `gpt` and their
like are user and assistant, `developer` is system, and any other role (tool, function_call, observation) is
refused, as a template would have no place for it. `weight: 0` or `train: false` on a message takes its loss away.
FLAN's rows without an answer have the response "none" and are left out, as in the study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftlab.config.documents import nearest
from sftlab.datasets.conversations import Role, Turn
from sftlab.datasets.spec import FORMAT_NAMES, ColumnSpec, FormatName
from sftlab.errors import UserError, located

PROMPTS = ("prompt", "instruction", "question", "query", "problem")
RESPONSES = ("response", "completion", "answer", "generated_solution", "solution", "output", "target")
LISTS = ("messages", "conversations", "conversation", "data")
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bing", "bard"), "assistant"),
}
_SLOTS: Mapping[FormatName, Mapping[str, tuple[str, ...]]] = {
    "alpaca": {"prompt": ("instruction",), "response": ("output",)},
    "flan": {"prompt": ("inputs",), "response": ("targets",)},
    "prompt-response": {"prompt": PROMPTS, "response": RESPONSES},
}
_OPTIONAL: Mapping[FormatName, Mapping[str, tuple[str, ...]]] = {
    "alpaca": {"input": ("input",), "system": ("system",)},
    "flan": {},
    "prompt-response": {"input": ("input", "context"), "system": ("system", "system_prompt")},
}
_KEYS: Mapping[FormatName, tuple[str, str]] = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
_SHAPES: Mapping[FormatName, str] = {
    "messages": "[{role, content}, ...]",
    "sharegpt": "[{from, value}, ...]",
    "texts": "[text, text, ...]",
}
DROPPED: Mapping[FormatName, tuple[str, ...]] = {"flan": ("none",)}


def described() -> dict[str, str]:
    """Every format with the columns that it is found by."""
    lists = {name: f"a column {' or '.join(LISTS)} of {shape}" for name, shape in _SHAPES.items()}
    pairs = {
        name: " and ".join(f"{slot}: {' or '.join(aliases)}" for slot, aliases in slots.items())
        for name, slots in _SLOTS.items()
    }
    return {name: (lists | pairs)[name] for name in FORMAT_NAMES}


@dataclass(frozen=True)
class Detected:
    """How rows are read: the format, the column of each slot, and why this format was chosen."""

    format: FormatName
    columns: Mapping[str, str]
    why: str

    @property
    def drop_responses(self) -> tuple[str, ...]:
        """Responses that mean "no answer" in this format."""
        return DROPPED.get(self.format, ())

    def turns(self, row: Mapping[str, Any], where: str) -> list[Turn]:
        """The turns of a row, unchecked. Raises UserError naming `where` and the field."""
        if "messages" in self.columns:
            column = self.columns["messages"]
            turns = _LIST_READERS[self.format](_list(row, column, where), f"{where}, field {column!r}")
        else:
            turns = [
                Turn("user", _text(row, self.columns["prompt"], where)),
                Turn("assistant", _text(row, self.columns["response"], where), loss=True),
            ]
            if extra := _optional_text(row, self.columns.get("input"), where):
                turns[0] = Turn("user", f"{turns[0].text.rstrip()}\n{extra}")
        if system := _optional_text(row, self.columns.get("system"), where):
            if turns and turns[0].role == "system":
                raise UserError(
                    f"has a system text in its messages and in {self.columns['system']!r}",
                    place=where,
                    value=self.columns["system"],
                    advice="keep one.",
                )
            turns.insert(0, Turn("system", system))
        return turns


def detect(first: Mapping[str, Any], columns: Sequence[str], where: str) -> Detected:
    """The format of a file by its columns, and by the first row where a list may have several forms.

    Raises UserError naming `where`, the columns, and the nearest format where none fits, or where two
    columns could be the prompt or the response.
    """
    for name in LISTS:
        if name in columns and (found := _list_format(first.get(name))) is not None:
            system = {"system": "system"} if "system" in columns else {}
            why = f"the column {name!r} holds {_SHAPES[found]}"
            return Detected(found, {"messages": name, **system}, why)
    for name in _SLOTS:
        slots = _SLOTS[name]
        if all(any(alias in columns for alias in aliases) for aliases in slots.values()):
            return _pair(name, columns, where)
    raise _unknown(first, columns, where)


def named(name: FormatName, first: Mapping[str, Any], columns: Sequence[str], where: str) -> Detected:
    """The columns of a format that the user names. Raises UserError naming what this format lacks."""
    if name in _SLOTS:
        for slot, aliases in _SLOTS[name].items():
            if not any(alias in columns for alias in aliases):
                raise UserError(
                    f"format {name} needs a column for the {slot} ({' or '.join(aliases)})",
                    place=where,
                    advice=f"the columns are {_listed(columns)}; {_nearest_format(columns)}",
                )
        return _pair(name, columns, where)
    found = [column for column in LISTS if column in columns]
    fitting = [column for column in found if _list_format(first.get(column)) == name] or found
    if not fitting:
        raise UserError(
            f"format {name} needs a column {', '.join(LISTS[:-1])} or {LISTS[-1]} of {_SHAPES[name]}",
            place=where,
            advice=f"the columns are {_listed(columns)}; {_nearest_format(columns)}",
        )
    system = {"system": "system"} if "system" in columns else {}
    return Detected(name, {"messages": fitting[0], **system}, "the format is given")


def custom(
    spec: ColumnSpec, name: FormatName | None, first: Mapping[str, Any], columns: Sequence[str], where: str
) -> Detected:
    """Column names that the user gives. Raises UserError for a column that the file does not have."""
    chosen = {slot: column for slot, column in spec.model_dump().items() if column is not None}
    for slot, column in chosen.items():
        if column not in columns:
            near = nearest(column, columns)
            hint = f"did you mean {near!r}?" if near else f"the columns are {_listed(columns)}."
            raise UserError(
                f"has no column {column!r}, which columns.{slot} names",
                place=where,
                value=column,
                advice=hint,
            )
    why = "the columns are given"
    if spec.messages is None:
        return Detected("prompt-response", chosen, why)
    found = name or _list_format(first.get(spec.messages))
    if found is None:
        raise UserError(
            f"is {_shown(first.get(spec.messages))}",
            place=located(where).of(spec.messages),
            value=first.get(spec.messages),
            expected=" or ".join(_SHAPES.values()),
        )
    return Detected(found, chosen, why)


def _pair(name: FormatName, columns: Sequence[str], where: str) -> Detected:
    chosen = {}
    for slot, aliases in _SLOTS[name].items():
        found = [alias for alias in aliases if alias in columns]
        if len(found) > 1:
            first = {
                name: next(alias for alias in known if alias in columns)
                for name, known in _SLOTS[name].items()
            }
            way_out = " and ".join(f"columns.{name}={column}" for name, column in first.items())
            raise UserError(
                f"the columns {' and '.join(found)} could both be the {slot}",
                place=where,
                advice=f"name the one to read, such as {way_out}.",
            )
        chosen[slot] = found[0]
    for slot, aliases in _OPTIONAL[name].items():
        if extra := [alias for alias in aliases if alias in columns]:
            chosen[slot] = extra[0]
    return Detected(name, chosen, f"it has the columns {' and '.join(chosen[slot] for slot in _SLOTS[name])}")


def _list_format(value: Any) -> FormatName | None:
    if not isinstance(value, list) or not value:
        return None
    if isinstance(value[0], str):
        return "texts"
    if isinstance(value[0], dict):
        for name, keys in _KEYS.items():
            if all(key in value[0] for key in keys):
                return name
    return None


def _unknown(first: Mapping[str, Any], columns: Sequence[str], where: str) -> UserError:
    for name in LISTS:
        if isinstance(first.get(name), list):
            return UserError(
                f"is {_shown(first[name])}",
                place=located(where).of(name),
                value=first[name],
                expected=", ".join(_SHAPES.values()),
            )
    return UserError(
        f"the columns {_listed(columns)} are of no known format ({', '.join(FORMAT_NAMES)})",
        place=where,
        value=list(columns),
        advice=f"{_nearest_format(columns)} Or name your columns, columns.prompt and columns.response.",
    )


def _nearest_format(columns: Sequence[str]) -> str:
    """The format with the largest share of its columns found, exactly or nearly, and what it lacks."""
    best, best_score, lacking = "", 0.0, ""
    for name, slots in _SLOTS.items():
        score, missing = 0.0, []
        for aliases in slots.values():
            if any(alias in columns for alias in aliases):
                score += 1
                continue
            near = next((found for alias in aliases if (found := nearest(alias, columns))), None)
            score += 0.5 if near else 0
            missing.append(aliases[0] + (f" (is it {near!r}?)" if near else ""))
        if score > best_score and missing:
            best, best_score, lacking = name, score, ", ".join(missing)
    for column in columns:
        if (near := nearest(column, LISTS)) is not None and best_score < 1:
            best, best_score, lacking = "messages", 1.0, f"{near} (is it {column!r}?)"
    return f"the nearest is {best}, which lacks {lacking}." if best else "none of their columns is near."


def _messages(values: Sequence[Any], where: str) -> list[Turn]:
    return [_turn(value, *_KEYS["messages"], f"{where}, turn {n + 1}") for n, value in enumerate(values)]


def _sharegpt(values: Sequence[Any], where: str) -> list[Turn]:
    return [_turn(value, *_KEYS["sharegpt"], f"{where}, turn {n + 1}") for n, value in enumerate(values)]


def _texts(values: Sequence[Any], where: str) -> list[Turn]:
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise UserError(place=f"{where}, turn {number + 1}", value=value, expected="a text")
    return [
        Turn("assistant", value, loss=True) if number % 2 else Turn("user", value)
        for number, value in enumerate(values)
    ]


_LIST_READERS: Mapping[FormatName, Callable[[Sequence[Any], str], list[Turn]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "texts": _texts,
}


def _turn(value: Any, role_key: str, text_key: str, where: str) -> Turn:
    if not isinstance(value, dict) or role_key not in value or text_key not in value:
        raise UserError(
            f"is {_shown(value)}",
            place=where,
            value=value,
            expected=f"an object with {role_key!r} and {text_key!r}",
        )
    given = value[role_key]
    role = ROLES.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        raise UserError(
            f"the role {_shown(given)} has no place in a template",
            place=f"{where}, {role_key!r}",
            value=given,
            expected=f"one of {', '.join(ROLES)}",
            advice="leave such rows out, or rewrite them without it.",
        )
    content = value[text_key]
    if isinstance(content, list):
        content = _parts(content, f"{where}, {text_key!r}")
    if not isinstance(content, str):
        raise UserError(place=f"{where}, {text_key!r}", value=content, expected="a text")
    trained = value.get("weight") not in (0, 0.0) and value.get("train") is not False
    return Turn(role, content, loss=role == "assistant" and trained)


def _parts(parts: Sequence[Any], where: str) -> str:
    """OpenAI's list of parts as one text."""
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise UserError(f"is {_shown(part)}", place=where, value=part, expected="parts of type text")
    return "".join(part["text"] for part in parts)


def _list(row: Mapping[str, Any], column: str, where: str) -> Sequence[Any]:
    value = row.get(column)
    if not isinstance(value, list):
        raise UserError(
            f"is {_shown(value)}", place=located(where).of(column), value=value, expected="a list of turns"
        )
    return value


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    """The text of a column; null, which tables have for no text, is an empty one."""
    value = row.get(column)
    if value is None and column in row:
        return ""
    if not isinstance(value, str):
        if column not in row:
            raise UserError(
                f"lacks the field {column!r}, which the first row has",
                place=where,
                value=column,
                advice=f"its fields are {_listed(row)}.",
            )
        raise UserError(
            f"is {_shown(value)}", place=located(where).of(column), value=value, expected="a text"
        )
    return value


def _optional_text(row: Mapping[str, Any], column: str | None, where: str) -> str:
    return "" if column is None or column not in row else _text(row, column, where).strip()


def _listed(columns: Iterable[str]) -> str:
    names = [name if len(name) <= 40 else name[:40] + "..." for name in columns]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _shown(value: Any) -> str:
    kind = {dict: "an object", list: "a list", type(None): "null"}.get(type(value))
    if kind == "an object" and value:
        return f"an object with {_listed(map(str, value))}"
    if kind == "a list" and value:
        return f"a list of {_shown(value[0]) if not isinstance(value[0], list) else 'lists'}"
    text = repr(value)
    return kind or (text if len(text) <= 60 else text[:60] + "...")
