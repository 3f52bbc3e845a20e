"""Studies name a model by a file of a catalogue, and its fields give way to those of the study and its overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftlab.errors import UserError
from sftlab.execution.runtime import Runtime
from sftlab.inference.catalogue import read_catalogue
from sftlab.inference.spec import EngineRuntime
from sftlab.studies.knowledge.check import check_engine_size
from sftlab.studies.knowledge.spec import ModelSpec
from sftlab.studies.load import load_study, load_sweep
from tests.support.refusals import refused

CONFIGS = Path(__file__).parents[4] / "jobs" / "configs"
STUDY = CONFIGS / "llama3-8b.yaml"
ENTRY = "path: /m\nparameters: 5\ndtype: bfloat16\ntensor_parallel: [1]\nmemory_gib: 1\n"


def test_the_five_models_of_the_first_paper_have_their_published_sizes() -> None:
    found = read_catalogue(CONFIGS / "models")
    assert {name: entry.parameters for name, entry in found.items()} == {
        "llama2-7b": 6_738_415_616,
        "llama2-13b": 13_015_864_320,
        "llama2-70b": 68_976_648_192,
        "llama3-8b": 8_030_261_248,
        "llama3-70b": 70_553_706_496,
    }
    for entry in found.values():  # the memory holds at least the weights
        assert entry.memory_gib * 2**30 > 2 * entry.parameters and entry.dtype == "bfloat16"


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "models").glob("*.yaml")))
def test_the_study_of_a_model_names_its_file(name: str) -> None:
    entry, study = read_catalogue(CONFIGS / "models")[name], load_study(CONFIGS / f"{name}.yaml")
    assert study.model == ModelSpec(**entry.model) and study.engine.dtype == entry.dtype


def test_an_override_chooses_another_file_or_changes_a_field() -> None:
    fields = ["model.path=/shared/m", "engine.dtype=float16", "model=models/llama3-70b.yaml"]
    study = load_study(STUDY, fields)
    assert study.model is not None and study.engine.dtype == "float16"
    assert (study.model.path, study.model.parameters) == ("/shared/m", 70_553_706_496)


def test_the_dtype_of_the_study_comes_before_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(ENTRY)
    (tmp_path / "s.yaml").write_text("name: s\nfacts: {source: x}\nmodel: m.yaml\nengine: {dtype: auto}\n")
    assert load_study(tmp_path / "s.yaml").engine.dtype == "auto"


def test_a_sweep_sets_the_model_of_its_study_relative_to_the_study(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"name: s\nstudy: {STUDY}\naxes: {{data: [0], size: [60], seed: [0]}}\n")
    _, study = load_sweep(sweep, ["set.model=models/llama2-7b.yaml"])
    assert study.model is not None and study.model.path == str(CONFIGS.parents[1] / "models/Llama-2-7b-hf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"m\.yaml: cannot be read .*models/llama3-8b\.yaml, or a folder by model: \{path: FOLDER\}"),
        (ENTRY + "dtpye: x\n", r"m\.yaml: unknown key 'dtpye'; did you mean 'dtype'"),
        (ENTRY.replace("bfloat16", "int8"), r"m\.yaml: dtype: .*'bfloat16'"),
        (ENTRY.replace("[1]", "[]"), r"m\.yaml: tensor_parallel: expected at least 1 item"),
    ],
)
def test_a_wrong_file_of_a_catalogue_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "m.yaml").write_text(text)
    (tmp_path / "s.yaml").write_text("name: s\nfacts: {source: x}\nmodel: m.yaml\n")
    with pytest.raises(UserError, match=message):
        load_study(tmp_path / "s.yaml")


def test_engines_over_a_number_of_gpus_that_the_model_cannot_be_split_over_are_refused() -> None:
    model = ModelSpec(path="m", tensor_parallel=(2, 4), memory_gib=161)
    gpus = [EngineRuntime(gpus_per_engine=n, tensor_parallel=n) for n in (1, 2)]
    with refused("an engine of m takes 2, 4 GPUs, 161 GiB in all, not 1", place="tensor_parallel", value=1):
        check_engine_size(model, Runtime(engine=gpus[0]))
    check_engine_size(model, Runtime(engine=gpus[1]))
    check_engine_size(ModelSpec(path="m"), Runtime(engine=gpus[0]))
    check_engine_size(model, Runtime(engine=EngineRuntime()))  # on a CPU
