"""The chat template of a tokenizer, with the characters that are trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sftlab.datasets.conversations import Conversation, Turn
from sftlab.datasets.rendered import Rendered, Span, Specials
from sftlab.errors import UserError

# Some templates write today's date into the system text; the ids of an example must not depend on the day.
DATE = datetime(2024, 7, 26)


@dataclass(frozen=True)
class ChatTemplate:
    """Renders as `apply_chat_template` does, and proves where each response is.

    The conversation is rendered whole, up to every trained response with the generation prompt, and up to its end. Each
    of these must be the beginning of the next; the response is then what is between them.
    """

    name: str
    tokenizer: Any
    tokenizer_name: str
    specials: Specials
    text: str | None = None  # in place of the tokenizer's
    may_hold_specials: ClassVar[bool] = False

    def render(self, conversation: Conversation) -> Rendered:
        turns = conversation.turns
        last = max(number for number, turn in enumerate(turns) if turn.loss)
        whole = self._apply(turns[: last + 1])
        spans = [self._span(turns, number, whole) for number in range(last + 1) if turns[number].loss]
        return Rendered(whole[: spans[-1].end], tuple(spans), False)

    def render_prompt(self, conversation: Conversation) -> Rendered:
        return Rendered(self._prompt(conversation.turns), (), False)

    def _prompt(self, turns: Sequence[Turn]) -> str:
        return self._apply(turns, add_generation_prompt=True).rstrip(" ")

    def _span(self, turns: Sequence[Turn], number: int, whole: str) -> Span:
        prompt, upto = self._prompt(turns[:number]), self._apply(turns[: number + 1])
        if not (whole.startswith(upto) and upto.startswith(prompt)):
            raise self._refused(
                f"writes the text up to turn {number + 1} in another way where that turn or others follow",
                "use `turns: first`, or template paper.",
            )
        response = upto[len(prompt) :]
        if turns[number].text.strip() not in response:
            raise self._refused(
                f"changes or leaves out the text of turn {number + 1} ({turns[number].text[:40]!r})",
                "use template paper, or a Jinja text that writes responses as they are.",
            )
        closing = self._closing(response)
        if closing is None:
            raise self._refused(
                "does not end a response with a special token, so that a model could not learn where to stop",
                "use template paper, or give a Jinja text that writes the end-of-sequence token after each response.",
            )
        return Span(len(prompt), len(prompt) + closing[0], len(prompt) + closing[1])

    def _closing(self, response: str) -> tuple[int, int] | None:
        """Where the first of the special tokens that end a response begins and ends."""
        tokens = "|".join(map(re.escape, self.specials.all))
        found = re.search(rf"({tokens})(?:\s|{tokens})*\Z", response)
        return found.span(1) if found else None

    def _apply(self, turns: Sequence[Turn], add_generation_prompt: bool = False) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.text,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    strftime_now=DATE.strftime,
                )
            )
        except Exception as error:  # whatever a template from outside raises, and its own refusals
            reason = " ".join(str(error).split())[:200]
            system = turns and turns[0].role == "system"
            way_out = "set `system: prepend` or `system: drop`, or use" if system else "use"
            raise self._refused(
                f"cannot render a conversation ({type(error).__name__}: {reason})",
                f"{way_out} template paper.",
            ) from error

    def _refused(self, what: str, way_out: str) -> UserError:
        owner = f"the chat template of {self.tokenizer_name}" if self.text is None else "template"
        return UserError(what, place=owner, advice=way_out)
