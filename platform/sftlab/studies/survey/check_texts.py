"""Errors in what a survey trains and asks, as the tokenizers of its bases read it; found before anything is computed.

The first CHECKED examples of each set and questions of each benchmark are read. The stages check all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from sftlab.datasets.benchmark_file import read_benchmark, read_shots
from sftlab.datasets.conversations import Conversation, question
from sftlab.datasets.draw import within
from sftlab.datasets.encode import Encoder
from sftlab.datasets.source import open_data
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from sftlab.studies.survey.runs import Run, runs_of
from sftlab.studies.survey.spec import SurveySpec

CHECKED = 20


def check_template(spec: SurveySpec) -> None:
    """Raises UserError for a template that no base could use: without its variables, or a chat template of none."""
    if spec.template == "chat":
        if spec.bases.pocket:
            raise UserError(
                "chat is the template of a tokenizer, and the tokenizers of pocket bases have none",
                place="template",
                value="chat",
                advice="use template paper, or give Jinja text.",
            )
        return
    if isinstance(spec.template, str) or "messages" not in spec.template.jinja:
        make_template(spec.template)


def check_texts(spec: SurveySpec) -> None:
    """Raises UserError where a base in a folder cannot read what it is trained on or asked.

    A tokenizer without an end-of-sequence token or a chat template; a token over the border of prompt and response; a
    special token in a text; an example that is longer than sft.max_length and would not be left out.
    """
    from sftlab.inference.tokenizer_check import load_tokenizer

    encoders = {}
    for name, base in spec.bases.folders.items():
        tokenizer = load_tokenizer(base.path)
        encoders[name] = Encoder(tokenizer, make_template(spec.template, tokenizer, base.path), base.path)
    for file in spec.benchmarks.files.values():
        shots = read_shots(file) if file.shots else ()
        for row in read_benchmark(file)[:CHECKED]:
            for encoder in encoders.values():
                encoder.encode_prompt(question(row["question"], shots))
    runs = runs_of(spec)
    for name, data in spec.data.files.items():
        first = list(islice(open_data(data).conversations(), CHECKED))
        check_examples(spec, encoders, [run for run in runs if name in run.members], first)


def check_examples(
    spec: SurveySpec, encoders: Mapping[str, Encoder], runs: Sequence[Run], examples: Sequence[Conversation]
) -> None:
    """Raises UserError as `check_texts`, for examples of one set under the bases that the runs train on it."""
    draw = spec.data.draw
    fit = [encoders[base] for base in draw.fit if base in encoders]
    fits = None if draw.max_tokens is None else within(fit, draw.max_tokens)
    for base in dict.fromkeys(run.base for run in runs if run.base in encoders):
        longest = min(run.sft.max_length for run in runs if run.base == base)
        for example in examples:
            if fits is not None and not fits(example):
                continue
            tokens = len(encoders[base].encode(example).ids)
            if tokens > longest:
                left = "" if draw.max_tokens is None else f" (data.draw.max_tokens is {draw.max_tokens:,})"
                raise UserError(
                    f"has {tokens:,} tokens under base {base}, and at most sft.max_length = {longest:,} are trained"
                    f"{left}",
                    place=example.where,
                    value=tokens,
                    advice="raise sft.max_length, or leave such examples out: data.draw.max_tokens with data.draw.fit.",
                )
