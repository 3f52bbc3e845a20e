"""What a data set is made of: its file, how its rows are read, how examples are drawn and rendered."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from sftlab.config.frozen import Frozen

FormatName = Literal["messages", "sharegpt", "texts", "alpaca", "flan", "prompt-response"]
FormatChoice = Literal["auto", "messages", "sharegpt", "texts", "alpaca", "flan", "prompt-response"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)


class ColumnSpec(Frozen):
    """Custom column names: either `messages`, or `prompt` and `response` with optional `input` and `system`."""

    prompt: str | None = Field(default=None, description="Column of the instruction or question.")
    response: str | None = Field(default=None, description="Column of the answer, which is trained.")
    input: str | None = Field(default=None, description="Column of more text, put after the prompt.")
    system: str | None = Field(default=None, description="Column of the system text.")
    messages: str | None = Field(default=None, description="Column of a whole conversation.")

    @model_validator(mode="after")
    def _fits_together(self) -> ColumnSpec:
        pair = self.prompt is not None and self.response is not None
        if pair == (self.messages is not None):
            raise ValueError("name either prompt and response, or messages")
        if self.messages is not None and (self.prompt or self.response or self.input):
            raise ValueError(
                "messages holds whole conversations; prompt, response and input do not go with it"
            )
        return self


class DataFileSpec(Frozen):
    """One file of examples and how its rows become conversations."""

    source: str = Field(description="File: .jsonl, .ndjson, .json (each also .gz) or .parquet.")
    format: FormatChoice = Field(
        default="auto", description="Format of the rows; auto finds it by the columns."
    )
    columns: ColumnSpec | None = Field(default=None, description="Custom column names in place of a format.")
    turns: Literal["first", "all"] = Field(
        default="all", description="The first exchange of a conversation, or all of them."
    )
    where: dict[str, tuple[str | int | bool, ...]] = Field(
        default_factory=dict, description="Keep rows whose column has one of these values."
    )
    drop_responses: tuple[str, ...] | None = Field(
        default=None,
        description="Leave out rows with one of these responses, in any letter case; null is the format's default.",
    )
    system: Literal["keep", "prepend", "drop"] = Field(
        default="keep",
        description="System text: its place in the template, before the first prompt, or nowhere.",
    )
    unusable: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="Rows that are no conversation, such as one with an empty response: an error, or left out.",
    )
    group: str | None = Field(default=None, description="Label for reports, such as general or maths.")

    @model_validator(mode="after")
    def _fits_together(self) -> DataFileSpec:
        pair = self.columns is not None and self.columns.messages is None
        if pair and self.format not in ("auto", "prompt-response"):
            raise ValueError("columns names prompt and response; leave format out")
        whole = self.columns is not None and self.columns.messages is not None
        if whole and self.format not in ("auto", "messages", "sharegpt", "texts"):
            raise ValueError("columns names messages; format must be messages, sharegpt, texts or left out")
        return self


class DrawSpec(Frozen):
    """Which examples of a data set are trained on."""

    seed: int = Field(default=0, ge=0, description="Seed of the draw; draws of one seed are nested.")
    max_tokens: int | None = Field(
        default=None, ge=2, description="Leave out examples that are longer under any tokenizer of `fit`."
    )
    fit: tuple[str, ...] = Field(
        default=(), description="Names of the bases whose tokenizers measure the length."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> DrawSpec:
        if (self.max_tokens is None) != (not self.fit):
            raise ValueError(
                "max_tokens and fit go together: a length in tokens needs tokenizers, and these a length"
            )
        return self


class JinjaTemplate(Frozen):
    """A template of the user's: Jinja text with {{ instruction }} and {{ response }}, or with `messages`."""

    jinja: str = Field(min_length=1, max_length=2**16, description="Text of the template.")


TemplateSpec = Literal["paper", "chat", "text"] | JinjaTemplate
