"""What the tokenizers of a survey's bases cannot read is refused before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.datasets.conversations import exchange
from sftlab.datasets.encode import Encoder
from sftlab.datasets.templates import make_template
from sftlab.studies.load import load_survey
from sftlab.studies.survey.check_texts import check_examples, check_template
from sftlab.studies.survey.runs import runs_of
from sftlab.studies.survey.spec import SurveySpec
from tests.support.refusals import refused
from tests.support.tokenizers_built import byte_level

CONFIGS = Path(__file__).parents[4] / "jobs/configs/surveys"
SHORT = exchange("a b", "c", where="one.jsonl, row 1")
LONG = exchange("a b", "c" * 80, where="one.jsonl, row 7")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{jinja: 'Q {{ prompt }}'}", r"unknown variable 'prompt'"),
        ("{jinja: 'Q {{ instruction }}'}", r"lacks the variable \{\{ response \}\}"),
        ("{jinja: 'Q {{ instruction '}", "is no Jinja text"),
        ("chat", "the tokenizers of pocket bases have none"),
    ],
)
def test_template_that_no_base_could_use_is_refused(template: str, message: str) -> None:
    with refused(message, place="template"):
        check_template(load_survey(CONFIGS / "tiny.yaml", [f"template={template}"]))


def test_word_that_is_no_template_is_answered_with_those_that_are() -> None:
    with refused(r"expected paper, chat, text or \{jinja: TEXT\}"):
        load_survey(CONFIGS / "tiny.yaml", ["template=papr"])


def survey(**draw: object) -> SurveySpec:
    return SurveySpec.model_validate(
        {
            "name": "s",
            "bases": {"folders": {"m": {"path": "nowhere", "family": "m"}}},
            "data": {"files": {"one": {"source": "one.jsonl"}}, "draw": draw},
            "benchmarks": {"files": {"b": {"source": "b.jsonl"}}},
            "sft": {"max_length": 64},
            "runs": [{"sizes": [1]}],
        }
    )


def checked(spec: SurveySpec, *examples: object) -> None:
    tokenizer = byte_level()
    encoder = Encoder(tokenizer, make_template("paper", tokenizer, "toy"), "toy")
    check_examples(spec, {"m": encoder}, runs_of(spec), list(examples))  # type: ignore[arg-type]


def test_example_that_is_too_long_to_train_is_refused_with_its_row() -> None:
    checked(survey(), SHORT)
    with refused(
        r"tokens under base m, and at most sft\.max_length = 64 are trained",
        place="one.jsonl, row 7",
        advice="raise sft.max_length, or leave such examples out",
    ):
        checked(survey(), SHORT, LONG)


def test_example_that_the_draw_leaves_out_is_not_refused() -> None:
    checked(survey(max_tokens=64, fit=["m"]), SHORT, LONG)
    with refused(r"data\.draw\.max_tokens is 500", place="row 7"):
        checked(survey(max_tokens=500, fit=["m"]), SHORT, LONG)


def test_special_token_in_an_example_is_refused_with_its_row() -> None:
    with refused("", place="one.jsonl, row 2"):
        checked(survey(), exchange("a </s> b", "c", where="one.jsonl, row 2"))
