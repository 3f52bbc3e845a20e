"""The one exception type that is shown to users without a traceback, and the exit codes of the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

SHOWN = 200  # characters of a wrong value

# All up to the last @ of an address, as a password may contain slashes, and a query's secret_key=...
# An @ of the path is none of a password: a machine with its port comes before it (loopback, IPv4, IPv6), or no colon.
_MACHINE = r"(?:localhost|\d+(?:\.\d+){3}|\[[^\s'\"\]@]*\])(?::\d+)?[/?#]"
_PATH_ALONE = r"(?:(?!%3a)[^\s'\":@])*/(?:(?!%3a)[^\s'\":])*(?=[\s'\"]|$)"
_PASSWORD = re.compile(rf"(\w://)(?!{_MACHINE}|{_PATH_ALONE})[^\s'\"]*@", re.IGNORECASE)
# What is in the place of a port and is no number and no placeholder, such as PORT, <port> or ${PORT}: a password that
# contains slashes or lacks its @.
_PORT = r"\d+\b|[<{$]{0,2}port[>}]?(?![\w@%])"
_NO_PORT = re.compile(rf"(\w://[^\s/:@\[]+:)(?!{_PORT})[^\s'\"]+", re.IGNORECASE)
_QUERY = re.compile(r"([?&][\w.-]*(?:key|secret|token|password|signature)[\w.-]*=)[^&\s'\"]+", re.IGNORECASE)


class ExitCode(IntEnum):
    """How a command ends. `docs/command-line.md` lists the codes."""

    SUCCESS = 0
    DEFECT = 1  # of sftlab or of a library: a traceback
    USER_ERROR = 2
    INTERRUPTED = 130


@dataclass(frozen=True)
class Place:
    """Where an error is: a file (or an option, an address, a folder), a row in it, and a field of the row.

    unit: what rows are called; "key" for a key of a document, such as sft.epochs of a study file, which has no rows.
    """

    file: str
    row: int | None = None
    field: str | None = None
    unit: str = "row"

    def of(self, field: str) -> Place:
        """A field of this place."""
        return replace(self, field=field)

    def __str__(self) -> str:
        if self.unit == "key" and self.field is not None:
            return f"{self.file}: {self.field}"
        row = "" if self.row is None else f", {self.unit} {self.row}"
        field = "" if self.field is None else f", field {self.field!r}"
        return f"{self.file}{row}{field}"


_ROW = re.compile(r"(.+), (row|line|topic) (\d+)")


def located(text: str) -> Place:
    """The place that a text names, such as 'a.jsonl, line 3'; else a file."""
    found = _ROW.fullmatch(text)
    return Place(text) if found is None else Place(found[1], int(found[3]), unit=found[2])


class UserError(Exception):
    """Something that the user can fix: a wrong file, field, size or address.

    The message names the file, row or field, what was expected and what to do.
    The command line prints it alone and exits with code 2. As it ends in terminals and in logs of jobs, passwords of
    addresses that it repeats are masked.

    Attributes:
        problem: what is wrong; may be empty where `expected` says it.
        place: the file, row and field; given as a Place, or as a path, an address or an option.
        value: the wrong value; None where there is none.
        expected: what was expected instead.
        advice: what to do.
        others: further errors that were found in the same document; each has a line of the message.

    The message is `PLACE: PROBLEM; expected EXPECTED; ADVICE`. A value is part of it where there is no problem:
    `PLACE: expected EXPECTED, found VALUE; ADVICE`.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        place: object = None,
        value: object = None,
        expected: str = "",
        advice: str = "",
        others: Sequence[UserError] = (),
    ) -> None:
        self.place: Place | None = None
        self.problem, self.value, self.expected, self.advice = problem, value, expected, advice
        if place is not None:
            self.place = place if isinstance(place, Place) else located(str(place))
        self.others = tuple(others)
        super().__init__("\n".join([self._rendered(), *(error.args[0] for error in self.others)]))

    def _rendered(self) -> str:
        wanted = f"expected {self.expected}" if self.expected else ""
        if self.expected and not self.problem:
            wanted += f", found {_shown(self.value)}"
        *parts, last = [part for part in (self.problem, wanted, self.advice) if part] or [""]
        text = "; ".join([*(_without_stop(part) for part in parts), last])
        if self.place is None:
            return text
        place = self.place
        if place.unit == "key" and repr(place.field) in self.problem:
            place = Place(place.file)  # a key is named once
        return f"{place}: {text}{'' if text.endswith(('.', '?', '!', ')')) else '.'}"

    def __str__(self) -> str:
        masked = _NO_PORT.sub(r"\1***", _PASSWORD.sub(r"\1***@", super().__str__()))
        return _QUERY.sub(r"\1***", masked)


def _without_stop(part: str) -> str:
    return part if part.endswith("..") else part.removesuffix(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def within(where: str, error: UserError) -> UserError:
    """An error with what it belongs to before its place, such as the strategy whose settings are wrong."""
    place = where if error.place is None else replace(error.place, file=f"{where}: {error.place.file}")
    return UserError(
        error.problem,
        place=place,
        value=error.value,
        expected=error.expected,
        advice=error.advice,
        others=error.others,
    )


def joined(errors: Sequence[UserError]) -> UserError:
    """Errors of one document as one: the first, with the others in its `others`."""
    first, *others = errors
    return UserError(
        first.problem,
        place=first.place,
        value=first.value,
        expected=first.expected,
        advice=first.advice,
        others=others,
    )
