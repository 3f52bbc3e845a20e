"""Training sets as token ids: those of the knowledge study, those of other templates, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sftlab.datasets.conversations import Conversation, Turn, exchange
from sftlab.datasets.encode import Encoder
from sftlab.datasets.examples import examples_table
from sftlab.datasets.spec import TemplateSpec
from sftlab.datasets.templates import make_template
from sftlab.errors import UserError
from sftlab.studies.knowledge.stages.training_sets import with_texts
from sftlab.training.data import encode_file, read_examples
from sftlab.training.records import SFTRun
from sftlab.training.spec import SFTSpec
from tests.support.refusals import refused
from tests.support.tokenizers_built import CHATML, byte_level, merging, metaspace

FACTS = {
    "question": ["Where was Ann born?", "  Who wrote Zoë's 2nd book? ", "What is the capital of France?"],
    "object": ["Wales", " São Paulo ", "1,000 (a number)"],
}


def encoder(tokenizer: Any, template: TemplateSpec = "text") -> Encoder:
    return Encoder(tokenizer, make_template(template, tokenizer, "models/m"), "models/m")


def ids_of_the_study(tokenizer: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    """Ids and labels of Appendix A: bos, the prompt's ids, and what follows these in the ids of prompt and answer, eos.

    Written from the paper's text, apart from templates: one call of the tokenizer for each text.
    """
    prompt = f"<|question|> {question.strip()} <|answer|>"
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    both = tokenizer(f"{prompt} {answer.strip()} ", add_special_tokens=False)["input_ids"]
    assert both[: len(before)] == before
    target = [*both[len(before) :], tokenizer.eos_token_id]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [*start, *before, *target], [-100] * len([*start, *before]) + target


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "without bos", "characters"])
def test_facts_have_the_ids_and_labels_of_the_study(tmp_path: Path, kind: str) -> None:
    tokenizer = {
        "byte_level": byte_level,
        "metaspace": metaspace,
        "without bos": byte_level,
        "characters": lambda: merging("éã"),
    }[kind]()
    if kind == "without bos":
        tokenizer.bos_token = None
    pq.write_table(with_texts(pa.table(FACTS)), tmp_path / "t.parquet")
    examples, pad = encode_file(encoder(tokenizer), str(tmp_path / "t.parquet"), 400)
    pairs = zip(FACTS["question"], FACTS["object"], strict=True)
    wanted = [ids_of_the_study(tokenizer, question, answer) for question, answer in pairs]
    assert [(list(example.ids), example.labels) for example in examples] == wanted
    assert pad == tokenizer.eos_token_id


def test_a_token_over_the_border_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(with_texts(pa.table(FACTS)), tmp_path / "t.parquet")
    with refused(
        "the tokenizer of models/m reads over the border",
        place="t.parquet: row 0",
        value="was Ann born? <|answer|>",
    ) as e:
        encode_file(encoder(merging("> ")), str(tmp_path / "t.parquet"), 400)
    assert "its token '> ' has text of both" in str(e.value)


def test_a_too_long_example_is_an_error_that_names_file_row_and_texts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a", "abc"], "target": ["b", "d" * 70]}), tmp_path / "t.parquet")
    message = rf"t\.parquet: row 1: has 75 tokens.*max_length = 74 .*'abc' -> '{'d' * 60}\.\.\.'"
    with pytest.raises(UserError, match=message):
        encode_file(encoder(merging("xy")), str(tmp_path / "t.parquet"), 74)


def test_a_conversation_trains_all_its_responses_through_a_template(tmp_path: Path) -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b", True), Turn("user", "c"), Turn("assistant", "d", True))
    pq.write_table(examples_table([Conversation(turns)]), tmp_path / "t.parquet")
    tokenizer = merging("xy")
    ((example,), _) = encode_file(encoder(tokenizer, "paper"), str(tmp_path / "t.parquet"), 400)
    text = "<s>###Question: a\n###Answer:", " b</s>", "\n###Question: c\n###Answer:", " d</s>"
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in text]
    assert list(example.ids) == [token for part in parts for token in part]
    assert example.answer_tokens == len(parts[1]) + len(parts[3]) == 6
    assert [token for token in example.labels if token != -100] == [*parts[1], *parts[3]]


def test_texts_that_a_chat_template_rendered_before_have_its_ids(tmp_path: Path) -> None:
    tokenizer = byte_level(specials=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    by_chat = encoder(tokenizer, "chat").encode(exchange("Hi", "Yes."))
    rendered = make_template("chat", tokenizer, "m").render(exchange("Hi", "Yes."))
    (span,) = rendered.spans
    columns = {"prompt": [rendered.text[: span.start]], "target": [rendered.text[span.start : span.end]]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    ((example,), _) = encode_file(encoder(tokenizer), str(tmp_path / "t.parquet"), 400)
    assert list(example.ids) == [tokenizer.bos_token_id, *by_chat.ids]
    assert list(example.loss) == [0, *by_chat.loss]


def test_text_that_begins_with_the_beginning_of_the_sequence_has_it_once() -> None:
    tokenizer = byte_level()
    with_it = encoder(tokenizer).encode(exchange("<s>Hi", " yes"))
    assert with_it.ids == encoder(tokenizer).encode(exchange("Hi", " yes")).ids
    assert with_it.ids[0] == tokenizer.bos_token_id and with_it.ids[1] != tokenizer.bos_token_id


def test_runs_share_the_tokenizer_of_their_base_and_the_training_set_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    for file, answer in zip(files, (" Ab ", " Cd "), strict=True):
        pq.write_table(pa.table({"prompt": ["Q?"], "target": [answer]}), file)
    loaded: list[str] = []

    def load(base: str) -> Any:
        loaded.append(base)
        return merging("xy")

    monkeypatch.setattr("sftlab.training.data.load_tokenizer", load)

    def run(base: str, file: str, **spec: float) -> SFTRun:
        return SFTRun("r", str(tmp_path / base), file, str(tmp_path / "out"), SFTSpec(**spec))

    runs = [
        run("m", files[0]),
        run("m", files[0], learning_rate=1e-3),
        run("m", files[1]),
        run("n", files[0]),
    ]
    first, same, other, elsewhere = read_examples(runs)
    assert loaded == [str(tmp_path / "m"), str(tmp_path / "n")]
    assert first[0] is same[0] and first == elsewhere and first != other
    assert first[0] == encode_file(encoder(merging("xy")), files[0], 99)[0]
    with pytest.raises(UserError, match="max_length = 4"):
        read_examples([*runs, run("m", files[0], max_length=4)])
