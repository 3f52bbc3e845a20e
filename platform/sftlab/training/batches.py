"""From examples to the tensors of every step: pure functions, the same on every rank.

The loss of a step is the mean cross-entropy over the answer tokens of the *global* batch, so that neither
the number of workers nor the micro-batch size changes the mathematics; they change only the order in which
floats are summed.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from sftlab.training.spec import SFTSpec

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Token ids of a whole example, and which of them carry loss; compact, as a group holds many training sets."""

    ids: array[int]
    loss: bytes

    @classmethod
    def of(cls, ids: Sequence[int], loss: Sequence[bool]) -> Example:
        """From any sequences of the same length."""
        return cls(array("i", ids), bytes(loss))

    @property
    def labels(self) -> list[int]:
        """Labels aligned with `ids`: the token itself where it carries loss, IGNORED elsewhere."""
        return [token if trained else IGNORED for token, trained in zip(self.ids, self.loss, strict=True)]

    @property
    def answer_tokens(self) -> int:
        """Number of tokens that carry loss, closing tokens included."""
        return sum(self.loss)


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(count): indices sorted by the SHA-256 of (seed, epoch, index).

    A hash and not a library's generator, so that no version of anything changes the order.
    """
    return sorted(range(count), key=lambda i: sha256(f"{seed}/{epoch}/{i}".encode()).digest())


def step_batches(count: int, spec: SFTSpec) -> list[list[int]]:
    """Indices of the examples of every step of the run; the short last batch of an epoch is kept."""
    size = spec.batch_size
    orders = [epoch_order(count, spec.seed, epoch) for epoch in range(spec.epochs)]
    return [order[i : i + size] for order in orders for i in range(0, count, size)]


def micro_batches(batch: Sequence[int], rank: int, workers: int, micro: int) -> list[list[int]]:
    """The part of one batch that a rank computes, cut into micro-batches.

    Examples are dealt out one by one. Every rank gets the same number of micro-batches, because each is a
    collective operation; where a rank has run out of examples its micro-batch is empty.
    """
    rounds = math.ceil(math.ceil(len(batch) / workers) / micro)
    share = batch[rank::workers]
    return [list(share[i * micro : (i + 1) * micro]) for i in range(rounds)]


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Right-padded int64 tensors input_ids, attention_mask, labels of shape (examples, longest).

    No examples give one token without a label, so that a rank without work takes part in the collectives.
    """
    if not examples:
        examples = [Example.of([pad_id], [False])]
    longest = max(len(example.ids) for example in examples)
    rows = [(e.ids, e.labels, longest - len(e.ids)) for e in examples]
    return {
        "input_ids": torch.tensor([[*ids, *[pad_id] * gap] for ids, _, gap in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * gap for ids, _, gap in rows]),
        "labels": torch.tensor([[*labels, *[IGNORED] * gap] for _, labels, gap in rows]),
    }


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum, in float32, of the cross-entropy of the labelled tokens; 0 where there are none.

    `logits` (batch, length, vocabulary) at position t predict `labels` (batch, length) at t + 1.
    """
    wanted = labels[:, 1:] != IGNORED
    return torch.nn.functional.cross_entropy(
        answer_rows(logits, labels), labels[:, 1:][wanted], reduction="sum"
    )


def answer_rows(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The logits that predict a labelled token: float32 (labelled tokens, vocabulary).

    Only the rows that count are turned into float32, which spares most of the memory of a large vocabulary.
    """
    return logits[:, :-1][labels[:, 1:] != IGNORED].float()


def learning_rate(spec: SFTSpec, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`: linear warm-up from 0, then the schedule.

    The same function of the step as transformers' schedulers: with w warm-up steps, step/w before w, then
    with t = (step - w)/(steps - w): cosine (1 + cos(pi t))/2, linear 1 - t, constant 1.
    """
    warmup = math.ceil(spec.warmup_ratio * steps)
    if step < warmup:
        return spec.learning_rate * step / warmup
    t = (step - warmup) / max(1, steps - warmup)
    factor = {"cosine": 0.5 * (1 + math.cos(math.pi * t)), "linear": 1 - t, "constant": 1.0}
    return spec.learning_rate * factor[spec.schedule]


def dropout_seed(seed: int, step: int, rank: int, part: int) -> int:
    """Seed of the generator before one micro-batch, so that a resumed run drops what the first one would."""
    digest = sha256(f"{seed}/{step}/{rank}/{part}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
