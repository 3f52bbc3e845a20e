"""Frozen layers, the pull to the base, the KL term and masked gradients, against hand-computed values."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from sftlab.errors import UserError
from sftlab.training.batches import IGNORED
from sftlab.training.prevention import (
    freeze_layers,
    frozen_base,
    kl_to_base,
    limit,
    limit_to_base,
    mask_gradients,
    pull,
    pull_to_base,
)
from sftlab.training.records import ProbeMask, SFTRun, run_identity
from sftlab.training.sft import check_runs
from sftlab.training.spec import LoRASpec, MaskSpec, SFTSpec, TrainingRuntime, check_spec
from sftlab.training.stored_tensors import Part
from sftlab.weights.change_profile import profile
from sftlab.weights.selection import is_restored_mask
from tests.support.refusals import refused
from tests.support.weights_models import same_bits, write_checkpoint

HALF = [math.log(0.5), math.log(0.5)]
THREE_QUARTERS = [math.log(0.75), math.log(0.25)]
# KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln(3/2) + 1/4 ln(1/2)
KL = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)


class Toy(torch.nn.Module):
    """An embedding, two layers of a weight and a norm each, and a tied output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = torch.nn.Embedding(4, 2)
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({"mlp": torch.nn.Linear(2, 2), "norm": torch.nn.LayerNorm(2)})
            for _ in range(2)
        )
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight


def test_the_kl_term_is_the_sum_over_the_answer_tokens_of_kl_from_the_base_to_the_model() -> None:
    labels = torch.tensor([[IGNORED, IGNORED, 0, 1]])  # logits at 1 and 2 predict them
    base = torch.tensor([[HALF, THREE_QUARTERS, THREE_QUARTERS, HALF]])
    model = torch.tensor([[THREE_QUARTERS, HALF, THREE_QUARTERS, HALF]], requires_grad=True)
    found = kl_to_base(base + 7, model, labels)  # a shift of all logits changes no probability
    assert found.item() == pytest.approx(KL, abs=1e-6)
    found.backward()
    assert model.grad is not None
    # the gradient at a logit is the model's probability less the base's
    wanted = [[0, 0], [0.5 - 0.75, 0.5 - 0.25], [0, 0], [0, 0]]
    assert model.grad[0].numpy() == pytest.approx(torch.tensor(wanted).numpy(), abs=1e-6)


def test_the_kl_term_has_a_direction_and_reads_bfloat16_as_float32() -> None:
    labels = torch.tensor([[IGNORED, 0]])
    halves, quarters = (
        torch.tensor([[p, HALF]], dtype=torch.bfloat16).float() for p in (HALF, THREE_QUARTERS)
    )
    forward = kl_to_base(quarters.bfloat16(), halves.bfloat16(), labels)
    assert forward.dtype == torch.float32
    assert forward.item() == pytest.approx(kl_to_base(quarters, halves, labels).item(), abs=1e-7)
    assert forward.item() != pytest.approx(kl_to_base(halves, quarters, labels).item(), rel=0.05)


def test_without_an_answer_token_the_kl_term_is_zero_and_still_has_a_gradient() -> None:
    model = torch.zeros(1, 1, 2, requires_grad=True)
    found = kl_to_base(torch.ones(1, 1, 2), model, torch.tensor([[IGNORED]]))
    found.backward()
    assert found.item() == 0 and model.grad is not None and not model.grad.any()


def test_a_pull_is_a_gradient_step_on_half_the_squared_distance_times_the_strength() -> None:
    base, weights = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([1.0, 2.0, 0.0], requires_grad=True)
    rate, strength = 0.05, 5.0
    (strength / 2 * (weights - base).square().sum()).backward()
    assert weights.grad is not None and weights.grad.tolist() == [2.5, 0.0, 5.0]
    pulled = weights.detach().clone()
    pull(pulled, base, rate * strength)
    assert pulled.tolist() == [0.875, 2.0, -0.25]
    assert torch.allclose(pulled, weights.detach() - rate * weights.grad)


def test_a_pull_leaves_weights_that_equal_the_base_to_the_bit() -> None:
    base = torch.tensor([0.0, -0.0, 1e-45, -3e38, 0.1])
    weights = base.clone()
    pull(weights, base, 0.3)
    assert same_bits(weights, base)


def test_an_optimizer_pulls_each_group_by_its_rate_towards_the_weights_it_had() -> None:
    one, two = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([{"params": [one]}, {"params": [two]}], lr=0.1, weight_decay=0.0)
    pull_to_base(optimizer, strength=2.0)
    with torch.no_grad():
        one += 1
        two += 1
    one.grad, two.grad = torch.zeros(2), torch.zeros(2)
    optimizer.step()
    assert one.tolist() == pytest.approx([0.8, 0.8]) and two.tolist() == pytest.approx([1.8, 1.8])
    groups = optimizer.param_groups
    optimizer.param_groups = groups[:1]  # as DeepSpeed does
    groups[0]["lr"] = 0.25
    optimizer.step()
    assert one.tolist() == pytest.approx([0.4, 0.4]) and two.tolist() == pytest.approx([1.8, 1.8])


def test_a_limit_clamps_each_weight_to_a_share_of_its_base_weight() -> None:
    base = torch.tensor([1.0, 1.0, 1.0, -4.0, -4.0, 0.0, 8.0])
    weights = torch.tensor([1.1, 2.0, -3.0, -6.0, -1.0, 0.5, math.nan])
    limit(weights, base, 0.25)
    assert weights.tolist() == pytest.approx([1.1, 1.25, 0.75, -5.0, -3.0, 0.0, math.nan], nan_ok=True)


def test_a_limit_equals_a_clip_of_the_update_and_keeps_the_bits_of_what_is_within() -> None:
    torch.manual_seed(5)
    base, update = torch.randn(2000), torch.randn(2000) * 0.2
    weights = base + update
    found = weights.clone()
    limit(found, base, 0.1)
    wanted = base.double() + torch.sign(update.double()) * torch.minimum(
        (weights.double() - base.double()).abs(), 0.1 * base.double().abs()
    )
    assert torch.allclose(found.double(), wanted, atol=0, rtol=3e-7)
    within = (weights - base).abs() < 0.099 * base.abs()
    assert 0 < int(within.sum()) < 2000 and same_bits(found[within], weights[within])
    odd = torch.tensor([0.0, -0.0, 1e-45, -3e38, 0.1])
    still = odd.clone()
    limit(still, odd, 0.3)
    assert same_bits(still, odd)


def test_an_optimizer_limits_each_group_to_the_weights_it_had() -> None:
    one, two = torch.nn.Parameter(torch.full((2,), 2.0)), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [two]}], lr=1.0)
    limit_to_base(optimizer, share=0.5)
    one.grad, two.grad = torch.tensor([5.0, -0.25]), torch.tensor([-5.0, 0.25])
    optimizer.step()
    assert (one.tolist(), two.tolist()) == ([1.0, 2.25], [1.5, 0.75])
    groups = optimizer.param_groups
    optimizer.param_groups = groups[:1]  # as DeepSpeed does
    with torch.no_grad():
        two += 9
    one.grad.fill_(-5.0)
    optimizer.step()
    assert (one.tolist(), two.tolist()) == ([3.0, 3.0], [10.5, 9.75])


def test_frozen_layers_do_not_train_and_all_else_does() -> None:
    model = Toy()
    freeze_layers(model, "1")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"embed.weight"} | {f"layers.0.{part}" for part in parts()}
    with refused("layer 2, but the model has 2 layers, 0 to 1", place="sft.freeze_layers"):
        freeze_layers(model, "1-2")


def parts() -> set[str]:
    """Names of the parameters of a layer of the toy."""
    return {f"{module}.{kind}" for module in ("mlp", "norm") for kind in ("weight", "bias")}


def test_a_model_with_nothing_left_to_train_is_refused() -> None:
    model = Toy()
    model.embed.weight.requires_grad_(False)
    with refused("leaves nothing to train", place="sft.freeze_layers", value="0-1"):
        freeze_layers(model, "0-1")


def test_the_frozen_base_stays_what_it_was_and_shares_what_does_not_train() -> None:
    model = Toy()
    freeze_layers(model, "0")
    base = frozen_base(model, shared=False)
    before = {name: p.clone() for name, p in base.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 1
    assert model.training and not base.training and not any(p.requires_grad for p in base.parameters())
    assert all(same_bits(p, before[name]) for name, p in base.named_parameters())
    assert base.head.weight is base.embed.weight is not model.embed.weight
    assert base.layers[0]["mlp"].weight is model.layers[0]["mlp"].weight
    assert all(p.requires_grad for p in model.layers[1].parameters())


def test_with_adapters_the_frozen_base_shares_every_weight() -> None:
    model = Toy()
    base = frozen_base(model, shared=True)
    assert [id(p) for p in base.parameters()] == [id(p) for p in model.parameters()]


def save_toy(folder: Path, model: Toy) -> Path:
    """The toy as a checkpoint; the tied output is stored once."""
    found = {name: p.detach().clone() for name, p in model.named_parameters()}
    return write_checkpoint(folder, found)


def test_the_weights_that_a_restoration_of_the_probe_takes_back_get_no_gradient(tmp_path: Path) -> None:
    model = Toy()
    base = save_toy(tmp_path / "base", model)
    probe = Toy()
    torch.manual_seed(4)
    with torch.no_grad():
        for p in probe.parameters():
            p += 0.1 * torch.randn(p.shape)
    folder = save_toy(tmp_path / "probe", probe)
    cut = profile(base, folder, ["50"], region="layers").cuts["50"]
    mask_gradients(
        {name: (Part(p),) for name, p in model.named_parameters()}, base, ProbeMask(str(folder), cut)
    )
    sum((p * (index + 1)).sum() for index, p in enumerate(model.parameters())).backward()
    masked = 0
    for index, (name, p) in enumerate(model.named_parameters()):
        chosen = is_restored_mask(name, p.detach(), dict(probe.named_parameters())[name].detach(), cut)
        assert p.grad is not None
        assert torch.equal(p.grad, torch.where(chosen, 0.0, index + 1.0))
        masked += int((p.grad == 0).sum())
    assert masked == cut.count == 6  # of the 2 x 6 weights of the layers without their norms


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": {"percent": 5, "size": 3}, "weight_decay": 0.1}, "decay would move the masked weights"),
        ({"mask": {"percent": 5, "size": 3}, "lora": {}}, r"sft\.mask with sft\.lora"),
        ({"l2_sp": 1.0, "lora": {}}, r"sft\.l2_sp with sft\.lora"),
        ({"l2_sp": 2000.0, "learning_rate": 1e-3}, "expected at most 1000 at a rate of 0.001"),
        ({"l2_sp": 0.0}, "greater than 0"),
        ({"clip_relative": 1.0, "lora": {}}, r"sft\.clip_relative with sft\.lora"),
        ({"clip_relative": 0.0}, "greater than 0"),
        ({"kl_to_base": -1.0}, "greater than 0"),
        ({"freeze_layers": "3-1"}, "expected layers and ranges of layers"),
        ({"mask": {"percent": 0, "size": 3}}, "greater than 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SFTSpec.model_validate(fields)


def test_a_contradiction_is_found_before_training_too_since_copies_are_not_validated() -> None:
    spec = SFTSpec(mask=MaskSpec(percent=5, size=3)).model_copy(update={"weight_decay": 0.1})
    with refused("decay would move the masked weights", value=0.1):
        check_spec(spec, TrainingRuntime())


@pytest.mark.parametrize(
    "fields",
    [{"l2_sp": 1.0}, {"clip_relative": 1.0}, {"kl_to_base": 1.0}, {"mask": {"percent": 5, "size": 3}}],
)
def test_what_zero_3_cannot_do_is_refused_with_the_stages_that_can(fields: dict[str, object]) -> None:
    (name,) = fields
    spec = SFTSpec.model_validate(fields)
    for stage in (0, 1, 2):
        check_spec(spec, TrainingRuntime(zero_stage=stage))
    with refused(r"works with training\.zero_stage 0, 1 and 2, not 3", place=f"sft.{name}"):
        check_spec(spec, TrainingRuntime(zero_stage=3))
    check_spec(SFTSpec(freeze_layers="0"), TrainingRuntime(zero_stage=3))


def test_unset_options_leave_the_spec_as_it_was_and_one_set_of_layers_has_one_writing() -> None:
    unset = {"freeze_layers", "l2_sp", "clip_relative", "kl_to_base", "mask"}
    assert not unset & set(SFTSpec().model_dump(exclude_none=True))
    assert SFTSpec(freeze_layers="2,0,1") == SFTSpec(freeze_layers="0-2")


def run_on(tmp_path: Path, spec: SFTSpec, mask: ProbeMask | None = None) -> SFTRun:
    base = save_toy(tmp_path / "base", Toy())
    facts = tmp_path / "facts.parquet"
    pq.write_table(pa.table({"prompt": ["Who?"], "target": ["A"]}), facts)
    return SFTRun("r", str(base), str(facts), str(tmp_path / "out"), spec, mask)


def test_a_layer_that_the_base_lacks_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    check_runs([run_on(tmp_path, SFTSpec(freeze_layers="0-1"))], TrainingRuntime())
    with pytest.raises(UserError, match=r"freeze_layers: .*base.* the model has 2 layers, 0 to 1"):
        check_runs([run_on(tmp_path, SFTSpec(freeze_layers="7"))], TrainingRuntime())


def test_a_probe_that_is_not_there_is_told_and_belongs_to_the_run_s_identity(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base", Toy())
    cut = profile(base, base, ["50"]).cuts["50"]
    spec = SFTSpec(mask=MaskSpec(percent=50, size=1))
    with pytest.raises(UserError, match=r"nowhere: is not a folder"):
        check_runs([run_on(tmp_path, spec, ProbeMask(str(tmp_path / "nowhere"), cut))], TrainingRuntime())
    one = run_on(tmp_path, spec, ProbeMask(str(base), cut))
    check_runs([one], TrainingRuntime())
    assert run_identity(one)["mask"] == {"probe": str(base), "cut": cut.to_json()}
    assert "mask" not in run_identity(run_on(tmp_path, SFTSpec(lora=LoRASpec())))
