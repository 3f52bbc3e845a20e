"""The plans of studies, sweeps and surveys refuse a model that a later stage could not serve or train."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sftlab.cli.study import study_plan
from sftlab.cli.survey import Extent, open_survey, survey_plan
from sftlab.cli.sweep import sweep_plan
from sftlab.errors import UserError
from sftlab.execution.checks import check_pocket_model, engines_on_cpu
from sftlab.execution.runtime import Runtime
from sftlab.execution.stage import Stage
from sftlab.inference.model_check import CPU_HEAD_SIZES, check_model
from sftlab.inference.spec import EngineRuntime
from sftlab.pocket.spec import Shape
from sftlab.studies.knowledge.pipeline import STAGES as STUDY
from sftlab.studies.survey.pipeline import STAGES as SURVEY
from tests.support.refusals import refused
from tests.support.weights_models import write_checkpoint

CONFIGS = Path(__file__).parents[3] / "jobs" / "configs"
TINY = CONFIGS / "tiny.yaml"
LAYERS = "layers: 2, intermediate: 64, vocabulary: 600, sequence: 64"
ENDS = ("model.embed_tokens", "lm_head")
Plan = Callable[[Path, list[str]], object]


def plan_study(folder: Path, settings: list[str]) -> object:
    return study_plan(TINY, None, folder / "store", settings, False)


def plan_sweep(folder: Path, settings: list[str]) -> object:
    axes = {"data": [0], "size": [2], "seed": [0], "strategy": ["restore"]}
    held = [text for text in settings if not text.startswith("runtime.")]
    fields = dict(text.split("=", 1) for text in held)
    changed = {name: yaml.safe_load(value) for name, value in fields.items()}
    sweep = {"name": "s", "study": str(TINY), "axes": axes, "set": changed}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return sweep_plan(folder / "sweep.yaml", None, folder / "store", [s for s in settings if s not in held])


def plan_survey(folder: Path, settings: list[str]) -> object:
    moved = [text.replace("pocket.shape", "bases.pocket.a.shape") for text in settings]
    build = open_survey(CONFIGS / "surveys" / "tiny.yaml", None, str(folder / "store"), moved)
    return survey_plan(build, Extent(), by_default=True)


PLANS: dict[str, Plan] = {"study": plan_study, "sweep": plan_sweep, "survey": plan_survey}


@pytest.mark.parametrize("kind", PLANS)
def test_heads_that_engines_on_the_cpu_lack_are_refused_by_the_plan(kind: str, tmp_path: Path) -> None:
    odd = f"pocket.shape={{hidden: 48, heads: 2, {LAYERS}}}"
    with refused("heads of size 24 are not computed by vLLM on the CPU", value=24, advice="on a GPU"):
        PLANS[kind](tmp_path, [odd])
    assert not list(tmp_path.glob("store/*/*/"))
    PLANS[kind](tmp_path, [odd, "runtime.engine.gpus_per_engine=1"])


@pytest.mark.parametrize("kind", ["study", "survey"])
def test_a_folder_with_heads_that_engines_on_the_cpu_lack_is_refused_by_the_plan(
    kind: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "m", {f"{name}.weight": torch.ones(4, 2) for name in ENDS})
    config = {"dtype": "float32", "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    shape = {"hidden_size": 48, "num_attention_heads": 2}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | shape))
    with refused("heads of size 24", place="config.json", value=24):
        if kind == "survey":
            plan_survey(tmp_path, [f"bases.folders={{m: {{path: {tmp_path}/m, family: l}}}}"])
        else:
            study = {"name": "s", "model": {"path": str(tmp_path / "m")}, "training_sets": {"sizes": [1]}}
            (tmp_path / "f.jsonl").write_text('{"subject": "A", "object": "B", "topic": "P17"}')
            study["facts"] = {"source": str(tmp_path / "f.jsonl")}
            (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
            study_plan(tmp_path / "study.yaml", None, tmp_path / "store", [], False)


@given(half=st.integers(4, 260), heads=st.integers(1, 8))
def test_a_shape_is_refused_on_the_cpu_exactly_where_vllm_lacks_its_heads(half: int, heads: int) -> None:
    shape = Shape(hidden=2 * half * heads, heads=heads)
    check_pocket_model(shape, [], on_cpu=False)
    if 2 * half in CPU_HEAD_SIZES:
        check_pocket_model(shape, [], on_cpu=True)
    else:
        with refused(value=2 * half, place="(hidden / heads)"):
            check_pocket_model(shape, [], on_cpu=True)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("size", range(8, 136, 8))
def test_head_sizes_are_found_in_every_form_of_config(nested: bool, size: int, tmp_path: Path) -> None:
    known = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    for form in (
        {"head_dim": size, "hidden_size": 64, "num_attention_heads": 2},
        {"hidden_size": 3 * size, "num_attention_heads": 3},
        {"n_embd": 5 * size, "n_head": 5},
    ):
        config = known | ({"text_config": form} if nested else form)
        (tmp_path / "config.json").write_text(json.dumps(config))
        check_model(tmp_path, on_cpu=False)
        if size in CPU_HEAD_SIZES:
            check_model(tmp_path, on_cpu=True)
        else:
            with refused(value=size):
                check_model(tmp_path, on_cpu=True)


@pytest.mark.parametrize("stages", [STUDY, SURVEY])
def test_only_stages_that_start_engines_without_gpus_ask_for_these_heads(stages: Sequence[Stage]) -> None:
    on_gpu = Runtime(engine=EngineRuntime(gpus_per_engine=1))
    for stage in stages:
        assert engines_on_cpu([stage], Runtime()) is (stage.starts_engines is not None)
        assert not engines_on_cpu([stage], on_gpu)


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        ("nonsense", "no module of the model is named nonsense"),
        ("q_proj, nonsense, up_prj", "no module of the model is named nonsense or up_prj"),
        ("embed_tokens", "names an embedding"),
    ],
)
def test_names_of_no_linear_layer_of_a_pocket_model_are_refused_by_the_plan(
    kind: str, targets: str, problem: str, tmp_path: Path
) -> None:
    def planned(names: str) -> None:
        PLANS[kind](tmp_path, [f"sft.lora={{rank: 2, target_modules: [{names}]}}"])

    planned("q_proj, down_proj")
    with refused(problem, place="sft.lora.target_modules"):
        planned(targets)
    assert not list(tmp_path.glob("store/*/*/"))


def test_layers_that_a_base_of_a_survey_lacks_are_refused_by_the_plan(tmp_path: Path) -> None:
    """A ladder restores, and a method freezes, layers of a base that is not made yet."""
    for setting in ("restore.layers=0-9", "sft.freeze_layers=9"):
        with pytest.raises(UserError, match=r"base a: .*the pocket model .* include layer"):
            plan_survey(tmp_path, ["restore.percents=[5]", setting])
