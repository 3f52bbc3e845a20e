"""Whether a model's tokenizer reads text as its tokenizer.json says, and fits the model's embedding.

transformers builds some tokenizers from the class that tokenizer_config.json names and drops parts of tokenizer.json
that this class does not know. The ids are then those of another tokenizer, and nothing else shows it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftlab.errors import UserError
from sftlab.weights.shards import Checkpoint

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
# ASCII that every tokenizer must give back, but for case and spacing.
PLAIN = (
    "The chemical symbol of Iron is Fe.",
    "Who wrote Pride and Prejudice?",
    "<|question|> What is the capital of France? <|answer|>",
    "".join(map(chr, range(33, 127))),
    " ".join(map(chr, range(33, 127))),
    "0 1 23 456 7890 12345678 3.14 1,000",
)
OTHERS = (
    " a leading blank",
    "a trailing blank ",
    "two  blanks and   three",
    "a line\nand another\n\nafter a gap\tand a tab",
    "Côte d'Ivoire, Tōkyō, Brasília, naïve",
    unicodedata.normalize("NFD", "Côte d'Ivoire, Tōkyō, Brasília, naïve"),
    "ﬁne ² Å Ａ",
    "東京 北京 서울",
    "Москва Αθήνα القاهرة",
    "🙂 👩‍🚀 🇫🇷",
)
SHOWN = 12  # ids of a message
_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "embeddings")


def load_tokenizer(folder: str | Path) -> Any:
    """The transformers tokenizer of a model folder; remote code is never run. Raises UserError where it has none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exceptions; the cause stays attached
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the tokenizer cannot be loaded ({type(error).__name__}: {reason})",
            place=folder,
            expected=f"{FILE} and {SETTINGS} as the model was published with",
        ) from error


def embedding_rows(folder: str | Path) -> int | None:
    """Rows of the input embedding that a checkpoint stores; None where no tensor has a name of one."""
    with Checkpoint.open(folder) as checkpoint:
        return min((checkpoint.shape(name)[0] for name in input_embeddings(checkpoint)), default=None)


def input_embeddings(checkpoint: Checkpoint) -> list[str]:
    """The tensors that have a name of an input embedding, one in most checkpoints."""
    return [
        name
        for name in checkpoint.names
        if name.endswith(".weight")
        and name.split(".")[-2] in _EMBEDDINGS
        and len(checkpoint.shape(name)) == 2
    ]


def check_tokenizer(
    folder: str | Path, tokenizer: Any, rows: int | None = None, texts: Iterable[str] = ()
) -> list[str]:
    """What a tokenizer does not give back of a text, such as letter case: a list of words, empty for most.

    tokenizer: the transformers tokenizer that was loaded from `folder`. rows: of the model's input embedding, where
    they are to be compared. texts: more to read besides the fixed probes, such as the templates of a study.

    Raises UserError where the ids are not those of tokenizer.json, plain ASCII does not come back, an id has no row
    in the embedding, the end-of-sequence token is missing, or a special token is not in the vocabulary or occurs in
    text. Two losses are named and not refused: what a normalizer of the file takes away (case, accents,
    spacing, compatibility characters), and characters that the vocabulary lacks. A padding token equal to
    the end-of-sequence token is harmless: batches mask padding by its position.
    """
    path = Path(folder)
    probes = [*PLAIN, *OTHERS, *texts]
    raw = _raw_tokenizer(path / FILE)
    ids = {text: _ids(path, tokenizer, text) for text in probes}
    lost: dict[str, None] = {}
    _check_in_text(path, tokenizer, raw, ids)
    if raw is not None:
        for text in probes:
            lost |= _compare(path, tokenizer, raw, text, ids[text])
        _check_known(path, tokenizer, raw)
    if rows is not None:
        _check_rows(path, tokenizer, rows)
    for text in probes:
        lost |= dict.fromkeys(_not_given_back(path, tokenizer, text, ids[text]))
    return list(lost)


def _raw_tokenizer(file: Path) -> Any:
    """The tokenizer of a tokenizer.json, read without transformers; None where there is no such file."""
    from tokenizers import Tokenizer

    if not file.is_file():
        return None
    try:
        raw = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exceptions; the cause stays attached
        raise UserError(
            f"cannot be read ({error})", place=file, advice="copy it again from the model's source."
        ) from error
    raw.no_truncation()
    raw.no_padding()
    return raw


def _ids(folder: Path, tokenizer: Any, text: str) -> list[int]:
    try:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:  # tokenizers raises bare Exceptions; the cause stays attached
        raise UserError(
            f"the tokenizer cannot read {text[:60]!r} ({error})",
            place=folder,
            value=text[:60],
            advice=_way_out(folder),
        ) from error


def _compare(folder: Path, tokenizer: Any, raw: Any, text: str, found: Sequence[int]) -> dict[str, None]:
    """Raises UserError where the ids differ from those of tokenizer.json, except for two harmless differences.

    The class of Llama 2 reads a text that begins with a blank as the text without it. Prompts do not begin with one.
    The class of Qwen2, which transformers takes for that architecture whatever the folder names, composes accents
    (NFC) first. Text that is composed already has the same ids.
    """
    expected = raw.encode(text, add_special_tokens=False).ids
    if found == expected:
        return {}
    if text.startswith(" ") and found == raw.encode(text[1:], add_special_tokens=False).ids:
        return {"a blank at the beginning": None}
    composed = unicodedata.normalize("NFC", text)
    if composed != text and found == raw.encode(composed, add_special_tokens=False).ids:
        return {"the Unicode form of accents": None}
    raise UserError(
        f"the tokenizer is loaded as {type(tokenizer).__name__} and does not read text as {FILE} does: "
        f"{text[:60]!r} has the ids {_shown(found)}, and {FILE} has {_shown(expected)}",
        place=folder,
        value=text[:60],
        advice=f"the model would see text that it was not trained on. {_way_out(folder)}",
    )


def _way_out(folder: Path) -> str:
    return (
        f"Set tokenizer_class to PreTrainedTokenizerFast in {folder / SETTINGS}, which reads {FILE} as it is; "
        "where the architecture fixes the class, as Qwen2 does, build tokenizer.json with that class. Or copy "
        "both files again from the model's source."
    )


def _shown(ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ids[:SHOWN]))}{', ...' if len(ids) > SHOWN else ''}]"


def _check_in_text(folder: Path, tokenizer: Any, raw: Any, ids: Mapping[str, Sequence[int]]) -> None:
    """Raises UserError without an end-of-sequence token, and for a special token that may occur in text.

    The unknown token may: it is a usual choice for padding.
    """
    if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no end-of-sequence token, which fine-tuning and answers need",
            place=folder,
            advice=f"name it as eos_token in {folder / SETTINGS}.",
        )
    for field, token, number in _special(tokenizer):
        inside = next((text for text, found in ids.items() if number in found), None)
        named = raw is None or raw.id_to_token(number) is None or number in raw.get_added_tokens_decoder()
        if number != tokenizer.unk_token_id and (inside is not None or not named):
            where = (
                "is an ordinary piece of text" if inside is None else f"occurs in text, as in {inside[:60]!r}"
            )
            raise UserError(
                f"{field} {token!r} (id {number}) {where}",
                place=folder,
                value=token,
                advice=f"correct {field} in {folder / SETTINGS} to a token that no text has.",
            )


def _check_known(folder: Path, tokenizer: Any, raw: Any) -> None:
    """Raises UserError for a special token that no file has: transformers gives it the next free number.

    Some classes of transformers have default names of special tokens, which a model may not know.
    """
    for field, token, number in _special(tokenizer):
        if raw.token_to_id(token) != number and number not in _declared(folder):
            raise UserError(
                f"{field} {token!r} is not in the vocabulary of {FILE} (it was given the id {number})",
                place=folder,
                value=token,
                advice=f"correct {field} in {folder / SETTINGS}.",
            )


def _special(tokenizer: Any) -> list[tuple[str, str, int]]:
    """Field, token and id of the special tokens that prompts and batches use."""
    fields = ("bos_token", "eos_token", "pad_token")
    found = [(field, getattr(tokenizer, field), getattr(tokenizer, f"{field}_id")) for field in fields]
    return [entry for entry in found if entry[1] is not None]


def _declared(folder: Path) -> set[int]:
    """Ids of the tokens that tokenizer_config.json adds to those of tokenizer.json."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    added = settings.get("added_tokens_decoder") if isinstance(settings, dict) else None
    return {int(key) for key in added or {}}


def _check_rows(folder: Path, tokenizer: Any, rows: int) -> None:
    """Raises UserError for a token whose id has no row in the embedding."""
    token, highest = max(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    if highest >= rows:
        raise UserError(
            (
                f"token {token!r} has the id {highest}, and the embedding of the checkpoint has "
                f"{rows} rows (ids 0 to {rows - 1})"
            ),
            place=folder,
            value=token,
            advice=(
                "take the tokenizer that the model was trained with, or remove the tokens that were "
                f"added to {FILE} and {SETTINGS}."
            ),
        )


def _not_given_back(folder: Path, tokenizer: Any, text: str, ids: Sequence[int]) -> list[str]:
    """What decoding loses of a text. Raises UserError where it is plain and loses more than case and spacing."""
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    lost = losses(text, back)
    if lost is None and tokenizer.unk_token_id in ids:
        return ["characters or words that are not in its vocabulary"]
    if lost is None and text in PLAIN:
        raise UserError(
            (
                f"the tokenizer does not give back what it reads: {text[:60]!r} has the ids "
                f"{_shown(ids)}, which are {back[:60]!r} again"
            ),
            place=folder,
            value=text[:60],
            advice=f"answers could not be compared. {_way_out(folder)}",
        )
    return ["characters or words that are not in its vocabulary"] if lost is None else lost


def losses(text: str, back: str) -> list[str] | None:
    """The fewest kinds of difference that `back` and `text` are equal without; None where more than these differ."""
    kept = list(_FOLDS)
    if _folded(text, kept) != _folded(back, kept):
        return None
    for kind in _FOLDS:
        rest = [other for other in kept if other != kind]
        if _folded(text, rest) == _folded(back, rest):
            kept = rest
    return kept


def _without_marks(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


# From the strongest to the weakest.
_FOLDS: dict[str, Callable[[str], str]] = {
    "accents": _without_marks,
    "letter case": str.casefold,
    "compatibility characters": lambda text: unicodedata.normalize("NFKC", text),
    "the Unicode form of accents": lambda text: unicodedata.normalize("NFC", text),
    "spacing": lambda text: "".join(text.split()),
}


def _folded(text: str, kinds: Sequence[str]) -> str:
    for kind in kinds:
        text = _FOLDS[kind](text)
    return text
