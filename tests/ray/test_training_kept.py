"""Engines that are kept from run to run, and models that are kept of several epochs, with real DeepSpeed in two ranks.

All runs share the pair of ranks of test_training.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from test_training import BF16, LORA, SPEC, Bench, bench, digests

from sftlab.training.records import KeptEpoch, SFTRun, read_result
from sftlab.training.spec import SFTSpec
from sftlab.weights.delta_folder import open_tuned
from sftlab.weights.shards import Checkpoint

pytestmark = pytest.mark.slow
__all__ = ["bench"]  # the fixture

KINDS = {"fp32": ("llama", SPEC), "bf16": ("llama", BF16), "tied": ("tied", BF16), "lora": ("llama", LORA)}


def count_engines(_: Any) -> None:
    """In a rank: write down for which runs an engine is built."""
    import sftlab.training.live as live

    if not hasattr(live, "built"):
        build, live.built = live.build, []  # type: ignore[attr-defined]

        def counted(run: SFTRun, *given: Any) -> Any:
            live.built.append(run.run_id)  # type: ignore[attr-defined]
            return build(run, *given)

        live.build = counted


def engines(_: Any) -> list[str]:
    import sftlab.training.live as live

    return live.built  # type: ignore[attr-defined,no-any-return]


def call(bench: Bench, function: Any) -> list[Any]:
    return ray.get([rank.__ray_call__.remote(function) for rank in bench.ranks])


@pytest.mark.parametrize(
    ("kind", "stage"),
    [("fp32", 0), ("bf16", 0), ("bf16", 1), ("tied", 2), ("fp32", 3), ("lora", 0)],
)
def test_a_run_has_the_bits_of_a_new_engine_after_another_run_of_its_base(
    bench: Bench, kind: str, stage: int
) -> None:
    base, spec = KINDS[kind]
    seed = spec.seed if spec.lora else 7
    other = spec.model_copy(update={"learning_rate": 3e-3, "schedule": "constant", "seed": seed, "epochs": 2})
    alone, before, after = (
        bench.run(f"{what}-{kind}-{stage}", base, setting)
        for what, setting in (("alone", spec), ("before", other), ("after", spec))
    )
    call(bench, count_engines)
    events, _ = bench.train([alone], zero_stage=stage)
    assert events[-1] == "finished", events
    events, _ = bench.train([before, after], zero_stage=stage)
    assert events[-1] == "finished", events
    assert call(bench, engines)[0][-2:] == [alone.run_id, before.run_id]
    wanted, result = read_result(alone), read_result(after)
    assert wanted is not None and result is not None
    assert result.losses == wanted.losses
    assert digests(after.output_dir) == digests(alone.output_dir) != digests(before.output_dir)


def test_a_run_of_another_method_base_or_prevention_gets_a_new_engine(bench: Bench) -> None:
    pull = SPEC.model_copy(update={"l2_sp": 1.0})
    specs = [("llama", SPEC), ("llama", LORA), ("gpt2", SPEC), ("gpt2", pull), ("gpt2", pull)]
    runs = [bench.run(f"mixed-{number}", base, spec) for number, (base, spec) in enumerate(specs)]
    call(bench, count_engines)
    bench.train(runs)
    assert call(bench, engines)[0][-5:] == [run.run_id for run in runs]
    outputs = [digests(run.output_dir) for run in runs]
    assert outputs[3] == outputs[4] != outputs[2]


TWO = SPEC.model_copy(update={"schedule": "constant", "epochs": 2})


def kept_run(bench: Bench, name: str, spec: SFTSpec = TWO) -> SFTRun:
    run = bench.run(name, "llama", spec)
    return replace(run, kept=(KeptEpoch(1, f"{run.output_dir}-e1"),))


def test_one_run_exports_the_models_of_several_epochs_and_resumes_between_them(bench: Bench) -> None:
    one, _ = bench.result("constant-1", "llama", TWO.model_copy(update={"epochs": 1}))
    two, wanted = bench.result("constant-2", "llama", TWO)
    run = kept_run(bench, "kept")
    events, _ = bench.train([run], stop_after=6)
    assert events == [*["step"] * 3, "kept", *["step"] * 3, "checkpoint", "Stopped: kept"]
    assert read_result(run) is None
    events, _ = bench.train([run])
    assert events == ["resumed", "step", "step", "finished"]
    early, last = read_result(run, run.kept[0]), read_result(run)
    assert early is not None and last is not None
    assert (early.steps, last.steps) == (4, 8)
    assert early.losses == wanted.losses[:4] and last.losses == wanted.losses
    assert digests(run.kept[0].output_dir) == digests(one.output_dir)
    assert digests(run.output_dir) == digests(two.output_dir)


def test_an_epoch_that_is_missing_is_trained_again_and_what_is_committed_stays(bench: Bench) -> None:
    run = kept_run(bench, "kept-again")
    bench.train([run])
    early, commit = digests(run.kept[0].output_dir), Path(run.output_dir) / "training.json"
    before = commit.read_bytes()
    shutil.rmtree(run.kept[0].output_dir)
    events, _ = bench.train([run])
    assert events == [*["step"] * 3, "kept", *["step"] * 5, "finished"]
    assert digests(run.kept[0].output_dir) == early
    assert commit.read_bytes() == before
    assert bench.train([run])[0] == []


@pytest.mark.parametrize(
    ("kind", "stage", "written"),
    [
        ("fp32", 0, "weights.delta.json"),
        ("tied", 2, "weights.delta.json"),
        ("bf16", 3, "weights.delta.json"),
        ("lora", 0, "adapter_model.safetensors"),
    ],
)
def test_a_small_form_is_read_as_the_folder_that_would_have_been_written(
    bench: Bench, kind: str, stage: int, written: str
) -> None:
    base, spec = KINDS[kind]
    whole, small = (bench.run(f"{form}-form-{kind}", base, spec) for form in ("whole", "small"))
    events, _ = bench.train([whole, replace(small, form="delta")], zero_stage=stage)
    assert events[-1] == "finished", events
    folder = Path(small.output_dir)
    assert (folder / written).is_file() and (folder / "config.json").is_file()
    assert not list(folder.glob("model*.safetensors")) and not (folder / ".packed").exists()
    with open_tuned(folder, whole.base_model) as read, Checkpoint.open(whole.output_dir) as expected:
        assert sorted(read.names) == sorted(expected.names)
        for name in expected.names:
            assert torch.equal(read.read(name), expected.read(name)), name
    assert read_result(small) is not None


def test_an_adapter_of_a_run_is_one_that_peft_merges_to_the_same_model(bench: Bench) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = replace(bench.run("peft-form", "llama", LORA), form="delta")
    whole, _ = bench.result("peft-whole", "llama", LORA)
    bench.train([run])
    base = AutoModelForCausalLM.from_pretrained(run.base_model)
    merged = PeftModel.from_pretrained(base, run.output_dir).merge_and_unload().state_dict()
    with Checkpoint.open(whole.output_dir) as expected:
        for name in expected.names:
            assert torch.equal(merged[name].to(expected.dtype(name)), expected.read(name)), name
