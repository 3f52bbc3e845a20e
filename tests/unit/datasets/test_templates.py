"""Templates and encoding: characters and tokens that are trained, by hand; borders that no token may cross."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from sftlab.datasets.conversations import Conversation, Turn, exchange, question
from sftlab.datasets.encode import Encoder
from sftlab.datasets.rendered import Rendered, Span
from sftlab.datasets.spec import JinjaTemplate
from sftlab.datasets.templates import make_template, read_template
from sftlab.errors import UserError
from tests.support.refusals import refused
from tests.support.tokenizers_built import CHATML, byte_level, merging, metaspace

PAPER_JINJA = JinjaTemplate(jinja="###Question: {{ instruction }}\n###Answer: {{ response }}")
TWO = Conversation(
    (
        Turn("system", "S"),
        Turn("user", "Add 1 and 2."),
        Turn("assistant", "3", loss=True),
        Turn("user", "And 4?"),
        Turn("assistant", "7", loss=True),
    ),
    "a.jsonl, row 1",
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('no system text here') }}{% endif %}{% endfor %}"
)
THINKS_LAST = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def chatty(template: str = CHATML) -> Any:
    tokenizer = byte_level(specials=["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = template
    return tokenizer


def encoder(tokenizer: Any, spec: Any = "paper") -> Encoder:
    return Encoder(tokenizer, make_template(spec, tokenizer, "models/m"), "models/m")


def trained(made: Encoder, conversation: Conversation) -> list[str]:
    """The trained tokens of each span, as text."""
    encoded = made.encode(conversation)
    tokens = made.tokenizer.convert_ids_to_tokens(list(encoded.ids))
    spans, before = [], False
    for token, loss in zip(tokens, encoded.loss, strict=True):
        if loss:
            spans.append(token) if not before else spans.append(spans.pop() + token)
        before = loss
    return spans


# ---------------------------------------------------------------- text and characters


def test_the_paper_s_template_begins_the_trained_part_with_the_blank_and_closes_it() -> None:
    rendered = make_template("paper", byte_level(), "m").render(exchange("Hi", "Yes."))
    assert rendered == Rendered("###Question: Hi\n###Answer: Yes.</s>", (Span(26, 31, 35),), bos=True)
    assert rendered.text[26:35] == " Yes.</s>"


def test_exchanges_follow_one_another_a_line_each_and_all_responses_are_closed() -> None:
    template = make_template("paper", byte_level(), "m")
    text = "###Question: S\nAdd 1 and 2.\n###Answer: 3</s>\n###Question: And 4?\n###Answer: 7</s>"
    spans = (Span(38, 40, 44), Span(75, 77, 81))
    assert template.render(TWO) == Rendered(text, spans, bos=True)
    assert [text[span.start : span.end] for span in spans] == [" 3</s>", " 7</s>"]
    asked = question("And 4?", [("Add 1 and 2.", "3")], "S")
    assert template.render_prompt(asked) == Rendered(text[:75], (), bos=True)


def test_responses_without_loss_are_written_and_not_marked() -> None:
    turns = (*TWO.turns[:2], Turn("assistant", "3"), *TWO.turns[3:])
    rendered = make_template("paper", byte_level(), "m").render(Conversation(turns))
    assert rendered.spans == (Span(75, 77, 81),)
    assert rendered.text == make_template("paper", byte_level(), "m").render(TWO).text


def test_without_a_tokenizer_texts_are_shown_and_nothing_is_closed() -> None:
    rendered = make_template("paper").render(exchange("Hi", "Yes."))
    assert rendered == Rendered("###Question: Hi\n###Answer: Yes.", (Span(26, 31, 31),), bos=False)
    with refused("is part of a tokenizer", place="template chat", advice="name a model with --model"):
        make_template("chat")


def test_the_paper_s_template_as_jinja_text_is_the_same() -> None:
    for tokenizer in (byte_level(), metaspace()):
        for conversation in (exchange("Hi", "Yes."), TWO):
            made = encoder(tokenizer, PAPER_JINJA)
            assert made.encode(conversation) == encoder(tokenizer).encode(conversation)
        assert made.encode_prompt(question("Hi")) == encoder(tokenizer).encode_prompt(question("Hi"))


def test_a_jinja_text_with_a_system_variable_gets_the_system_text_once() -> None:
    text = "{% if system %}{{ system }}\n\n{% endif %}Q: {{ instruction }}\nA: {{ response }}"
    template = make_template(JinjaTemplate(jinja=text), byte_level(), "m")
    assert template.render(TWO).text == "S\n\nQ: Add 1 and 2.\nA: 3</s>\nQ: And 4?\nA: 7</s>"
    assert template.render_prompt(question("q", (), "S")).text == "S\n\nQ: q\nA:"


def test_a_special_token_after_the_response_closes_it_in_place_of_the_end_of_sequence() -> None:
    text = "<|im_start|>user\n{{ instruction }}<|im_end|>\n<|im_start|>assistant\n{{ response }}<|im_end|>\n"
    tokenizer = chatty()
    rendered = make_template(JinjaTemplate(jinja=text + "\n"), tokenizer, "m").render(exchange("Hi", "Yes."))
    assert rendered.text.endswith("assistant\nYes.<|im_end|>")
    assert rendered.text[rendered.spans[0].close : rendered.spans[0].end] == "<|im_end|>"
    # The same conversation by the chat template: equal but for the beginning of the sequence.
    by_chat = encoder(tokenizer, "chat").encode(exchange("Hi", "Yes."))
    by_jinja = encoder(tokenizer, JinjaTemplate(jinja=text)).encode(exchange("Hi", "Yes."))
    assert by_jinja.ids == (tokenizer.bos_token_id, *by_chat.ids)
    assert by_jinja.loss[1:] == by_chat.loss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ instruction }}", "lacks the variable {{ response }}"),
        ("{{ response }}", "lacks the variable {{ instruction }}"),
        ("{{ instruction }} {{ respons }}", "unknown variable 'respons'; did you mean 'response'?"),
        ("{{ instruction }} {{ response }} {{ eos }}", "unknown variable 'eos'; known are instruction"),
        ("{{ instruction", "is no Jinja text"),
        ("{{ instruction }} {{ response | upper }}", "changes the response or shows it more than once"),
        (
            "{{ instruction }} {{ response }} {{ response }}",
            "changes the response or shows it more than once",
        ),
        ("{{ instruction }}{% if false %}{{ response }}{% endif %}", "changes the response"),
        (
            "{{ instruction }}{{ response | length }} {{ response }}",
            "writes the prompt in another way for another",
        ),
        ("{{ instruction }} {{ response }} END", "has the text 'END' after the response"),
        ("{{ instruction.__class__.__mro__ }} {{ response }}", "cannot be rendered"),
        ("{{ instruction / 0 }} {{ response }}", "cannot be rendered"),
    ],
)
def test_templates_whose_trained_part_is_not_plain_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_template(JinjaTemplate(jinja=text), byte_level(), "m").render(exchange("abc", "xyz"))
    assert message in str(caught.value)


def test_a_template_is_named_on_the_command_line_by_word_or_file(tmp_path: Any) -> None:
    (tmp_path / "t.jinja").write_text(PAPER_JINJA.jinja)
    assert read_template("paper") == "paper"
    assert read_template("chat") == "chat"
    assert read_template(str(tmp_path / "t.jinja")) == PAPER_JINJA
    (tmp_path / "empty").write_text("")
    (tmp_path / "bytes").write_bytes(b"\xff")
    for word, problem in (
        ("papr", r"^is no template \(there is no such file\)$"),
        (str(tmp_path), r"^is no template \(Is a directory\)$"),
        (str(tmp_path / "bytes"), r"^is no template \(it is no UTF-8 text\)$"),
    ):
        with refused(problem, place=word, advice="paper, chat, text, or a file"):
            read_template(word)
    with refused("has 0 characters", place="empty"):
        read_template(str(tmp_path / "empty"))


# ---------------------------------------------------------------- chat templates


def test_the_chat_template_s_text_is_that_of_transformers_up_to_the_last_closing_token() -> None:
    tokenizer = chatty()
    rendered = make_template("chat", tokenizer, "m").render(TWO)
    messages = [{"role": turn.role, "content": turn.text} for turn in TWO.turns]
    assert rendered.text + "\n" == tokenizer.apply_chat_template(messages, tokenize=False)
    assert [rendered.text[span.start : span.end] for span in rendered.spans] == ["3<|im_end|>", "7<|im_end|>"]
    assert not rendered.bos
    assert trained(encoder(tokenizer, "chat"), TWO) == ["3<|im_end|>", "7<|im_end|>"]


def test_blanks_that_a_chat_template_writes_around_the_response_are_trained() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = LLAMA2
    conversation = Conversation(TWO.turns[1:])
    rendered = make_template("chat", tokenizer, "m").render(conversation)
    text = "<s>[INST] Add 1 and 2. [/INST] 3 </s>[INST] And 4? [/INST] 7 </s>"
    assert rendered.text == text
    assert [text[span.start : span.end] for span in rendered.spans] == [" 3 </s>", " 7 </s>"]
    ids = encoder(tokenizer, "chat").encode(conversation).ids
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_chat_template_that_changes_earlier_turns_is_refused_for_these_and_used_for_one() -> None:
    tokenizer = chatty(THINKS_LAST)
    assert trained(encoder(tokenizer, "chat"), exchange("Hi", "Yes."))[0].startswith("<")
    with refused(
        "writes the text up to turn 3 in another way where that turn or others follow",
        place="the chat template of models/m",
        advice="use `turns: first`, or template paper",
    ):
        encoder(tokenizer, "chat").encode(TWO)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LLAMA2, "no system text here); set `system: prepend` or `system: drop`, or use template paper."),
        (CHATML.replace("m['content']", "m['content'] | upper"), "changes or leaves out the text of turn 3"),
        (CHATML.replace("'<|im_end|>'", "''"), "does not end a response with a special token"),
        ("{% for", "cannot render a conversation (TemplateSyntaxError"),
        ("{{ messages[0]['content'].__class__.__mro__ }}", "cannot render a conversation (SecurityError"),
    ],
)
def test_chat_templates_that_lose_the_response_are_refused(template: str, message: str) -> None:
    turns = tuple(Turn(t.role, t.text.replace("3", "three"), t.loss) for t in TWO.turns[:3])
    with pytest.raises(UserError) as caught:
        encoder(chatty(template), "chat").encode(Conversation(turns))
    assert message in str(caught.value)


def test_a_model_without_a_chat_template_says_so() -> None:
    with refused("the tokenizer has no chat template, as is usual for base models", place="models/m"):
        encoder(byte_level(), "chat")


def test_a_date_in_a_chat_template_is_the_same_on_every_day() -> None:
    tokenizer = chatty("{{ strftime_now('%d %b %Y') }}" + CHATML)
    assert make_template("chat", tokenizer, "m").render(TWO).text.startswith("26 Jul 2024<|im_start|>")


def test_a_users_jinja_text_with_messages_is_rendered_as_a_chat_template() -> None:
    tokenizer = chatty("{{ 'unused' }}")
    made = encoder(tokenizer, JinjaTemplate(jinja=CHATML))
    assert made.encode(TWO) == encoder(chatty(), "chat").encode(TWO)
    assert made.template.name == "jinja"


# ---------------------------------------------------------------- tokens


def test_tokens_and_loss_of_a_byte_level_tokenizer_by_hand() -> None:
    tokenizer = merging("Answer")
    encoded = encoder(tokenizer).encode(exchange("Hi", "No"))
    shown = tokenizer.convert_ids_to_tokens(list(encoded.ids))
    assert shown == ["<s>", *"###Question: Hi\n###", "Answer", ":", " ", "N", "o", "</s>"]
    assert encoded.loss == (*[False] * 22, True, True, True, True)
    assert encoded.closing == (*[False] * 25, True)
    assert (encoded.prompt_length, encoded.trained) == (22, 4)


@pytest.mark.parametrize("trim_offsets", [True, False])
def test_the_blank_belongs_to_the_response_whatever_offsets_the_tokenizer_reports(trim_offsets: bool) -> None:
    texts = ["###Question: What is it?\n###Answer: Paris"]
    made = encoder(byte_level(texts, trim_offsets=trim_offsets))
    assert trained(made, exchange("What is it?", "Paris")) == ["ĠParis</s>"]


def test_the_word_mark_of_sentencepiece_belongs_to_the_response() -> None:
    made = encoder(metaspace())
    assert trained(made, exchange("Add the numbers", "The sum is 3.")) == ["▁The▁sum▁is▁3.</s>"]


def test_a_token_over_the_border_is_refused_by_name_with_the_text_and_the_example() -> None:
    made = encoder(merging("A=Yes"), JinjaTemplate(jinja="Q={{ instruction }}\nA={{ response }}"))
    assert trained(made, exchange("Hi", "No")) == ["No</s>"]
    with pytest.raises(UserError) as caught:
        made.encode(exchange("Hi", "Yes, sure", where="a.jsonl, row 7"))
    assert str(caught.value) == (
        "a.jsonl, row 7: the tokenizer of models/m reads over the border between 'Q=Hi\\nA=' and 'Yes, sure</s>': its "
        "token 'A=Yes' has text of both, and without what follows it reads 'A=' there. A model would be asked with "
        "other tokens than it was trained after. End the prompt of the template with a line break or a sign that does "
        "not merge with the response."
    )


def test_a_tokenizer_that_reads_whole_sentences_is_refused_at_the_border() -> None:
    made = encoder(metaspace(split=False))
    with refused(
        "reads over the border between.*its token '.*Answer:▁' has text of both",
        value=" Add 1 and 2.\n###Answer:",
    ):
        made.encode(exchange("Add 1 and 2.", "It is 3."))


def test_a_base_without_an_end_of_sequence_token_is_refused() -> None:
    with refused("the tokenizer has no end-of-sequence token, so that a model could", place="models/m"):
        encoder(merging("ab", eos=None))


def test_a_special_token_in_a_text_is_refused_with_its_place() -> None:
    made = encoder(byte_level())
    for conversation, place in (
        (exchange("a </s> b", "x"), "turn 1 (user)"),
        (exchange("a", "x<s>"), "turn 2 (assistant)"),
        (exchange("a", "x", system="</s>"), "turn 1 (system)"),
    ):
        with pytest.raises(UserError) as caught:
            made.encode(conversation)
        assert f"example: {place} holds '<" in str(caught.value)
    with refused("holds '</s>', which the tokenizer of models/m reads as a special token"):
        made.encode_prompt(question("a </s> b"))


def test_a_special_token_that_swallows_the_blanks_after_it_is_no_obstacle() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(
        {
            "additional_special_tokens": [
                AddedToken(f"<|im_{part}|>", special=True, rstrip=True) for part in ("start", "end")
            ]
        }
    )
    tokenizer.chat_template = CHATML
    made = encoder(tokenizer, "chat")
    assert trained(made, TWO) == ["3<|im_end|>", "7<|im_end|>"]
    prompt = made.encode_prompt(question("And 4?", [("Add 1 and 2.", "3")], "S"))
    assert made.encode(TWO).ids[: len(prompt)] == prompt


def test_a_length_counts_the_tokens_that_are_trained_on() -> None:
    for tokenizer, spec in ((byte_level(), "paper"), (metaspace(), "paper"), (chatty(), "chat")):
        made = encoder(tokenizer, spec)
        assert made.length(TWO) == len(made.encode(TWO).ids)


TEXT = st.text(st.sampled_from("aB3.,:#?é東\n 🙂"), min_size=1, max_size=30).map(str.strip).filter(bool)
MADE = [
    encoder(byte_level()),
    encoder(metaspace()),
    encoder(chatty(), "chat"),
    encoder(byte_level(), PAPER_JINJA),
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.sampled_from(range(len(MADE))))
def test_what_a_model_is_asked_with_is_what_it_was_trained_after(
    pairs: list[tuple[str, str]], which: int
) -> None:
    made = MADE[which]
    turns = [turn for ask, say in pairs for turn in (Turn("user", ask), Turn("assistant", say, loss=True))]
    encoded = made.encode(Conversation(tuple(turns)))
    starts = [at for at in range(len(encoded.loss)) if encoded.loss[at] and not encoded.loss[at - 1]]
    assert len(starts) == len(pairs) == sum(encoded.closing)
    for number, start in enumerate(starts):
        prompt = made.encode_prompt(question(pairs[number][0], pairs[:number]))
        assert encoded.ids[:start] == prompt
        end = encoded.closing.index(True, start)
        assert all(encoded.loss[start : end + 1])
        if made.tokenizer.unk_token is None:
            assert made.tokenizer.decode(encoded.ids[start:end]).removeprefix(" ") == pairs[number][1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_many_conversations_are_encoded_as_each_alone(pairs: list[tuple[str, str]]) -> None:
    conversations = [exchange(ask, say) for ask, say in pairs]
    for made in MADE:
        assert list(made.encode_all(conversations)) == [made.encode(one) for one in conversations]
