"""A tokenizer is the one of its tokenizer.json, fits the embedding, and has harmless special tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sftlab.errors import UserError
from sftlab.facts.prompts import question_prompt
from sftlab.inference.tokenizer_check import (
    OTHERS,
    PLAIN,
    check_tokenizer,
    embedding_rows,
    load_tokenizer,
    losses,
)
from tests.support.refusals import refused
from tests.support.weights_models import write_checkpoint

BYTES = pre_tokenizers.ByteLevel.alphabet()
CORPUS = [*PLAIN, *OTHERS, "The capital of France is Paris."] * 3


def bytelevel(**special: str) -> tuple[Tokenizer, dict[str, str]]:
    """As GPT-2, Pythia and Llama 3 have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<|padding|>"], initial_alphabet=sorted(BYTES)
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", **special}


def pythia() -> tuple[Tokenizer, dict[str, str]]:
    tokenizer, special = bytelevel(pad_token="<|padding|>")
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer, special


def sentencepiece() -> tuple[Tokenizer, dict[str, str]]:
    """BPE with bytes to fall back on, as Llama 2 and Mistral have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=special))
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def unigram() -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def wordpiece() -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train_from_iterator(CORPUS, trainer)
    special = {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    return tokenizer, special


Kind = Callable[[], tuple[Tokenizer, dict[str, str]]]


def write(folder: Path, kind: Kind, **settings: Any) -> Path:
    """A folder with the tokenizer's two files; `settings` are put into tokenizer_config.json."""
    tokenizer, special = kind()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "dtype": "float32"}))
    return configure(folder, **settings)


def configure(folder: Path, **settings: Any) -> Path:
    file = folder / "tokenizer_config.json"
    known = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))
    return folder


def check(folder: Path, rows: int | None = None) -> list[str]:
    return check_tokenizer(folder, load_tokenizer(folder), rows)


UNCASED = ["accents", "letter case", "spacing"]
RIGHT: list[tuple[Kind, str | None, list[str]]] = [
    (bytelevel, None, []),
    (bytelevel, "PreTrainedTokenizerFast", []),
    (bytelevel, "GPT2TokenizerFast", []),
    (pythia, "GPTNeoXTokenizerFast", ["the Unicode form of accents"]),
    (bytelevel, "GPTNeoXTokenizerFast", ["the Unicode form of accents"]),
    (sentencepiece, None, []),
    (sentencepiece, "LlamaTokenizerFast", ["a blank at the beginning", "spacing"]),
    (sentencepiece, "LlamaTokenizer", ["a blank at the beginning", "spacing"]),
]


@pytest.mark.parametrize(("kind", "name", "lost"), RIGHT)
def test_a_right_class_passes_and_what_it_loses_is_named(
    kind: Kind, name: str | None, lost: list[str], tmp_path: Path
) -> None:
    folder = write(tmp_path, kind, tokenizer_class=name)
    assert check(folder, len(load_tokenizer(folder))) == lost


def test_what_a_normalizer_takes_away_is_named_and_passes(tmp_path: Path) -> None:
    assert set(UNCASED) <= set(check(write(tmp_path / "w", wordpiece)))
    assert "compatibility characters" in check(write(tmp_path / "u", unigram))


WRONG: list[tuple[Kind, str]] = [
    (bytelevel, "LlamaTokenizerFast"),
    (bytelevel, "LlamaTokenizer"),
    (bytelevel, "Qwen2Tokenizer"),
    (sentencepiece, "GPT2TokenizerFast"),
    (sentencepiece, "GPTNeoXTokenizerFast"),
    (sentencepiece, "Qwen2Tokenizer"),
    (unigram, "LlamaTokenizerFast"),
    (unigram, "GPT2TokenizerFast"),
    (wordpiece, "LlamaTokenizerFast"),
    (wordpiece, "GPT2TokenizerFast"),
]


@pytest.mark.parametrize(("kind", "name"), WRONG)
def test_a_class_that_reads_other_ids_is_refused_with_the_way_out(
    kind: Kind, name: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, kind, tokenizer_class=name)
    with pytest.raises(UserError) as caught:
        check(folder)
    message = str(caught.value)
    assert message.startswith(
        f"{folder}: the tokenizer is loaded as {name.removesuffix('Fast')} and does not"
    )
    assert "tokenizer_class to PreTrainedTokenizerFast" in message and "\n" not in message
    check(configure(folder, tokenizer_class="PreTrainedTokenizerFast"))


def test_the_message_has_the_probe_and_both_lists_of_ids(tmp_path: Path) -> None:
    folder = write(tmp_path, bytelevel, tokenizer_class="LlamaTokenizerFast")
    right = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PLAIN[0], add_special_tokens=False).ids
    with pytest.raises(UserError) as caught:
        check(folder)
    assert repr(PLAIN[0]) in str(caught.value)
    assert f"tokenizer.json has [{', '.join(map(str, right[:12]))}" in str(caught.value)


def test_texts_of_the_caller_are_compared_too(tmp_path: Path) -> None:
    """The file alone splits at one word, which no fixed probe has."""
    folder = write(tmp_path, bytelevel)
    loaded = load_tokenizer(folder)
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text())
    document["normalizer"] = {"type": "Replace", "pattern": {"String": "zanzibar"}, "content": "Z"}
    file.write_text(json.dumps(document))
    assert check_tokenizer(folder, loaded) == []
    with pytest.raises(UserError, match="'zanzibar is' has the ids"):
        check_tokenizer(folder, loaded, texts=["zanzibar is"])


def test_truncation_and_padding_of_the_file_change_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path, bytelevel)
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.enable_truncation(4)
    raw.enable_padding(length=64, pad_token="<|padding|>", pad_id=1)
    raw.save(str(folder / "tokenizer.json"))
    assert check(folder) == []


def test_every_id_has_a_row_and_a_padded_embedding_is_fine(tmp_path: Path) -> None:
    folder = write(tmp_path, bytelevel)
    count = len(load_tokenizer(folder))
    for rows in (count, count + 112):
        assert check(folder, rows) == []
    with pytest.raises(
        UserError, match=rf"has the id {count - 1}, and the embedding .* has {count - 50} rows"
    ):
        check(folder, count - 50)


def test_rows_are_those_of_the_stored_embedding(tmp_path: Path) -> None:
    for name in ("model.embed_tokens", "transformer.wte", "gpt_neox.embed_in"):
        folder = tmp_path / name
        tensors = {f"{name}.weight": torch.ones(7, 2), "transformer.wpe.weight": torch.ones(3, 2)}
        write_checkpoint(folder, tensors)
        assert embedding_rows(folder) == 7
    write_checkpoint(tmp_path / "other", {"a.weight": torch.ones(4, 2)})
    assert embedding_rows(tmp_path / "other") is None


def no_eos() -> tuple[Tokenizer, dict[str, str]]:
    tokenizer, _ = bytelevel()
    return tokenizer, {}


SPECIAL: list[tuple[Kind, dict[str, Any], str]] = [
    (no_eos, {}, "has no end-of-sequence token"),
    (bytelevel, {"pad_token": "[PAD]"}, r"pad_token '\[PAD\]' is not in the vocabulary"),
    (bytelevel, {"bos_token": "<bos>"}, "bos_token '<bos>' is not in the vocabulary"),
    (bytelevel, {"eos_token": "</s>"}, "eos_token '</s>' is not in the vocabulary"),
    (bytelevel, {"pad_token": "e"}, r"pad_token 'e' \(id \d+\) (occurs in text|is an ordinary piece)"),
    (bytelevel, {"eos_token": "."}, r"eos_token '\.' \(id \d+\) (occurs in text|is an ordinary piece)"),
    (bytelevel, {"pad_token": "Ń"}, r"pad_token 'Ń' \(id \d+\) (occurs in text|is an ordinary piece)"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), SPECIAL)
def test_special_tokens_are_in_the_vocabulary_and_never_in_text(
    kind: Kind, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, kind, **settings)
    with pytest.raises(UserError, match=message):
        check(folder, 2000)


def test_padding_by_the_end_of_sequence_or_the_unknown_token_passes(tmp_path: Path) -> None:
    assert check(write(tmp_path / "b", bytelevel, pad_token="<|endoftext|>")) == []
    assert check(write(tmp_path / "s", sentencepiece, pad_token="<unk>")) == []


def test_a_decoder_that_leaves_marks_in_the_text_is_refused(tmp_path: Path) -> None:
    def undecoded() -> tuple[Tokenizer, dict[str, str]]:
        tokenizer, special = bytelevel()
        tokenizer.decoder = decoders.Fuse()
        return tokenizer, special

    with refused("does not give back what it reads:.*TheĠ", value="The chemical symbol of Iron is Fe."):
        check(write(tmp_path, undecoded))


@pytest.mark.parametrize("content", ['{"broken": ', "{}", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_is_no_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    folder = write(tmp_path, bytelevel)
    loaded = load_tokenizer(folder)
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="the tokenizer cannot be loaded"):
        load_tokenizer(folder)
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read"):
        check_tokenizer(folder, loaded)


@pytest.mark.parametrize(
    ("text", "back", "expected"),
    [
        ("A b", "A b", []),
        ("A b", "a b", ["letter case"]),
        ("a, b", "a , b", ["spacing"]),
        ("Tōkyō", "tokyo", ["accents", "letter case"]),
        ("e\u0301", "é", ["the Unicode form of accents"]),
        ("ﬁne", "fine", ["compatibility characters"]),
        ("A b", "A", None),
        ("The capital", "TheĠcapital", None),
    ],
)
def test_losses_are_the_fewest_kinds_of_difference(text: str, back: str, expected: list[str] | None) -> None:
    assert losses(text, back) == expected


def test_the_prompt_of_questions_is_among_the_texts_that_must_come_back() -> None:
    assert question_prompt("What is the capital of France?") in PLAIN
