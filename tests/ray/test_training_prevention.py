"""Prevention during fine-tuning with real DeepSpeed in two ranks: against a plain loop, and what it prevents.

All runs share the pair of ranks of test_training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from test_training import BF16, LORA, SPEC, Bench, bench, digests, distance, tensors

from sftlab.training.batches import step_batches
from sftlab.training.records import ProbeMask, SFTResult, SFTRun, read_result
from sftlab.training.spec import MaskSpec, SFTSpec
from sftlab.weights.change_profile import profile
from sftlab.weights.selection import is_restored_mask

pytestmark = pytest.mark.slow
__all__ = ["bench"]  # the fixture

PERCENT = "30"
MASK = MaskSpec(percent=30, size=13)
PLAIN = {"fp32": SPEC.model_copy(update={"weight_decay": 0.0}), "bf16": BF16}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "l2_sp": {"l2_sp": 300.0},
    "clip_relative": {"clip_relative": 0.02},
    "kl_to_base": {"kl_to_base": 20.0},
    "freeze_layers": {"freeze_layers": "0"},
    "mask": {"mask": MASK},
}
TOGETHER = {"l2_sp": 200.0, "clip_relative": 0.02, "kl_to_base": 10.0, "freeze_layers": "0", "mask": MASK}
LAYOUTS = [("llama", 0), ("tied", 1), ("llama", 2)]


def train(bench: Bench, runs: list[SFTRun], **runtime: Any) -> list[SFTResult]:
    """Train those of the runs that are not there yet in one go."""
    missing = [run for run in runs if read_result(run) is None]
    events = bench.train(missing, **runtime) if missing else []
    results = [result for run in runs if (result := read_result(run)) is not None]
    assert len(results) == len(runs), events
    return results


def probe_mask(bench: Bench, base: str, precision: str) -> ProbeMask:
    """The mask of a probe that is trained like the runs below, without ZeRO."""
    probe = bench.run(f"probe-{base}-{precision}", base, PLAIN[precision])
    train(bench, [probe])
    return ProbeMask(probe.output_dir, profile(probe.base_model, probe.output_dir, [PERCENT]).cuts[PERCENT])


def masked_weights(run: SFTRun) -> dict[str, torch.Tensor]:
    """Which weights a run must not have updated."""
    assert run.mask is not None
    base, probe = tensors(run.base_model), tensors(run.mask.probe)
    return {name: is_restored_mask(name, base[name], probe[name], run.mask.cut) for name in base}


def answers(run: SFTRun) -> Iterator[tuple[torch.Tensor, slice]]:
    """Every fact as token ids (1, length), and the positions whose logits predict its answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.base_model)
    for fact in pq.read_table(run.train_file).to_pylist():
        question = tokenizer(fact["prompt"])["input_ids"]
        answer = [*tokenizer(fact["target"])["input_ids"], 1]
        yield torch.tensor([[0, *question, *answer]]), slice(len(question), len(question) + len(answer))


def answer_divergence(run: SFTRun, folder: str) -> float:
    """Mean KL(base || model) in nats over all answer tokens of a run's facts, by its definition."""
    from transformers import AutoModelForCausalLM

    base, model = (AutoModelForCausalLM.from_pretrained(f).float() for f in (run.base_model, folder))
    found: list[float] = []
    with torch.no_grad():
        for ids, where in answers(run):
            p, q = (m(ids).logits[0, where].double().softmax(-1) for m in (base, model))
            found += (p * (p / q).log()).sum(-1).tolist()
    return sum(found) / len(found)


def plain_loop(run: SFTRun) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and weights of the same float32 run by the formulas of docs/method.md: one process, no DeepSpeed."""
    from sftlab.training.hf_model import load_model

    spec, base = run.spec, Path(run.base_model)
    model, original = load_model(base, spec, None), load_model(base, spec, None).eval()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    masked = masked_weights(run)
    trained = {n: p for n, p in model.named_parameters() if ".layers.0." not in n or not spec.freeze_layers}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.0, betas=spec.betas, eps=spec.eps, weight_decay=0.0)
    facts, losses = list(answers(run)), []
    batches = step_batches(len(facts), spec)
    for step, batch in enumerate(batches):
        nats, divergence, count = torch.zeros(()), torch.zeros(()), 0
        for ids, where in (facts[i] for i in batch):
            log_q = model(ids).logits[0, where].log_softmax(-1)
            p = original(ids).logits[0, where].softmax(-1).detach()
            nats = nats - log_q.gather(1, ids[0, where.start + 1 :, None]).sum()
            divergence = divergence + (p * (p.log() - log_q)).sum()
            count += len(log_q)
        (nats / count + (spec.kl_to_base or 0.0) * divergence / count).backward()
        losses.append(nats.item() / count)
        rate = spec.learning_rate * 0.5 * (1 + math.cos(math.pi * step / len(batches)))
        for name, weights in trained.items():
            assert weights.grad is not None
            weights.grad[masked[name]] = 0
            weights.data -= rate * (spec.l2_sp or 0.0) * (weights.data - start[name])
        torch.nn.utils.clip_grad_norm_(trained.values(), spec.max_grad_norm or math.inf)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        if spec.clip_relative is not None:
            for name, weights in trained.items():
                most = spec.clip_relative * start[name].abs()
                weights.data = start[name] + (weights.data - start[name]).clamp(-most, most)
        model.zero_grad()
    return losses, model.state_dict()


@pytest.mark.parametrize(
    ("stage", "runtime"), [(0, {}), (1, {"gradient_checkpointing": True}), (2, {"offload": "optimizer"})]
)
def test_all_options_together_equal_a_plain_loop(bench: Bench, stage: int, runtime: dict[str, Any]) -> None:
    """Two ranks with micro-batches of one, so that nothing is counted once a rank or once a micro-batch."""
    spec = PLAIN["fp32"].model_copy(update=TOGETHER)
    mask = probe_mask(bench, "llama", "fp32")
    run = replace(bench.run(f"together-{stage}", "llama", spec), mask=mask)
    (result,) = train(bench, [run], zero_stage=stage, micro_batch_size=1, **runtime)
    losses, wanted = plain_loop(run)
    assert result.losses == pytest.approx(losses, abs=1e-5)
    out = tensors(run.output_dir)
    assert distance(out, wanted) < 2e-6
    assert distance(tensors(run.base_model), wanted) > 1e-4


@pytest.mark.parametrize(
    "change", [{"kl_to_base": 20.0}, {"l2_sp": 400.0}, {"freeze_layers": None}, {"clip_relative": 0.01}]
)
def test_the_plain_loop_tells_an_option_that_is_counted_twice(bench: Bench, change: dict[str, Any]) -> None:
    spec = PLAIN["fp32"].model_copy(update=TOGETHER)
    mask = probe_mask(bench, "llama", "fp32")
    run = replace(bench.run("unused", "llama", spec), mask=mask)
    _, wanted = plain_loop(run)
    _, other = plain_loop(replace(run, spec=spec.model_copy(update=change)))
    assert distance(other, wanted) > 1e-5


@pytest.fixture(scope="module")
def prevented(bench: Bench) -> dict[tuple[str, int, str], SFTRun]:
    """A bf16 run of every option, and one without, in every layout; one call for each layout."""
    found = {}
    for base, stage in LAYOUTS:
        mask = probe_mask(bench, base, "bf16")
        for name, fields in OPTIONS.items():
            run = bench.run(f"{name}-{base}-{stage}", base, BF16.model_copy(update=fields))
            found[base, stage, name] = replace(run, mask=mask if name == "mask" else None)
        train(bench, [found[base, stage, name] for name in OPTIONS], zero_stage=stage)
    return found


Prevented = dict[tuple[str, int, str], SFTRun]


@pytest.mark.parametrize(("base", "stage"), LAYOUTS)
def test_l2_sp_keeps_the_weights_nearer_to_the_base(prevented: Prevented, base: str, stage: int) -> None:
    def moved(run: SFTRun) -> float:
        start, out = tensors(run.base_model), tensors(run.output_dir)
        return math.sqrt(sum((out[n].float() - start[n].float()).square().sum().item() for n in out))

    plain, pulled = moved(prevented[base, stage, "plain"]), moved(prevented[base, stage, "l2_sp"])
    assert 0 < pulled < 0.9 * plain


@pytest.mark.parametrize(("base", "stage"), LAYOUTS)
def test_no_weight_is_further_from_the_base_than_the_limit(
    prevented: Prevented, base: str, stage: int
) -> None:
    plain, limited = prevented[base, stage, "plain"], prevented[base, stage, "clip_relative"]
    start, free, out = (
        tensors(folder) for folder in (plain.base_model, plain.output_dir, limited.output_dir)
    )
    beyond = bound = 0
    for name, before in start.items():
        p = before.double()
        most = 0.02 * p.abs()
        moved = (out[name].double() - p).abs()
        spacing = torch.finfo(before.dtype).eps * p.abs()  # of stored weights, to which the limit is rounded
        assert bool((moved <= most + spacing).all()), name
        beyond += int(((free[name].double() - p).abs() > most + spacing).sum())
        bound += int(((moved >= most - spacing) & (p != 0)).sum())
    assert beyond > 100 and bound > 100


@pytest.mark.parametrize(("base", "stage"), LAYOUTS)
def test_the_kl_term_keeps_the_answers_nearer_to_the_base_s(
    prevented: Prevented, base: str, stage: int
) -> None:
    plain, kept = (
        answer_divergence(run, run.output_dir)
        for run in (prevented[base, stage, "plain"], prevented[base, stage, "kl_to_base"])
    )
    assert 0 < kept < 0.8 * plain


@pytest.mark.parametrize(("base", "stage"), LAYOUTS)
def test_frozen_layers_have_the_base_s_bits_and_others_have_changed(
    prevented: Prevented, base: str, stage: int
) -> None:
    check_frozen(prevented[base, stage, "freeze_layers"])


def check_frozen(run: SFTRun) -> None:
    """Layer 0 is the base's, and every matrix of layer 1 is not."""
    start, out = tensors(run.base_model), tensors(run.output_dir)
    for name in out:
        if ".layers.0." in name:
            assert torch.equal(out[name], start[name]), name
        elif ".layers.1." in name and out[name].ndim == 2:
            assert not torch.equal(out[name], start[name]), name


def test_frozen_layers_under_zero_3(bench: Bench) -> None:
    run = bench.run("freeze-3", "llama", BF16.model_copy(update={"freeze_layers": "0"}))
    train(bench, [run], zero_stage=3)
    check_frozen(run)


@pytest.mark.parametrize(("base", "stage"), LAYOUTS)
def test_masked_weights_have_the_base_s_bits_and_others_have_changed(
    prevented: Prevented, base: str, stage: int
) -> None:
    run = prevented[base, stage, "mask"]
    start, out = tensors(run.base_model), tensors(run.output_dir)
    plain = tensors(prevented[base, stage, "plain"].output_dir)
    masked = masked_weights(run)
    assert run.mask is not None
    assert sum(int(m.sum()) for m in masked.values()) == run.mask.cut.count > 1000
    for name, chosen in masked.items():
        bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[out[name].dtype]
        assert torch.equal(out[name][chosen].view(bits), start[name][chosen].view(bits)), name
    inside = [name for name, chosen in masked.items() if chosen.any()]
    moved = sum(int((out[n] != start[n])[~masked[n]].sum()) for n in inside)
    would = sum(int((plain[n] != start[n])[~masked[n]].sum()) for n in inside)
    assert moved > 0.9 * would > 0
    assert any((plain[n] != start[n])[masked[n]].any() for n in inside)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stopped_run_with_all_options_resumes_to_the_same_bits(bench: Bench, stage: int) -> None:
    spec = BF16.model_copy(update=TOGETHER)
    mask = probe_mask(bench, "llama", "bf16")
    whole = replace(bench.run(f"whole-{stage}", "llama", spec), mask=mask)
    (wanted,) = train(bench, [whole], zero_stage=stage)
    run = replace(bench.run(f"stopped-{stage}", "llama", spec), mask=mask)
    events, _ = bench.train([run], stop_after=2, zero_stage=stage)
    assert events[-1] == f"Stopped: {run.run_id}" and read_result(run) is None
    events, _ = bench.train([run], zero_stage=stage)
    assert events == ["resumed", "step", "step", "finished"]
    result = read_result(run)
    assert result is not None and result.losses == wanted.losses
    assert digests(run.output_dir) == digests(whole.output_dir)


def test_adapters_take_a_kl_term_and_frozen_layers(bench: Bench) -> None:
    lora = LORA.model_copy(update={"learning_rate": 2e-2})
    fields: dict[str, SFTSpec] = {
        "plain": lora,
        "kl": lora.model_copy(update={"kl_to_base": 20.0}),
        "frozen": lora.model_copy(update={"freeze_layers": "0"}),
    }
    runs = {name: bench.run(f"lora-{name}", "llama", spec) for name, spec in fields.items()}
    train(bench, list(runs.values()), zero_stage=2)
    plain, kept = (answer_divergence(runs[name], runs[name].output_dir) for name in ("plain", "kl"))
    assert 0 < kept < 0.8 * plain
    check_frozen(runs["frozen"])
