"""What every template takes and returns: a conversation's text, its trained spans, and the special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sftlab.datasets.conversations import Conversation
from sftlab.errors import UserError


@dataclass(frozen=True)
class Span:
    """Characters of one trained response: [start, end), of which [close, end) is the closing token."""

    start: int
    close: int
    end: int


@dataclass(frozen=True)
class Rendered:
    """A text, its trained spans in rising order, and whether the beginning-of-sequence token comes before it."""

    text: str
    spans: tuple[Span, ...]
    bos: bool


class Template(Protocol):
    """Renders conversations for one tokenizer."""

    @property
    def name(self) -> str:
        """paper, chat, text or jinja."""
        ...

    @property
    def may_hold_specials(self) -> bool:
        """Whether the texts of a conversation may hold special tokens."""
        ...

    def render(self, conversation: Conversation) -> Rendered:
        """The whole conversation with the characters of its trained responses."""
        ...

    def render_prompt(self, conversation: Conversation) -> Rendered:
        """A conversation that ends with the user, up to where the response begins; no spans."""
        ...


@dataclass(frozen=True)
class Specials:
    """The special tokens of a tokenizer as text. Without a tokenizer there are none, and nothing is closed."""

    eos: str = ""
    all: tuple[str, ...] = ()
    bos: str = ""

    @property
    def has_bos(self) -> bool:
        return bool(self.bos)

    @classmethod
    def of(cls, tokenizer: Any, name: str) -> Specials:
        """Raises UserError for a tokenizer without an end-of-sequence token."""
        if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
            raise UserError(
                (
                    "the tokenizer has no end-of-sequence token, so that a model could not learn where a "
                    "response ends"
                ),
                place=name,
                advice="name one as eos_token in its tokenizer_config.json.",
            )
        added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        found = dict.fromkeys([str(tokenizer.eos_token), *added, *map(str, tokenizer.all_special_tokens)])
        return cls(
            str(tokenizer.eos_token),
            tuple(sorted(found, key=len, reverse=True)),
            str(tokenizer.bos_token or ""),
        )

    def at_start(self, text: str) -> str:
        """The longest special token that a text begins with; empty where there is none."""
        return next((token for token in self.all if text.startswith(token)), "")

    def at_end(self, text: str) -> str:
        """The longest special token that a text ends with; empty where there is none."""
        return next((token for token in self.all if text.endswith(token)), "")
