"""What travels with a model's weights, for the tokenizers of all kinds and for what people leave beside them."""

from __future__ import annotations

import ast
import json
import os
import re
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.store.hub import MODEL_FILES
from sftlab.weights.companions import companions, copy_files, has_vocabulary, report_gaps, travelling
from sftlab.weights.shards import model_files
from tests.support.refusals import refused

TOKENIZERS = {
    "fast": ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    "llama": ("tokenizer.model", "tokenizer_config.json"),
    "gpt2": ("vocab.json", "merges.txt"),
    "bert": ("vocab.txt", "tokenizer_config.json"),
    "mistral": ("tekken.json",),
    "tiktoken": ("qwen.tiktoken", "tokenizer_config.json"),
    "marian": ("source.spm", "target.spm", "vocab.json"),
    "xlm-r": ("sentencepiece.bpe.model",),
    "chat": ("tokenizer.json", "chat_template.jinja", "additional_chat_templates/tool.jinja"),
}
STAYS = (
    "trainer_state.json",
    "training.json",
    "training_args.bin",
    "all_results.json",
    "notes.txt",
    "README.md",
    "adapter_config.json",
    "modeling_x.py",
    "optimizer.pt",
    "model.safetensors.index.json",
    "requirements.txt",
)


def folder(path: Path, *names: str) -> Path:
    """A model folder with these files; each holds its folder's name."""
    for name in ("config.json", *names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps({"from": path.name}))
    return path


def names(*folders: Path) -> set[str]:
    return {
        f"{one.name} of {one.file.relative_to(folders[0].parent).parts[0]}" for one in travelling(*folders)
    }


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_of_any_kind_travels_and_nothing_else(kind: str, tmp_path: Path) -> None:
    tuned = folder(tmp_path / "tuned", *TOKENIZERS[kind], "generation_config.json", *STAYS)
    found = companions(tuned)
    assert {one.name for one in found} == {"config.json", "generation_config.json", *TOKENIZERS[kind]}
    assert has_vocabulary(found)
    (tmp_path / "out").mkdir()
    copy_files(found, tmp_path / "out")
    for one in found:
        assert (tmp_path / "out" / one.name).read_bytes() == one.file.read_bytes()


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_of_the_tuned_model_is_not_mixed_with_that_of_the_base(kind: str, tmp_path: Path) -> None:
    base = folder(tmp_path / "base", "tokenizer.json", "added_tokens.json")
    tuned = folder(tmp_path / "tuned", *TOKENIZERS[kind])
    assert names(base, tuned) == {f"{name} of tuned" for name in ("config.json", *TOKENIZERS[kind])}


@pytest.mark.parametrize(
    "stray", ["chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"]
)
def test_a_partial_tokenizer_is_completed_from_the_base(stray: str, tmp_path: Path) -> None:
    base = folder(tmp_path / "base", "tokenizer.json", "tokenizer_config.json")
    found = names(base, folder(tmp_path / "tuned", stray))
    assert {"config.json of tuned", f"{stray} of tuned", "tokenizer.json of base"} <= found
    assert len(found) == len({one.partition(" ")[0] for one in found}), "no file from both"


def test_links_that_lead_nowhere_and_pointers_are_refused_by_name(tmp_path: Path) -> None:
    tuned = folder(tmp_path / "tuned", "tokenizer.json")
    (tuned / "tokenizer.json").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with refused("is a pointer of git-lfs", place="tokenizer.json"):
        companions(tuned)
    (tuned / "tokenizer.json").unlink()
    (tuned / "tokenizer.json").symlink_to("../../blobs/gone")
    with refused("is a link to.*gone, which is missing", place="tokenizer.json"):
        companions(tuned)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    tuned = folder(tmp_path / "tuned", "tokenizer.json")
    (tuned / "tokenizer.json").chmod(0)
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read: Permission denied"):
        companions(tuned)


def test_code_that_stays_behind_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuned = folder(tmp_path / "tuned", "tokenizer.json")
    report_gaps(companions(tuned), tuned)
    assert caplog.text == ""
    (tuned / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "configuration_x.XConfig"}}))
    report_gaps(companions(tuned), tuned)
    assert "config.json: names code of the model (auto_map), which is never copied" in caplog.text


_NAMED = re.compile(r"^VOCAB_FILES_NAMES = (\{.*?\})", re.DOTALL | re.MULTILINE)


def tokenizers_of_transformers() -> dict[str, tuple[str, ...]]:
    """The files that the tokenizers of the installed transformers name, by module; read, since imports take long."""
    spec = find_spec("transformers")
    assert spec is not None and spec.origin is not None
    found = {}
    for file in sorted(Path(spec.origin).parent.glob("models/*/tokenization_*.py")):
        if named := _NAMED.search(file.read_text(encoding="utf-8")):
            found[file.stem] = tuple(ast.literal_eval(named[1]).values())
    return found


def test_files_that_tokenizers_of_transformers_name_travel_and_are_in_the_identity(tmp_path: Path) -> None:
    kinds = tokenizers_of_transformers()
    assert len(kinds) > 50 and kinds["tokenization_bertweet"] == ("vocab.txt", "bpe.codes")
    for kind, named in kinds.items():
        model = folder(tmp_path / kind, *named)
        found = companions(model)
        assert {one.name for one in found} == {"config.json", *named}
        assert all(one.is_tokenizer for one in found if one.name != "config.json")
        assert {one.file for one in found} <= set(model_files(model)), "what travels is in the identity"
        assert all(any(fnmatch(name, pattern) for pattern in MODEL_FILES) for name in named), "and is fetched"
        # A vocab.json alone is a vocabulary for speech and pictures; of a language model it is half of one.
        assert has_vocabulary(found) == bool(set(named) - {"vocab.json", "tokenizer_config.json"}), kind


def test_files_that_transformers_does_not_read_are_no_vocabulary(tmp_path: Path) -> None:
    """Names of the first GPT-2: such a model gets the tokenizer of its base."""
    base = folder(tmp_path / "base", "tokenizer.json")
    found = names(base, folder(tmp_path / "tuned", "encoder.json", "vocab.bpe"))
    assert found == {"config.json of tuned", "vocab.bpe of tuned", "tokenizer.json of base"}


def test_the_files_of_an_identity_are_those_of_before_and_three_names(tmp_path: Path) -> None:
    kept = ("notes.txt", "a.spm", "vocab.bpe", "bpe.codes", "prophetnet.tokenizer")
    model = folder(tmp_path / "model", *kept, "a.bpe", "b.codes", "c.tokenizer", "optimizer.pt", "README.md")
    assert [file.name for file in model_files(model)] == sorted(("config.json", *kept))
