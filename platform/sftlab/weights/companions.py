"""The files that travel with a model's weights: what `from_pretrained` needs, and nothing else.

These are the configuration, the generation configuration, processors and the tokenizer's files of every kind, chat
templates in their folder included. State of a trainer, results, notes, adapters beside merged weights, pickles and code
stay behind.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftlab.errors import UserError
from sftlab.files import readable_write_errors
from sftlab.weights.adapter import is_adapter
from sftlab.weights.shards import INDEX_FILE, TOKENIZER_NAMES, read_json_object

TEMPLATES = "additional_chat_templates"  # a folder of transformers, beside chat_template.jinja
_CONFIGURATION = re.compile(r"(config|generation_config|(video_|audio_)?(pre)?processor_config)\.json")
# What `vocab_files_names` of the tokenizers of transformers name, and files with further prefixes and endings.
_TOKENIZER = re.compile(
    r"((tokenizer|special_tokens|added_tokens|chat_template|vocab|merges|dict|bpe\.codes|spiece|sentencepiece|tekken)"
    r"[\w.-]*\.(json|jinja|txt|model|spm|tiktoken)|[\w.-]+\.(model|spm|tiktoken)"
    r"|(byte_maps|emoji|entity_vocab|normalizer|target_vocab|word_pronunciation|word_shape)\.json"
    rf"|{'|'.join(map(re.escape, TOKENIZER_NAMES))})"
)
# One of these holds the words; the other files of a tokenizer say how to use them.
_VOCABULARY = re.compile(
    r"tokenizer\.json|tekken\.json|byte_maps\.json|prophetnet\.tokenizer|vocab[\w-]*\.txt|dict\.txt"
    r"|[\w.-]+\.(model|spm|tiktoken)"
)
_TOGETHER = ({"vocab.json", "merges.txt"}, {"vocab-src.json", "vocab-tgt.json", "merges.txt"})
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Companion:
    """A file to copy: where it is, and its path in the new folder."""

    file: Path
    name: str

    @property
    def is_tokenizer(self) -> bool:
        return _TOKENIZER.fullmatch(self.file.name) is not None


def companions(folder: Path, index: bool = False) -> list[Companion]:
    """What travels from a model folder, in the order of the names; each can be read. index: that of the shards too.

    Raises UserError for a link that leads nowhere or out of the folder: what it leads to, perhaps a secret of the
    user's, would be copied into models that are passed on. The links of the Hugging Face cache, to its `blobs`, are
    followed. So it does for a pointer of git-lfs in place of a file, and for a file that cannot be read.
    """
    found = [
        Companion(file, file.name)
        for file in sorted(folder.iterdir())
        if _CONFIGURATION.fullmatch(file.name)
        or _TOKENIZER.fullmatch(file.name)
        or (index and file.name == INDEX_FILE)
    ]
    templates = folder / TEMPLATES
    if templates.is_dir():
        found += [Companion(file, f"{TEMPLATES}/{file.name}") for file in sorted(templates.glob("*.jinja"))]
    found = [one for one in found if one.file.is_symlink() or one.file.is_file()]
    for one in found:
        _check(one.file, folder)
    return found


def _check(file: Path, folder: Path) -> None:
    real, target = folder.resolve(), file.resolve()
    if not target.exists():
        raise UserError(
            f"is a link to {target}, which is missing", place=file, advice="fetch the model again."
        )
    if not target.is_relative_to(real) and target.parent != real.parent.parent / "blobs":
        raise UserError(
            f"is a link out of the model's folder, to {target}",
            place=file,
            advice="copy the file there if you mean it.",
        )
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_POINTER))
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", place=file, advice="it belongs to the model."
        ) from error
    if start == _POINTER:
        raise UserError(
            "is a pointer of git-lfs, not the file itself",
            place=file,
            advice=f"run `git lfs pull` in {folder}.",
        )


def travelling(base: Path, tuned: Path) -> list[Companion]:
    """What goes into a folder of a model made of both: the tuned model's files (`model_companions`).

    A tuned model without a vocabulary takes the tokenizer files that it lacks from the base model.
    """
    found = model_companions(base, tuned)
    if not has_vocabulary(found):
        names = {one.name for one in found}
        found += [one for one in companions(base) if one.is_tokenizer and one.name not in names]
    return found


def model_companions(base: Path, tuned: Path, index: bool = False) -> list[Companion]:
    """`companions` of the tuned model. An adapter has at most a tokenizer of its own; the rest is the base model's."""
    found = companions(tuned, index)
    if not is_adapter(tuned):
        return found
    mine = [one for one in found if one.is_tokenizer]
    own = has_vocabulary(mine)
    return (mine if own else []) + [one for one in companions(base, index) if not (own and one.is_tokenizer)]


def has_vocabulary(files: Iterable[Companion]) -> bool:
    """Whether the files hold a tokenizer that can be loaded, not only settings of one."""
    names = {one.name for one in files}
    return any(map(_VOCABULARY.fullmatch, names)) or any(group <= names for group in _TOGETHER)


def report_gaps(files: Sequence[Companion], model: Path) -> None:
    """Logs a warning where a copy of these files does not load by itself: no tokenizer, or code that stays behind."""
    log = logging.getLogger(__name__)
    if not has_vocabulary(files):
        log.warning(
            f"{model}: has no tokenizer (tokenizer.json, tokenizer.model, vocab.txt or the like), and neither has its "
            "base model; the restored models have none either."
        )
    for one in files:
        if one.name in ("config.json", "tokenizer_config.json"):
            named = read_json_object(one.file, "a file of a Hugging Face model").get("auto_map")
            if named:
                log.warning(
                    f"{one.file}: names code of the model (auto_map), which is never copied; put the .py files of "
                    f"{model} into the new folders before you load them with trust_remote_code."
                )


def copy_files(files: Iterable[Companion], target: Path) -> None:
    """Copies files into a folder. Raises UserError that names the file which cannot be read or written."""
    for one in files:
        try:
            content = one.file.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot be read: {error.strerror}", place=one.file, advice="it belongs to the model."
            ) from error
        with readable_write_errors(target):
            (target / one.name).parent.mkdir(exist_ok=True)
            (target / one.name).write_bytes(content)
