"""The norm of a step's gradients: of the parameters, or what the optimiser knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sftlab.training.gradient_norm import l2_norm, take_step


class Engine:
    """What `take_step` needs of an engine; its step drops the gradients, as DeepSpeed's does."""

    enable_backward_allreduce = True

    def __init__(self, optimizer: object, norm: Any) -> None:
        self.module, self.optimizer, self._norm = torch.nn.Linear(2, 1), optimizer, norm
        self.module.weight.grad = torch.tensor([[3.0, 4.0]])
        self.module.bias.grad = torch.tensor([12.0])

    def step(self) -> None:
        self.stepped = [parameter.grad for parameter in self.module.parameters()]
        self.module.zero_grad()

    def get_global_grad_norm(self) -> Any:
        return self._norm


def test_the_norm_is_over_all_gradients_together() -> None:
    assert l2_norm([torch.tensor([3.0]), None, torch.tensor([[4.0]], dtype=torch.bfloat16)]) == 5.0
    assert l2_norm([None]) is None and l2_norm([]) is None


@pytest.mark.parametrize(
    ("optimizer", "norm", "expected"),
    [
        (SimpleNamespace(), None, 13.0),
        (SimpleNamespace(_global_grad_norm=0.0), torch.tensor(2.5), 2.5),
        (SimpleNamespace(_global_grad_norm=0.0), None, None),
    ],
)
def test_a_step_says_the_norm_of_its_gradients(optimizer: object, norm: Any, expected: float | None) -> None:
    assert take_step(Engine(optimizer, norm)) == expected


@pytest.mark.parametrize("several", [True, False])
def test_an_engine_of_one_rank_takes_its_step_with_zeros_for_gradients_that_lack(several: bool) -> None:
    engine = Engine(SimpleNamespace(), None)
    engine.enable_backward_allreduce = several
    engine.module.bias.grad = None
    assert take_step(engine) == 5.0
    weight, bias = engine.stepped
    assert weight is not None and weight.tolist() == [[3.0, 4.0]]
    assert (bias is None) if several else (bias is not None and bias.tolist() == [0.0])
