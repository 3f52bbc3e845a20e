"""Examples, batches, loss and learning rate, against values worked out by hand or by torch."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sftlab.errors import UserError
from sftlab.training.batches import (
    IGNORED,
    Example,
    answer_loss,
    collate,
    dropout_seed,
    encode,
    epoch_order,
    learning_rate,
    micro_batches,
    step_batches,
)
from sftlab.training.loop import read_examples
from sftlab.training.records import SFTRun
from sftlab.training.spec import SFTSpec


class Letters:
    """A tokenizer of one token a character: its code point; bos 1, eos 2."""

    bos_token_id = 1
    eos_token_id = 2
    pad_token_id = None

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(letter) for letter in text]}


def test_an_example_is_bos_prompt_answer_eos_and_only_answer_and_eos_carry_loss() -> None:
    (example,) = encode(Letters(), ["Q?"], ["Ab"], 99, "file")
    prompt = [1, *map(ord, "<|question|> Q? <|answer|>")]
    answer = [*map(ord, " Ab "), 2]
    assert list(example.ids) == prompt + answer
    assert example.labels == [IGNORED] * len(prompt) + answer
    assert example.answer_tokens == 5


def test_a_too_long_example_is_an_error_that_names_file_row_and_question() -> None:
    with pytest.raises(UserError, match=r"t\.parquet: row 1 has 38 tokens.*max_length = 32.*'Long one\?'"):
        encode(Letters(), ["Q?", "Long one?"], ["A", "B"], 32, "t.parquet")


def test_runs_share_the_tokenizer_of_their_base_and_the_training_set_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    for file, answer in zip(files, ("Ab", "Cd"), strict=True):
        pq.write_table(pa.table({"question": ["Q?"], "object": [answer]}), file)
    loaded: list[str] = []

    def load(base: str) -> Letters:
        loaded.append(base)
        return Letters()

    monkeypatch.setattr("sftlab.training.loop.load_tokenizer", load)

    def run(base: str, file: str, **spec: float) -> SFTRun:
        return SFTRun("r", str(tmp_path / base), file, str(tmp_path / "out"), SFTSpec(**spec))

    runs = [
        run("m", files[0]),
        run("m", files[0], learning_rate=1e-3),
        run("m", files[1]),
        run("n", files[0]),
    ]
    first, same, other, elsewhere = read_examples(runs)
    assert loaded == [str(tmp_path / "m"), str(tmp_path / "n")]
    assert first[0] is same[0] and first == elsewhere
    assert [found[0] for found in (first, other)] == [
        encode(Letters(), ["Q?"], [a], 99, "") for a in ("Ab", "Cd")
    ]
    assert first[1] == Letters.eos_token_id
    with pytest.raises(UserError, match="max_length = 8"):
        read_examples([*runs, run("m", files[0], max_length=8)])


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
    tensors = collate([Example((5, 6, 7), 2), Example((8, 9), 1)], pad_id=0)
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
