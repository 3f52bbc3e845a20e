"""From rendered text to token ids and the tokens that carry loss.

The characters of a span become tokens by one rule: the ids of the text up to a border must be the beginning of the ids
of the whole text. Then the ids that a model sees when it is asked are those that it was trained after. Offsets that a
tokenizer reports could not prove this, as many leave out the blank in front of a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from sftlab.datasets.conversations import Conversation
from sftlab.datasets.rendered import Rendered, Specials, Template
from sftlab.errors import UserError

BATCH = 256  # conversations that a tokenizer takes at once
SHOWN = 24  # characters of a message on each side of a border


@dataclass(frozen=True)
class Encoded:
    """Token ids, which of them are trained, and which of these close a response."""

    ids: tuple[int, ...]
    loss: tuple[bool, ...]
    closing: tuple[bool, ...]

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the first trained one."""
        return self.loss.index(True)

    @property
    def trained(self) -> int:
        """Number of trained tokens, closing tokens included."""
        return sum(self.loss)


@dataclass(frozen=True)
class Encoder:
    """One tokenizer and one template. `name` is how messages call the tokenizer."""

    tokenizer: Any
    template: Template
    name: str
    specials: Specials = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "specials", Specials.of(self.tokenizer, self.name))

    def encode(self, conversation: Conversation) -> Encoded:
        """Ids and loss of one conversation. Raises UserError as `encode_all`."""
        return next(self.encode_all([conversation]))

    def encode_all(self, conversations: Iterable[Conversation]) -> Iterator[Encoded]:
        """Ids and loss of conversations, in their order.

        Raises UserError naming the example, the token and the text where a token covers the end of a prompt and
        the beginning of a response, where a text holds a special token, and where the closing token is not read
        as one.
        """
        rest = iter(conversations)
        while batch := list(islice(rest, BATCH)):
            for conversation in batch:
                self._check_specials(conversation)
            rendered = [self.template.render(conversation) for conversation in batch]
            # Every text, and every text up to each of its borders.
            texts = [
                part for one in rendered for part in (one.text, *(one.text[:at] for at in _borders(one)))
            ]
            ids = iter(self._ids(texts))
            for conversation, one in zip(batch, rendered, strict=True):
                whole = next(ids)
                upto = {at: next(ids) for at in _borders(one)}
                yield self._encoded(conversation, one, whole, upto)

    def encode_prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """Ids of a conversation that waits for its response. Raises UserError where a text holds a special token."""
        self._check_specials(conversation)
        rendered = self.template.render_prompt(conversation)
        return (*self._first(rendered), *self._ids([rendered.text])[0])

    def length(self, conversation: Conversation) -> int:
        """Tokens of the whole conversation, without proof of its borders."""
        rendered = self.template.render(conversation)
        return len(self._first(rendered)) + len(self._ids([rendered.text])[0])

    def _encoded(
        self, conversation: Conversation, rendered: Rendered, whole: list[int], upto: dict[int, list[int]]
    ) -> Encoded:
        upto[len(rendered.text)] = whole
        first = self._first(rendered)
        loss, closing = [False] * len(whole), [False] * len(whole)
        for span in rendered.spans:
            for at in (span.start, span.end):
                if whole[: len(upto[at])] != upto[at]:
                    raise self._straddled(conversation, rendered.text, at, whole, upto[at])
            start, end = len(upto[span.start]), len(upto[span.end])
            token = rendered.text[span.close : span.end]
            if end <= start or whole[end - 1] != self.tokenizer.convert_tokens_to_ids(token):
                raise UserError(
                    f"the tokenizer does not read {token!r}, which ends a response, as one token",
                    place=self.name,
                    value=token,
                    advice="mark it as special in tokenizer.json and tokenizer_config.json.",
                )
            loss[start:end] = [True] * (end - start)
            closing[end - 1] = True
        before = (False,) * len(first)
        return Encoded((*first, *whole), (*before, *loss), (*before, *closing))

    def _straddled(
        self, conversation: Conversation, text: str, at: int, whole: Sequence[int], upto: Sequence[int]
    ) -> UserError:
        number = next(
            (k for k, (a, b) in enumerate(zip(whole, upto, strict=False)) if a != b), len(whole) - 1
        )
        token = self.tokenizer.convert_ids_to_tokens(whole[number])
        alone = self.tokenizer.convert_ids_to_tokens(upto[number]) if number < len(upto) else None
        before, after = text[max(0, at - SHOWN) : at], text[at : at + SHOWN]
        return UserError(
            (
                f"the tokenizer of {self.name} reads over the border between {before!r} and "
                f"{after!r}: its token {token!r} has text of both, and without what follows it reads "
                f"{alone!r} there. A model would be asked with other tokens than it was trained "
                "after. End the prompt of the template with a line break or a sign that does not "
                "merge with the response"
            ),
            place=conversation.where or "example",
            value=before,
        )

    def _first(self, rendered: Rendered) -> tuple[int, ...]:
        return (self.tokenizer.bos_token_id,) if rendered.bos else ()

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        except Exception as error:  # tokenizers raises bare Exceptions; the cause stays attached
            raise UserError(
                f"the tokenizer cannot read a text ({error})", place=self.name, advice="use another."
            ) from error
        return [list(ids) for ids in found]

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.specials.all)))

    def _check_specials(self, conversation: Conversation) -> None:
        if self.template.may_hold_specials:
            return
        for number, turn in enumerate(conversation.turns):
            if found := self._special.search(turn.text):
                raise UserError(
                    (
                        f"turn {number + 1} ({turn.role}) holds {found[0]!r}, which the tokenizer of "
                        f"{self.name} reads as a special token and not as text"
                    ),
                    place=conversation.where or "example",
                    value=found[0],
                    advice="change the text or remove the example.",
                )


def _borders(rendered: Rendered) -> list[int]:
    """Where spans begin and end, but for the end of the text, each once and in rising order."""
    found = {at for span in rendered.spans for at in (span.start, span.end)}
    return sorted(found - {len(rendered.text)})
