"""A model folder brings numbers and a tokenizer: no code, no pickle, no file from elsewhere."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import sftlab
from sftlab.errors import UserError
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import engine_arguments
from sftlab.studies.knowledge.tracking.card import licence_of
from sftlab.training.hf_model import load_model
from sftlab.training.spec import SFTSpec
from sftlab.weights.companions import companions, copy_files
from sftlab.weights.ladder import restore
from sftlab.weights.shards import Checkpoint
from tests.support.refusals import refused
from tests.support.weights_models import save_model, save_tokenizer

PACKAGE = Path(sftlab.__file__).parent
CODE = "from pathlib import Path\nPath({mark!r}).touch()\nclass Evil: pass\n"


def poisoned(folder: Path, model_type: str, tokenizer: bool = False) -> Path:
    """Let a model folder ask for its own code; returns what appears where that code runs."""
    mark = folder / "ran"
    (folder / "evil.py").write_text(CODE.format(mark=str(mark)))
    file = folder / ("tokenizer_config.json" if tokenizer else "config.json")
    config = json.loads(file.read_text())
    names = ("AutoTokenizer",) if tokenizer else ("AutoConfig", "AutoModelForCausalLM")
    config["auto_map"] = {
        name: ["evil.Evil", "evil.Evil"] if name == "AutoTokenizer" else "evil.Evil" for name in names
    }
    config |= {"model_type": model_type} if not tokenizer else {"tokenizer_class": "Evil"}
    file.write_text(json.dumps(config))
    return mark


def test_a_model_that_asks_for_its_own_code_does_not_get_it(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", 0)
    mark = poisoned(tmp_path, "llama")
    load_model(tmp_path, SFTSpec(), None)
    poisoned(tmp_path, "evil-type")
    with pytest.raises(ValueError, match=r"trust_remote_code|evil-type"):
        load_model(tmp_path, SFTSpec(), None)
    assert not mark.exists()


def test_a_tokenizer_that_asks_for_its_own_code_does_not_get_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_model(tmp_path, "llama", 0)
    save_tokenizer(tmp_path)
    mark = poisoned(tmp_path, "llama", tokenizer=True)
    try:  # as `training/loop.py` does
        AutoTokenizer.from_pretrained(tmp_path, local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code" in str(error) or "Evil" in str(error)
    assert not mark.exists()


def test_engines_take_safetensors_alone_and_run_no_code_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    arguments = engine_arguments(str(tmp_path), EngineSpec(), EngineRuntime())
    assert arguments["trust_remote_code"] is False and arguments["load_format"] == "safetensors"


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "consolidated.00.pth"]
)
def test_pickled_weights_are_refused_everywhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="pickle"):
        Checkpoint.open(tmp_path)
    with pytest.raises(UserError, match="safetensors"):
        load_model(tmp_path, SFTSpec(), None)


def test_a_link_beside_the_weights_is_not_copied_into_a_model_that_is_passed_on(tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("SECRET")
    base, tuned, output = tmp_path / "base", tmp_path / "tuned", tmp_path / "out"
    for seed, folder in enumerate((base, tuned)):
        save_model(folder, "llama", seed)
    (tuned / "vocab.txt").symlink_to(secret)
    with refused("is a link out of the model's folder", place="vocab.txt"):
        restore(base, tuned, "10", output)
    output.mkdir(exist_ok=True)
    with refused("is a link out of the model's folder", place="vocab.txt"):
        copy_files(companions(tuned), output)
    assert not any(b"SECRET" in file.read_bytes() for file in output.rglob("*") if file.is_file())


def test_the_links_of_the_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    snapshot, blobs, output = tmp_path / "snapshots" / "abc", tmp_path / "blobs", tmp_path / "out"
    for folder in (snapshot, blobs, output):
        folder.mkdir(parents=True)
    (blobs / "0123").write_text("{}")
    (snapshot / "tokenizer.json").symlink_to(Path("../../blobs/0123"))
    copy_files(companions(snapshot), output)
    assert (output / "tokenizer.json").read_text() == "{}"


FORBIDDEN = {
    "pickle.load": (),
    "pickle.loads": (),
    "cloudpickle.load": (),
    "cloudpickle.loads": (),
    "torch.load": ("training/safe_load.py",),  # weights_only, as the test of checkpoints shows
    "yaml.load": (),
    "yaml.safe_load": (),
    "yaml.unsafe_load": (),
    "numpy.load": (),
    "np.load": (),
    "os.system": (),
    "os.popen": (),
    "eval": (),
    "exec": (),
    "shutil.unpack_archive": (),
    "joblib.load": (),
}


def test_the_package_calls_nothing_that_runs_what_it_reads() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in FORBIDDEN and name not in FORBIDDEN[called]:
                found.append(f"{name}:{node.lineno} calls {called}")
            for word in node.keywords:
                literal = getattr(word.value, "value", None)
                if (word.arg, literal) in (
                    ("shell", True),
                    ("trust_remote_code", True),
                    ("allow_pickle", True),
                ):
                    found.append(f"{name}:{node.lineno} has {word.arg}={literal}")
    assert found == []


@pytest.mark.parametrize(
    ("named", "found"),
    [("apache-2.0", "apache-2.0"), ("x](http://h/) <script>", None), ("a\\nb", None), ("x" * 101, None)],
)
def test_a_licence_is_a_name_and_nothing_that_a_model_card_would_render(
    tmp_path: Path, named: str, found: str | None
) -> None:
    (tmp_path / "README.md").write_text(f'---\nlicense: "{named}"\n---\n')
    assert licence_of(tmp_path) == (found, ())
