"""Small tokenizers of the kinds in use, built here so that nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

TEXTS = (
    "###Question: What is the capital of France?\n###Answer: Paris",
    "###Question: Add the numbers 1 and 2.\n###Answer: The sum is 3.",
    "<|user|>\nHello there<|end|>\n<|assistant|>\nYes, it is a test. ###",
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_level(
    texts: Sequence[str] = TEXTS,
    specials: Sequence[str] = (),
    vocabulary: int = 400,
    trim_offsets: bool = True,
) -> PreTrainedTokenizerFast:
    """The kind of GPT, Llama 3 and Qwen: a word's token holds the blank before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>", *specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(list(texts) * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def qwen2(texts: Sequence[str] = TEXTS, vocabulary: int = 400) -> Qwen2Tokenizer:
    """`byte_level` as the class of Qwen2, which transformers loads for that family whatever the folder names.

    It reads each digit as a token.
    """
    trained = byte_level(texts, vocabulary=vocabulary)
    merges: Any = [
        tuple(merge) for merge in json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]
    ]
    return Qwen2Tokenizer(
        vocab=trained.get_vocab(),
        merges=merges,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="</s>",
    )


def metaspace(texts: Sequence[str] = TEXTS, split: bool = True) -> PreTrainedTokenizerFast:
    """The kind of sentencepiece: Unigram, and a blank is written as U+2581, also before the first word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(list(texts) * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def merging(text: str, eos: str | None = "</s>") -> PreTrainedTokenizerFast:
    """A tokenizer of single characters that joins all characters of `text`, wherever they come together."""
    alphabet = sorted({*map(chr, range(32, 127)), "\n", *text})
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    merges, built = [], text[0]
    for character in text[1:]:
        merges.append((built, character))
        built += character
        vocabulary.setdefault(built, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos)
