"""Which facts, templates and prompts the first-token divergence is measured on."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sftlab.datasets.conversations import exchange
from sftlab.datasets.encode import Encoder
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from sftlab.facts.prompts import answer_target, prompt_ids, question_prompt
from sftlab.facts.templates import Topic
from sftlab.measurements.divergence_prompts import answers_near_start, best_templates, candidates

TOPICS = {
    "T": Topic(
        "T", "in-domain", "Where is {subject}?", ("{subject} lies in", "{subject} is in", "Find {subject} in")
    )
}


def row(fact_id: str, bucket: int | None, hits: list[int] | None, topic: str = "T") -> dict[str, Any]:
    return {"fact_id": fact_id, "topic": topic, "bucket": bucket, "hits": hits}


def fact(fact_id: str) -> dict[str, Any]:
    return {
        "fact_id": fact_id,
        "topic": "T",
        "subject": fact_id,
        "accepted": ["X"],
        "question": f"Where is {fact_id}?",
    }


def test_the_best_template_is_that_of_mastered_facts_alone_and_ties_go_to_the_first() -> None:
    rows = [row("a", 4, [8, 10, 9]), row("b", 4, [10, 9, 10]), row("c", 3, [0, 0, 10]), row("d", None, None)]
    assert best_templates(rows) == {"T": 1}  # 18, 19, 19


def test_a_topic_without_mastered_facts_has_no_template() -> None:
    assert best_templates([row("a", 3, [1, 2, 3])]) == {}


@pytest.mark.parametrize("same_prompt", [False, True])
def test_candidates_are_the_mastered_facts_with_both_prompts(same_prompt: bool) -> None:
    rows = [row("a", 4, [1, 9, 1]), row("b", 2, [9, 0, 0])]
    (found,) = candidates([fact("a"), fact("b")], rows, TOPICS, same_prompt)
    assert (found.fact_id, found.template, found.base_text) == ("a", 1, "a is in")
    assert found.tuned_text == ("a is in" if same_prompt else "<|question|> Where is a? <|answer|>")


def test_a_mastery_table_of_other_facts_is_refused() -> None:
    with pytest.raises(UserError, match="not the same rows"):
        candidates([fact("a")], [row("b", 4, [1, 1, 1])], TOPICS, False)


@pytest.mark.parametrize(
    ("completion", "near"),
    [
        (" Wales.", True),
        (" the Wales", True),
        ("  ‘Wales’", True),
        (" north of Wales", False),
        (" Wal", False),
    ],
)
def test_an_answer_is_near_the_start_if_it_begins_within_four_characters(completion: str, near: bool) -> None:
    assert answers_near_start(completion, ["Cymru", "Wales"], within=4) is near


def byte_level_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """The kind of Llama 3, GPT and the pocket model: a word's token holds the blank before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def sentencepiece_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """The kind of Llama 2: a blank is put before every text, and blanks are written as U+2581."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=["<s>", "</s>"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def first_token_after(tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> int:
    """The token that follows the prompt where prompt and answer are one text, as in pre-training."""
    before = prompt_ids(tokenizer, prompt)
    whole = prompt_ids(tokenizer, f"{prompt} {answer}")
    assert whole[: len(before)] == before
    return whole[len(before)]


@pytest.mark.parametrize("build", [byte_level_tokenizer, sentencepiece_tokenizer])
def test_the_first_answer_token_is_the_same_after_a_template_and_after_a_question(build: Any) -> None:
    template, question = "Ann was born in", question_prompt("Where was Ann born?")
    tokenizer = build([f"{template} Wales", f"{question} Wales "] * 20)
    after_template = first_token_after(tokenizer, template, "Wales")
    assert after_template == first_token_after(tokenizer, question, "Wales")
    assert tokenizer.convert_ids_to_tokens(after_template) in ("ĠWales", "▁Wales")
    encoder = Encoder(tokenizer, make_template("text", tokenizer, "m"), "m")
    trained = encoder.encode(exchange(question, answer_target("Wales")))
    assert trained.ids[trained.prompt_length] == after_template
