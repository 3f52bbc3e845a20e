"""Gradients of facts against autograd of the whole batch, and predictions against the loss of moved weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sftlab.measurements.fact_gradients import (
    KNOWN,
    SHUFFLED,
    TRAINING,
    UPDATE,
    Directions,
    GradientJob,
    Part,
    Products,
    Trained,
    measure,
    products,
    step_weights,
    summed_gradient,
)
from sftlab.training.batches import Example
from sftlab.training.spec import SFTSpec
from sftlab.weights.change_profile import profile
from sftlab.weights.regions import OUTSIDE, place
from sftlab.weights.selection import is_restored_mask
from tests.support.weights_models import save_model, save_tuned, stored

TEXTS = [("w1 w2", " w3"), ("w4", " w5 w6"), ("w7 w8 w9", " w10"), ("w2 w1", " w11 w12 w13")]
TRAIN = [("w20 w21", " w22"), ("w23", " w24 w25"), ("w26 w27", " w28")]
SPEC = SFTSpec(batch_size=2, epochs=2, learning_rate=0.5, schedule="linear")


class Toy(torch.nn.Module):
    """Logits 0 and u v, where u is a weight of a layer, and v one outside of the layers."""

    device = torch.device("cpu")

    def __init__(self, inside: float, outside: float) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Module()])
        self.layers[0].mlp = torch.nn.Module()
        self.layers[0].mlp.up_proj = torch.nn.Parameter(torch.tensor([inside, 1.0]))
        self.head = torch.nn.Parameter(torch.tensor([outside]))

    def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> SimpleNamespace:
        score = self.layers[0].mlp.up_proj[0] * self.head[0]
        return SimpleNamespace(logits=torch.stack([score * 0, score]).expand(*input_ids.shape, 2))


def test_two_weights_by_hand() -> None:
    """With u = 0 both tokens have the probability 1/2, so d loss / d u = v (1/2 - [token 1]), and d / d v is 0."""
    model = Toy(inside=0.0, outside=4.0)
    examples = [Example.of([0, 1], [False, True]), Example.of([0, 0, 0], [False, True, True])]
    u, v = "layers.0.mlp.up_proj", "head"
    directions = Directions(
        {"d": {u: torch.tensor([3.0, 9.0]), v: torch.tensor([5.0])}},
        {u: torch.tensor([True, False]), v: torch.tensor([False])},
    )
    found = products(model, examples, directions)
    assert list(found.parts) == [Part("0", "mlp.up", 2), Part(OUTSIDE, "head", 1)]
    assert found.losses == pytest.approx([np.log(2), 2 * np.log(2)], abs=1e-6)
    assert found.squared.tolist() == [[4.0, 0.0], [16.0, 0.0]]  # of -2 and of 2 + 2
    assert found.along["d"].tolist() == [[-6.0, 0.0], [12.0, 0.0]]
    assert found.within.tolist() == [[4.0, 0.0], [16.0, 0.0]]
    assert found.sizes["d"].tolist() == [90.0, 25.0] and found.chosen.tolist() == [1, 0]
    total = summed_gradient(model, examples, [1.0, 0.25])
    assert total[u].tolist() == [-1.0, 0.0] and total[v].tolist() == [0.0]


def test_the_weight_of_a_fact_is_the_sum_of_its_steps() -> None:
    one, two = Example.of([0, 1], [False, True]), Example.of([0, 1, 1], [False, True, True])
    spec = SFTSpec(batch_size=4, epochs=2, learning_rate=0.3, schedule="linear")
    # One batch an epoch of 1 + 2 answer tokens, at the rates 0.3 and 0.15.
    assert step_weights([one, two], spec) == pytest.approx([0.15, 0.15])
    alone = spec.model_copy(update={"batch_size": 1, "epochs": 1, "schedule": "constant"})
    assert step_weights([one, two], alone) == pytest.approx([0.3, 0.15])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained, Products]:
    """What a worker measures of a bfloat16 base model, and of a model that is tuned from it."""
    root = tmp_path_factory.mktemp("gradients")
    save_model(root / "base", "llama", seed=3)
    save_tuned(root / "tuned", root / "base", scale=0.05)
    prompts, targets = zip(*TRAIN, strict=True)
    pq.write_table(pa.table({"prompt": prompts, "target": targets}), root / "train.parquet")
    cut = profile(root / "base", root / "tuned", ["20"]).cuts["20"]
    trained = Trained(str(root / "tuned"), str(root / "train.parquet"), SPEC, cut)
    return root, trained, measure(GradientJob(str(root / "base"), TEXTS, (0, 2), trained))


def answer_losses(model: torch.nn.Module, texts: Sequence[tuple[str, str]]) -> torch.Tensor:
    """Cross-entropy of every answer, each token by itself; words are the ids 3 and up, and 1 ends an answer."""
    losses = []
    for prompt, target in texts:
        before, answer = ([int(word[1:]) + 3 for word in text.split()] for text in (prompt, target))
        whole = [*before, *answer, 1]
        log_p = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        losses.append(-sum(log_p[at - 1, whole[at]] for at in range(len(before), len(whole))))
    return torch.stack(losses)


def test_sums_by_part_equal_autograd_of_the_whole_batch(measured: tuple[Path, Trained, Products]) -> None:
    from transformers import AutoModelForCausalLM

    root, trained, found = measured
    model = AutoModelForCausalLM.from_pretrained(root / "base").double()
    weights = dict(model.named_parameters())
    losses = answer_losses(model, TEXTS)
    rows = [torch.autograd.grad(loss, list(weights.values()), retain_graph=True) for loss in losses]
    gradients = [dict(zip(weights, row, strict=True)) for row in rows]
    old, new = stored(root / "base"), stored(root / "tuned")
    update = {name: new[name].double() - old[name].double() for name in weights}
    known = {name: (gradients[0][name] + gradients[2][name]) / 2 for name in weights}
    marked = {name: is_restored_mask(name, old[name], new[name], trained.cut) for name in weights}
    assert found.losses == pytest.approx(losses.detach().numpy(), rel=1e-5)
    assert sum(part.weights for part in found.parts) == sum(w.numel() for w in weights.values())
    assert int(found.chosen.sum()) == trained.cut.count
    for at, part in enumerate(found.parts):
        layer = None if part.layer == OUTSIDE else int(part.layer)
        names = [n for n in weights if (place(n).layer, place(n).module) == (layer, part.module)]
        for row, gradient in enumerate(gradients):
            for table, other in (
                (found.squared, gradient),
                (found.along[UPDATE], update),
                (found.along[KNOWN], known),
            ):
                wanted = sum(float((gradient[name] * other[name]).sum()) for name in names)
                assert table[row, at] == pytest.approx(wanted, rel=1e-3, abs=1e-5), (part, row)
            wanted = sum(float(gradient[name][marked[name]].square().sum()) for name in names)
            assert found.within[row, at] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
        assert found.sizes[UPDATE][at] == pytest.approx(found.sizes[SHUFFLED][at], rel=1e-4)
    assert np.abs(found.along[SHUFFLED] - found.along[UPDATE]).max() > 1e-3


def test_predictions_are_the_first_order_change_of_the_loss(measured: tuple[Path, Trained, Products]) -> None:
    from transformers import AutoModelForCausalLM

    root, _, found = measured
    old, new = stored(root / "base"), stored(root / "tuned")

    def losses_at(change: dict[str, torch.Tensor], share: float) -> np.ndarray:
        model = AutoModelForCausalLM.from_pretrained(root / "base").double()
        with torch.no_grad():
            for name, weights in model.named_parameters():
                weights += share * change[name]
            return answer_losses(model, TEXTS).numpy()

    update = {name: new[name].double() - old[name].double() for name in new}
    step = 1e-3
    slope = (losses_at(update, step) - losses_at(update, -step)) / (2 * step)
    assert found.along[UPDATE].sum(axis=1) == pytest.approx(slope, rel=1e-3, abs=1e-4)
    # Gradient descent whose gradients are those at the base model: two epochs of batches of two, rates that decay.
    model = AutoModelForCausalLM.from_pretrained(root / "base").double()
    from sftlab.training.batches import learning_rate, step_batches

    total = torch.zeros((), dtype=torch.float64)
    batches = step_batches(len(TRAIN), SPEC)
    for number, batch in enumerate(batches):
        texts = [TRAIN[row] for row in batch]
        tokens = sum(len(target.split()) + 1 for _, target in texts)
        total = total + learning_rate(SPEC, number, len(batches)) * answer_losses(model, texts).sum() / tokens
    grads = torch.autograd.grad(total, list(model.parameters()))
    descent = {name: -g for (name, _), g in zip(model.named_parameters(), grads, strict=True)}
    slope = (losses_at(descent, step) - losses_at(descent, -step)) / (2 * step)
    assert found.along[TRAINING].sum(axis=1) == pytest.approx(slope, rel=1e-3, abs=1e-4)
