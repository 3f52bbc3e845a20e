"""Batches, loss and learning rate, against values worked out by hand or by torch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sftlab.training.batches import (
    IGNORED,
    Example,
    answer_loss,
    collate,
    dropout_seed,
    epoch_order,
    learning_rate,
    micro_batches,
    step_batches,
)
from sftlab.training.spec import SFTSpec


def test_labels_are_the_tokens_that_carry_loss() -> None:
    example = Example.of([5, 6, 7, 8, 9], [False, True, True, False, True])
    assert example.labels == [IGNORED, 6, 7, IGNORED, 9]
    assert example.answer_tokens == 3


@given(st.integers(0, 60), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_is_a_permutation_of_all_examples(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(count, seed, epoch)) == list(range(count))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    assert epoch_order(8, 0, 0) == [4, 2, 6, 0, 7, 5, 1, 3]  # golden: must never move
    assert epoch_order(50, 0, 0) != epoch_order(50, 0, 1) != epoch_order(50, 1, 0)


def test_the_short_last_batch_of_each_epoch_is_kept() -> None:
    batches = step_batches(10, SFTSpec(batch_size=4, epochs=2))
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    assert sorted(i for batch in batches[:3] for i in batch) == list(range(10))


def test_a_batch_is_dealt_out_over_ranks_and_cut_into_equally_many_micro_batches() -> None:
    assert micro_batches([10, 11, 12, 13, 14], 0, 2, 2) == [[10, 12], [14]]
    assert micro_batches([10, 11, 12, 13, 14], 1, 2, 2) == [[11, 13], []]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4))
def test_every_example_is_computed_once_and_ranks_stay_in_step(size: int, workers: int, micro: int) -> None:
    parts = [micro_batches(list(range(size)), rank, workers, micro) for rank in range(workers)]
    assert len({len(part) for part in parts}) == 1
    assert all(len(piece) <= micro for part in parts for piece in part)
    assert sorted(i for part in parts for piece in part for i in piece) == list(range(size))


def test_collate_pads_on_the_right_and_masks_the_padding() -> None:
    examples = [Example.of([5, 6, 7], [False, False, True]), Example.of([8, 9], [False, True])]
    tensors = collate(examples, pad_id=0)
    assert tensors["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert tensors["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert tensors["labels"].tolist() == [[IGNORED, IGNORED, 7], [IGNORED, 9, IGNORED]]


def test_a_rank_without_examples_gets_one_token_without_a_label() -> None:
    tensors = collate([], pad_id=3)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "input_ids": [[3]],
        "attention_mask": [[1]],
        "labels": [[IGNORED]],
    }


def test_the_loss_is_the_negative_log_probability_of_the_answer_alone() -> None:
    # Uniform over four tokens at the position before the label, whatever stands elsewhere: log 4.
    logits = torch.tensor([[[9.0, 0, 0, 0], [1.0, 1, 1, 1], [0, 0, 0, 9.0]]])
    loss = answer_loss(logits, torch.tensor([[IGNORED, IGNORED, 2]]))
    assert loss.item() == pytest.approx(math.log(4))


def test_a_batch_without_labels_has_loss_zero_and_zero_gradients() -> None:
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = answer_loss(logits, torch.full((1, 3), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(1, 3, 4))


def test_losses_of_the_parts_of_a_batch_add_up_to_that_of_the_whole() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 11, (6, 5))
    labels[:, :2] = IGNORED
    logits = torch.randn(6, 5, 11)
    parts = sum(answer_loss(logits[i::3], labels[i::3]) for i in range(3))
    assert torch.allclose(torch.as_tensor(parts), answer_loss(logits, labels))


def test_cosine_goes_from_the_peak_to_a_half_to_nearly_zero() -> None:
    spec = SFTSpec(learning_rate=2.0)
    assert learning_rate(spec, 0, 4) == 2.0
    assert learning_rate(spec, 2, 4) == pytest.approx(1.0)
    assert learning_rate(spec, 3, 4) == pytest.approx(1 - math.sqrt(0.5))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_rates_are_those_of_transformers_schedulers(schedule: str, warmup: float) -> None:
    from transformers import get_scheduler

    steps, spec = 12, SFTSpec(schedule=schedule, warmup_ratio=warmup, learning_rate=3e-4)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, optimizer, math.ceil(warmup * steps), steps)
    for step in range(steps):
        assert learning_rate(spec, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_dropout_seeds_differ_by_step_rank_and_part() -> None:
    seeds = {dropout_seed(0, s, r, p) for s in range(3) for r in range(3) for p in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
