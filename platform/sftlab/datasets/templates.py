"""One template renders training examples, perplexity texts, choices and benchmark questions.

Two methods, and the second is the beginning of the first: `render` gives the text of a conversation with the
characters that are trained, `render_prompt` the text of a conversation that waits for a response.

Decisions, made once:

- A trained span begins with the blanks (U+0020) that come directly before the response. Tokenizers put a blank into the
  token of the word after it, so a prompt that ends with a blank has another token there than the text goes on with.
- A trained span ends with the closing token: the special token that the template writes after the response, or the
  end-of-sequence token where it writes none. The text ends there too. Each trained response of a conversation is
  closed, also those in the middle.
- The beginning-of-sequence token comes first wherever the tokenizer has one (`Rendered.bos`). Chat templates write it
  themselves, or leave it out, and are taken at their word.
- Where a template has no place for a system text, it comes before the first prompt, after which a line breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sftlab.config.documents import nearest
from sftlab.datasets.conversations import Conversation, Turn
from sftlab.datasets.rendered import Rendered, Span, Specials, Template
from sftlab.datasets.spec import JinjaTemplate, TemplateSpec
from sftlab.errors import UserError

PAPER = "###Question: {instruction}\n###Answer: {response}"
VARIABLES = ("instruction", "response", "system")
MARKS = ("\ufdd0", "\ufdd1")  # noncharacters, which no text holds
MAX_TEMPLATE = 2**16  # characters of a template file

Pieces = Callable[[str, str, str], tuple[str, str]]
"""(instruction, response, system) -> the text before the response, and the text after it."""


@dataclass(frozen=True)
class ExchangeTemplate:
    """A template of one prompt and one response; the exchanges of a conversation follow one another, a line each."""

    name: str
    pieces: Pieces
    has_system: bool
    specials: Specials
    may_hold_specials: ClassVar[bool] = False

    def render(self, conversation: Conversation) -> Rendered:
        text, spans = "", []
        for instruction, response, system in self._exchanges(conversation):
            before, after = self.pieces(instruction, response.text, system)
            text = _joined(text, before)
            blanks = len(before) - len(before.rstrip(" "))
            start, text = len(text) - blanks, text + response.text
            close = len(text)
            closing = self.specials.at_start(after)
            text += closing or self.specials.eos
            if response.loss:
                spans.append(Span(start, close, len(text)))
            rest = after[len(closing) :]
            if rest.strip():
                raise UserError(
                    f"has the text {rest.strip()[:40]!r} after the response, which would be neither asked nor trained",
                    place=f"template {self.name}",
                    value=rest.strip(),
                    advice="end the template with {{ response }} or a special token.",
                )
            end, text = len(text), text + rest
        return Rendered(text[:end], tuple(spans), self.specials.has_bos)

    def render_prompt(self, conversation: Conversation) -> Rendered:
        *earlier, last = conversation.dialogue
        text = ""
        if earlier:
            system = conversation.turns[: len(conversation.turns) - len(conversation.dialogue)]
            rendered = self.render(Conversation((*system, *earlier)))
            text = rendered.text + self._rest(Conversation((*system, *earlier)))
        instruction = last.text if earlier else self._instruction(conversation, last.text)
        system_text = conversation.system if self.has_system and not earlier else ""
        before, _ = self.pieces(instruction, "?", system_text)
        return Rendered(_joined(text, before).rstrip(" "), (), self.specials.has_bos)

    def _rest(self, conversation: Conversation) -> str:
        """What the template writes after the closing token of the last response."""
        *_, (instruction, response, system) = self._exchanges(conversation)
        after = self.pieces(instruction, response.text, system)[1]
        return after[len(self.specials.at_start(after)) :]

    def _instruction(self, conversation: Conversation, prompt: str) -> str:
        folded = conversation.system and not self.has_system
        return f"{conversation.system}\n{prompt}" if folded else prompt

    def _exchanges(self, conversation: Conversation) -> Iterator[tuple[str, Turn, str]]:
        turns = conversation.dialogue
        for number in range(0, len(turns) - 1, 2):
            asked, answered = turns[number : number + 2]
            if number:
                yield asked.text, answered, ""
            else:
                system = conversation.system if self.has_system else ""
                yield self._instruction(conversation, asked.text), answered, system


@dataclass(frozen=True)
class TextTemplate:
    """The texts of a conversation as they are, one after another, for texts that were rendered before.

    A response that ends with a special token is closed by it, any other by the end-of-sequence token. The
    beginning-of-sequence token comes first unless the text begins with it.
    """

    specials: Specials
    name: ClassVar[str] = "text"
    may_hold_specials: ClassVar[bool] = True

    def render(self, conversation: Conversation) -> Rendered:
        text, spans = "", []
        for turn in conversation.turns:
            start, text = len(text.rstrip(" ")), text + turn.text
            if turn.role != "assistant":
                continue
            closing = self.specials.at_end(turn.text)
            close, text = len(text) - len(closing), text + ("" if closing else self.specials.eos)
            if turn.loss:
                spans.append(Span(start, close, len(text)))
        return Rendered(text[: spans[-1].end], tuple(spans), self._needs_bos(text))

    def render_prompt(self, conversation: Conversation) -> Rendered:
        *earlier, last = conversation.turns
        text = "".join(
            turn.text
            if turn.role != "assistant" or self.specials.at_end(turn.text)
            else turn.text + self.specials.eos
            for turn in earlier
        )
        text = (text + last.text).rstrip(" ")
        return Rendered(text, (), self._needs_bos(text))

    def _needs_bos(self, text: str) -> bool:
        return self.specials.has_bos and not text.startswith(self.specials.bos)


def _joined(text: str, following: str) -> str:
    """Two exchanges, with a line break between them where the template writes none."""
    return text + ("" if not text or text[-1].isspace() else "\n") + following


def make_template(spec: TemplateSpec, tokenizer: Any = None, name: str = "") -> Template:
    """The template of a spec for one tokenizer; `name` is how messages call the tokenizer.

    Without a tokenizer, for a look at texts, no response is closed.
    Raises UserError where the template lacks its variables or needs a tokenizer, and where this has no
    end-of-sequence token or no chat template.
    """
    from sftlab.datasets.chat import ChatTemplate

    specials = Specials() if tokenizer is None else Specials.of(tokenizer, name)
    if spec == "paper":
        return ExchangeTemplate("paper", _paper_pieces, False, specials)
    if spec == "text":
        return TextTemplate(specials)
    if spec != "chat":
        found = _variables(spec.jinja)
        if "messages" not in found:
            return ExchangeTemplate("jinja", _jinja_pieces(spec.jinja, found), "system" in found, specials)
    if tokenizer is None:
        raise UserError("is part of a tokenizer", place="template chat", advice="name a model with --model.")
    text = None if spec == "chat" else spec.jinja
    if text is None and not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template, as is usual for base models",
            place=name,
            advice="use template paper, or give the text of a template as Jinja.",
        )
    return ChatTemplate("chat" if text is None else "jinja", tokenizer, name, specials, text)


def read_template(word: str) -> TemplateSpec:
    """A template as the command line names it: paper, chat, text, or a file of Jinja text."""
    if word == "paper":
        return "paper"
    if word == "chat":
        return "chat"
    if word == "text":
        return "text"
    path = Path(word)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_TEMPLATE + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no UTF-8 text"
        if isinstance(error, OSError):
            reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise UserError(
            f"is no template ({reason})",
            place=word,
            advice=(
                "give paper, chat, text, or a file of Jinja text with {{ instruction }} and {{ response }}."
            ),
        ) from error
    if not 0 < len(text) <= MAX_TEMPLATE:
        raise UserError(
            f"has {len(text):,} characters", place=word, advice=f"a template has 1 to {MAX_TEMPLATE:,}."
        )
    return JinjaTemplate(jinja=text)


def _paper_pieces(instruction: str, _response: str, _system: str) -> tuple[str, str]:
    before, after = PAPER.split("{response}")
    return before.replace("{instruction}", instruction), after


def _environment() -> Any:
    """The settings of transformers' chat templates, so that a text means the same in both."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.loopcontrols"],
    )


def _variables(text: str) -> set[str]:
    """The variables of a template. Raises UserError where it lacks those that it must have, or has unknown ones."""
    from jinja2 import TemplateError, meta

    try:
        found: set[str] = meta.find_undeclared_variables(_environment().parse(text))
    except (TemplateError, RecursionError) as error:
        if "messages" in text:  # may use tags that chat templates alone have
            return {"messages"}
        raise UserError(f"is no Jinja text ({error})", place="template", advice="correct it.") from error
    if "messages" in found:
        return found
    for name in sorted(found - set(VARIABLES)):
        near = nearest(name, VARIABLES)
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(VARIABLES)}, or messages alone."
        raise UserError(f"unknown variable {name!r}", place="template", value=name, advice=hint)
    for name in VARIABLES[:2]:
        if name not in found:
            raise UserError(
                f"lacks the variable {{{{ {name} }}}}",
                place="template",
                advice=(
                    "a template has {{ instruction }} and {{ response }}, or renders `messages` as a "
                    "chat template."
                ),
            )
    return found


def _jinja_pieces(text: str, variables: Sequence[str] | set[str]) -> Pieces:
    """The pieces of a Jinja text, cut where marks around the response come out."""
    template = _environment().from_string(text)

    def rendered(instruction: str, response: str, system: str) -> str:
        values = {"instruction": instruction, "response": response, "system": system}
        try:
            return str(template.render({name: values[name] for name in VARIABLES if name in variables}))
        except Exception as error:  # whatever a template raises; the cause stays attached
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(
                f"cannot be rendered for {instruction[:40]!r} ({reason})",
                place="template",
                value=instruction[:40],
                advice="correct it.",
            ) from error

    def pieces(instruction: str, response: str, system: str) -> tuple[str, str]:
        first, last = MARKS
        marked = rendered(instruction, f"{first}{response}{last}", system)
        before, _, others = marked.partition(first)
        inside, _, after = others.partition(last)
        if marked.count(first) != 1 or inside != response:
            raise _changed()
        if not rendered(instruction, f"{first}?{last}", system).startswith(before + first):
            raise UserError(
                (
                    "writes the prompt in another way for another response, which is not known where a "
                    "model is asked"
                ),
                place="template",
                advice="let the text before {{ response }} depend on the instruction alone.",
            )
        if before + inside + after != rendered(instruction, response, system):
            raise _changed()
        return before, after

    return pieces


def _changed() -> UserError:
    return UserError(
        "changes the response or shows it more than once or not at all, so that the trained part cannot be located",
        place="template",
        advice="write {{ response }} once, without a filter.",
    )
