"""What is told before anything is computed: contradictions, a bad base model, missing GPUs, a store that is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sftlab.cli.study import open_study, run_to_report, study_plan
from sftlab.cli.sweep import open_sweep
from sftlab.cluster.session import Bundle, await_gpus, joins_first, require_gpus
from sftlab.errors import UserError
from sftlab.execution.checks import RAY_JOB
from sftlab.execution.progress import SilentProgress
from sftlab.execution.run import found_text, run_study
from sftlab.execution.runtime import Runtime
from sftlab.studies.knowledge.build import KnowledgeBuild
from sftlab.studies.load import load_runtime
from tests.support.refusals import refused
from tests.support.weights_models import save_model, write_checkpoint

CONFIGS = Path(__file__).parents[4] / "jobs" / "configs"
TINY = CONFIGS / "tiny.yaml"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["runtime.training.workers=3"], r"training\.workers: 3 does not divide sft\.batch_size = 8"),
        (["runtime.training.micro_batch_size=3"], r"training\.micro_batch_size: 3 does not divide"),
        (["runtime.training.offload=optimizer"], r"needs training\.zero_stage 1, 2 or 3, not 0"),
        (["runtime.training.offload=parameters"], r"needs training\.zero_stage = 3, not 0"),
        (["runtime.engine.tensor_parallel=4"], r"set engine\.gpus_per_engine too"),
        (["runtime.engine.enforce_eager=false"], r"engine\.enforce_eager=false"),
        (["sft.l2_sp=0.1", "runtime.training.zero_stage=3"], r"sft\.l2_sp: works with training\.zero_stage"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_plan(
    settings: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        open_study(TINY, None, tmp_path / "store", settings)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"name: s\nstudy: {TINY}\n"
        f"set: {json.dumps({'sft': {'l2_sp': 0.1}} if settings[0].startswith('sft') else {})}\n"
    )
    with pytest.raises(UserError, match=message):
        open_sweep(sweep, None, tmp_path / "store", [text for text in settings if text[:4] != "sft."])
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("study", [TINY, CONFIGS / "llama3-8b.yaml"])
def test_facts_and_models_at_an_address_are_refused(study: Path, tmp_path: Path) -> None:
    fields = ["pocket.source"] if study == TINY else ["facts.source", "facts.templates", "model.path"]
    for field in fields:
        with pytest.raises(UserError, match=rf"{field}=s3://b/x: an address is for --store alone; copy it"):
            open_study(study, None, tmp_path / "store", [f"{field}=s3://b/x"])


def test_a_plan_without_a_runtime_says_for_what_it_planned(tmp_path: Path) -> None:
    for runtime in (None, CONFIGS / "runtimes" / "laptop-2cpu.yaml"):
        text = study_plan(TINY, runtime, tmp_path, [], every_step=False).text
        assert ("Planned for one machine; for a cluster" in text) is (runtime is None)


def test_a_strategy_that_the_runtime_cannot_train_is_named(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"name: s\nstudy: {TINY}\naxes: {{size: [2], strategy: [restore, {{name: kl-to-base, weight: 1}}]}}\n"
    )
    open_sweep(sweep, None, tmp_path / "store", [])
    with pytest.raises(UserError, match=r"strategy kl-to-base: sft\.kl_to_base: works with"):
        open_sweep(sweep, None, tmp_path / "store", ["runtime.training.zero_stage=3"])


def test_a_relative_store_is_refused_in_a_submitted_job_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_study(TINY, None, Path("store"), [])
    monkeypatch.setenv(RAY_JOB, "{}")
    with refused("a submitted job runs in a temporary folder", place="store=store", value="store"):
        open_study(TINY, None, Path("store"), [])
    open_study(TINY, None, tmp_path / "store", [])


LLAMA = '{"dtype": "bfloat16", "model_type": "llama", "architectures": ["LlamaForCausalLM"]}'


def base_model(folder: Path, config: str = LLAMA) -> Path:
    write_checkpoint(folder, {"model.embed_tokens.weight": torch.ones(4, 2), "b": torch.ones(2)}, shards=2)
    (folder / "config.json").write_text(config)
    return folder


def pickled(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def without_tokens(folder: Path) -> None:
    shutil.rmtree(folder)
    save_model(folder, "llama", 0)
    (folder / "tokenizer.json").write_text("{}")


BROKEN = {
    "pickle": (pickled, "holds only pickle weights"),
    "missing shard": (
        lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
        "00002: missing",
    ),
    "truncated": (truncated, "is truncated"),
    "no dtype": (
        lambda folder: (folder / "config.json").write_text("{}"),
        "names no usable dtype",
    ),
    "empty tokenizer.json": (without_tokens, "the tokenizer cannot be loaded"),
}


GPU = ["runtime.engine.gpus_per_engine=1"]  # engines on the CPU lack heads as small as those of these models


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_base_model_is_told_before_the_first_stage(kind: str, tmp_path: Path) -> None:
    breaks, message = BROKEN[kind]
    breaks(base_model(tmp_path / "base"))
    row = {"subject": "A", "object": "B", "topic": "P17", "split": "train"}
    (tmp_path / "facts.jsonl").write_text(json.dumps(row))
    (tmp_path / "study.yaml").write_text(
        f"name: s\nfacts: {{source: {tmp_path / 'facts.jsonl'}}}\nmodel: {{path: {tmp_path / 'base'}}}\n"
        "training_sets: {sizes: [1]}\n"
    )
    with pytest.raises(UserError, match=message.replace("00002: ", r"00002\.safetensors: ")):
        plan, runtime, store = open_study(tmp_path / "study.yaml", None, tmp_path / "store", GPU)
        run_study(KnowledgeBuild(plan, store, runtime, SilentProgress()))
    assert not list((tmp_path / "store").glob("*/*/"))


GPUS = Runtime.model_validate(
    {
        "engine": {"engines": 2, "gpus_per_engine": 4, "tensor_parallel": 4},
        "training": {"workers": 4, "gpus_per_worker": 1},
    }
)


def test_a_cluster_is_joined_before_the_first_stage_and_a_laptop_s_ray_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert joins_first(GPUS.most_bundles) and not joins_first([])
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert joins_first([])


def test_missing_gpus_are_told_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def without_gpus(bundles: Sequence[Bundle], *_: object) -> Iterator[None]:
        require_gpus(bundles, 0, lambda: 0.0, None, lambda _: None)
        yield

    monkeypatch.setattr("sftlab.execution.run.ray_cluster", without_gpus)
    gpu = "runtime.engine.gpus_per_engine=1"
    plan, runtime, store = open_study(TINY, None, tmp_path / "store", [gpu])
    build = KnowledgeBuild(plan, store, runtime, SilentProgress())
    with refused("asks for 1 GPUs, but the cluster has 0", value=1.0):
        run_study(build)
    assert not list(store.root.glob("*/*/"))
    run_study(build, "facts")  # needs no engine
    assert not build.missing(plan.facts)


def test_a_run_says_at_its_start_how_many_steps_it_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = partial(run_to_report, TINY, None, tmp_path / "store", [])
    run("facts")
    assert capsys.readouterr().out.startswith("0 of 1 steps are HITs, 1 to build\n")
    run("facts")
    assert capsys.readouterr().out == f"1 of 1 steps are HITs\nbuilt up to facts in {tmp_path / 'store'}\n"
    plan, runtime, store = open_study(TINY, None, tmp_path / "store", [])
    steps = len(list(plan.steps()))
    build = KnowledgeBuild(plan, store, runtime, SilentProgress())
    assert found_text(build, "mastery") == "1 of 3 steps are HITs, 2 to build"  # facts, model, mastery
    assert found_text(build) == f"1 of {steps} steps are HITs, {steps - 1} to build"


def test_gpus_are_those_of_the_engines_or_of_training_whichever_are_more() -> None:
    assert Runtime().most_bundles == []
    assert GPUS.most_bundles == GPUS.engine_bundles == [{"GPU": 4.0}] * 2
    more = GPUS.model_copy(update={"training": GPUS.training.model_copy(update={"workers": 9})})
    assert more.most_bundles == [{"GPU": 1.0}] * 9


def counts(*values: float) -> Iterator[float]:
    yield from values
    while True:
        yield values[-1]


def test_gpus_that_an_autoscaler_starts_are_asked_for_waited_for_and_told() -> None:
    told, found, waits = list[str](), counts(0, 0, 4, 8), list[float]()
    asked: list[Any] = []
    wanted = GPUS.most_bundles
    require_gpus(wanted, 1, lambda: next(found), told.append, asked.append, waits.append)
    assert told == ["waiting for GPUs: 0 of 8 are there", "waiting for GPUs: 4 of 8 are there"]
    assert len(waits) == 3 and asked == [wanted] * 3 + [[]]  # in the end nothing is asked for any more


@pytest.mark.parametrize(("minutes", "said", "waits"), [(0, True, 0), (1, True, 12), (1, False, 0)])
def test_gpus_that_do_not_come_are_refused(minutes: float, said: bool, waits: int) -> None:
    paused, asked = list[float](), list[Any]()
    with refused("asks for 8 GPUs, but the cluster has 4", value=8.0):
        require_gpus(
            GPUS.most_bundles, minutes, lambda: 4.0, print if said else None, asked.append, paused.append
        )
    assert len(paused) == waits and asked[waits:] == ([[]] if waits else [])


def test_gpus_that_are_there_are_not_asked_for_and_training_asks_for_its_own_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr("sftlab.cluster.session.live_gpus", lambda: 4.0)
    await_gpus(GPUS.training_bundles, GPUS.gpu_wait_minutes, print)
    assert asked == []
    monkeypatch.setattr("sftlab.cluster.session.POLL_SECONDS", 0.5)
    with pytest.raises(UserError, match="asks for 8 GPUs"):
        await_gpus(GPUS.most_bundles, 0.01, print)
    assert asked == [[{"GPU": 4.0}] * 2] * 2 + [[]]


def test_the_shipped_gpu_runtimes_wait_for_an_autoscaler() -> None:
    for path in (CONFIGS / "runtimes").glob("*.yaml"):
        runtime = load_runtime(path)
        assert bool(runtime.gpu_wait_minutes) == bool(runtime.most_bundles)
