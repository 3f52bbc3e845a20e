"""The record that every format becomes: a conversation of turns, some of which carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from sftlab.errors import UserError

Role = Literal["system", "user", "assistant"]


class UnusableError(UserError):
    """A row that is well-formed and yet no example; `reason` is a few words to count such rows by."""

    def __init__(self, problem: str, reason: str = "", **parts: Any) -> None:
        super().__init__(problem, **parts)
        self.reason = reason


@dataclass(frozen=True)
class Turn:
    """One text of one role. `loss` marks the responses that are trained."""

    role: Role
    text: str
    loss: bool = False


@dataclass(frozen=True)
class Conversation:
    """At most one system turn, then user and assistant in turn.

    `where` is the file and row it was read from. Two conversations with the same turns are equal, wherever they
    were read.
    """

    turns: tuple[Turn, ...]
    where: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """Stable id: the first 32 hex digits of a SHA-256 of roles, texts and loss."""
        parts = "".join(f"{t.role}\x1f{int(t.loss)}\x1f{len(t.text)}\x1f{t.text}" for t in self.turns)
        return sha256(parts.encode()).hexdigest()[:32]

    @property
    def system(self) -> str:
        """Text of the system turn; empty where there is none."""
        return self.turns[0].text if self.turns and self.turns[0].role == "system" else ""

    @property
    def dialogue(self) -> tuple[Turn, ...]:
        """The turns without the system turn."""
        return self.turns[1:] if self.system else self.turns

    @property
    def prompt(self) -> str:
        """Text of the first user turn."""
        return self.dialogue[0].text

    @property
    def characters(self) -> int:
        return sum(len(turn.text) for turn in self.turns)


def exchange(prompt: str, response: str, system: str = "", where: str = "") -> Conversation:
    """A conversation of one prompt and one response, which is trained."""
    turns = [Turn("user", prompt), Turn("assistant", response, loss=True)]
    return Conversation((*([Turn("system", system)] if system else []), *turns), where)


def question(prompt: str, shots: Sequence[tuple[str, str]] = (), system: str = "") -> Conversation:
    """A conversation that waits for its response: `shots` are earlier exchanges, without loss."""
    turns = [Turn("system", system)] if system else []
    for asked, answered in shots:
        turns += [Turn("user", asked), Turn("assistant", answered)]
    return Conversation((*turns, Turn("user", prompt)))


def checked(turns: Sequence[Turn], where: str) -> Conversation:
    """Turns as a conversation to train on: texts stripped, empty system turns and turns after the last loss left out.

    Raises UnusableError naming `where` and the turn for an empty text, a conversation that starts with the
    assistant or ends with the user, two turns of one role in succession, and one without a trained response.
    """
    stripped = [replace(turn, text=turn.text.strip()) for turn in turns]
    kept = [turn for turn in stripped if turn.text or turn.role != "system"]
    dialogue = kept[1:] if kept and kept[0].role == "system" else kept
    if not dialogue:
        raise UnusableError("has no turns", "no turns", place=where, expected="a prompt and a response")
    for number, turn in enumerate(dialogue):
        expected = "assistant" if number % 2 else "user"
        if turn.role != expected:
            raise UnusableError(
                f"turn {number + 1} is of the {turn.role}",
                "roles that do not alternate",
                place=where,
                value=turn.role,
                expected=f"the {expected}, as user and assistant alternate and the user begins",
                advice="correct the row or set `unusable: drop`.",
            )
        if not turn.text:
            name = "prompt" if turn.role == "user" else "response"
            raise UnusableError(
                f"the {name} of turn {number + 1} is empty",
                f"empty {name}",
                place=where,
                value=turn.text,
                advice="give a text, or set `unusable: drop` to leave such rows out.",
            )
    if dialogue[-1].role == "user":
        raise UnusableError(
            f"the conversation ends with the user ({_short(dialogue[-1].text)}), so that its last turn has no "
            "response to train",
            "ends with the user",
            place=where,
            value=dialogue[-1].text,
            advice="remove that turn, or set `unusable: drop` or `turns: first`.",
        )
    last = max((number for number, turn in enumerate(kept) if turn.loss), default=None)
    if last is None:
        raise UnusableError(
            "no response is trained",
            "no trained response",
            place=where,
            advice="give one a weight above 0.",
        )
    return Conversation(tuple(kept[: last + 1]), where)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
