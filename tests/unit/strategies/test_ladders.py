"""The models of a strategy's ladder follow its formula."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from sftlab.errors import UserError
from sftlab.strategies import (
    EditStrategy,
    edit_for,
    get_strategy,
    load_plugins,
    register,
)
from sftlab.strategies.treatment import RestoreSpec
from sftlab.weights.change_profile import profile
from sftlab.weights.cut import percent_label
from sftlab.weights.edits import Dare, Interpolation, Restoration
from sftlab.weights.restoration import ModelSource
from tests.support.strategy_studies import LADDER, applied, documented_example, study
from tests.support.weights_models import restored_by_hand, same_bits, save_model, save_tuned, stored


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    save_model(folder / "base", "llama", seed=0)
    save_tuned(folder / "tuned", folder / "base")
    return folder / "base", folder / "tuned"


def models(spec: RestoreSpec, base: Path, tuned: Path) -> dict[float, dict[str, torch.Tensor]]:
    """The models of a ladder, made as the stages make them."""
    labels = [percent_label(percent) for percent in spec.percents]
    found = profile(base, tuned, labels, **spec.selection)
    edits = {percent: edit_for(spec, percent, found.cuts) for percent in spec.percents}
    return {
        percent: dict(pickle.loads(pickle.dumps(ModelSource(str(base), str(tuned), edit))).tensors())
        for percent, edit in edits.items()
    }


def test_ladders_follow_their_formulas_on_a_whole_model(pair: tuple[Path, Path]) -> None:
    base, tuned = pair
    old, new = stored(base), stored(tuned)
    for name, formula in {
        "wise-ft": lambda _, p, s: (s.float() + 0.1 * (p.float() - s.float())).bfloat16(),
        "dare": lambda name, p, s: Dare(10).edit(name, p.float(), s.float()).bfloat16(),
    }.items():
        ladder = models(applied(name).restore, base, tuned)
        assert all(same_bits(ladder[0][key], new[key]) for key in new)
        assert all(same_bits(ladder[10][key], formula(key, old[key], new[key])) for key in new)
    trimmed = models(applied("ties").restore, base, tuned)
    expected = restored_by_hand(old, new, "60", lambda _: True, "bottom", "absolute")
    assert all(same_bits(trimmed[60][key], expected[key]) for key in new)
    first = models(applied("restore", layers="0").restore, base, tuned)
    expected = restored_by_hand(
        old, new, "60", lambda key: key.startswith("model.layers.0.") and "norm" not in key
    )
    assert all(same_bits(first[60][key], expected[key]) for key in new)


def test_edits_are_found_by_method_and_a_cut_only_where_it_is_used(pair: tuple[Path, Path]) -> None:
    cuts = profile(*pair, ["10", "12.3456789"]).cuts
    plain = RestoreSpec(percents=LADDER)
    assert edit_for(plain, 0, {}) is None
    assert edit_for(plain, 10.0, cuts) == Restoration(cuts["10"])
    assert edit_for(plain, 12.3456789, cuts) == Restoration(cuts["12.3456789"])
    assert edit_for(applied("wise-ft", region="mlp").restore, 10.0, {}) == Interpolation(10.0, region="mlp")
    assert edit_for(applied("dare", seed=2, layers="0").restore, 10.0, {}) == Dare(10.0, 2, layers="0")
    assert get_strategy("restore").edit(10, cuts["10"]) == Restoration(cuts["10"])
    with pytest.raises(UserError, match="lora: changes the fine-tuning"):
        get_strategy("lora").edit(10, None)


@pytest.mark.usefixtures("own_names")
def test_a_strategy_may_use_the_cut(pair: tuple[Path, Path]) -> None:
    @register
    class Same(EditStrategy):
        name = "same"
        title = "Same as the restoration"
        source = "test"
        uses_cut = True

        def edit(self, percent: float, cut: Any) -> Restoration:  # noqa: ARG002
            return Restoration(cut)

    spec = applied("same", study(restore={"percents": LADDER, "order": "bottom"})).restore
    assert (spec.method, spec.parameters, spec.order) == ("same", {}, "bottom")
    cuts = profile(*pair, ["10"], order="bottom").cuts
    assert edit_for(spec, 10, cuts) == Restoration(cuts["10"])


@pytest.mark.usefixtures("own_names")
def test_the_documented_example_is_a_strategy_in_thirty_lines(
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = documented_example()
    assert len(text.splitlines()) <= 30
    (tmp_path / "clipping_strategy.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugins(["clipping_strategy"])
    load_plugins(["clipping_strategy"])  # a second time changes nothing
    old, new = (stored(folder) for folder in pair)
    ladder = models(applied("clip").restore, *pair)
    for name, tensor in ladder[60].items():
        updates = new[name].float() - old[name].float()
        limit = 0.4 * updates.abs().max()
        expected = (old[name].float() + torch.clamp(updates, -limit, limit)).bfloat16()
        assert same_bits(tensor, expected)
