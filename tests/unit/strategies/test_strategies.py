"""Strategies: what each changes in a study, how their edits are found, own ones, and what is refused."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftlab.errors import UserError
from sftlab.strategies import (
    Strategy,
    get_strategy,
    known_strategies,
    load_plugins,
    register,
)
from sftlab.strategies.treatment import RestoreSpec, Treatment
from sftlab.studies.knowledge.plan import Plan
from sftlab.studies.knowledge.sources import resolve
from sftlab.studies.knowledge.spec import StudySpec
from sftlab.studies.load import load_study
from sftlab.training.spec import LoRASpec, MaskSpec
from tests.support.refusals import refused
from tests.support.strategy_studies import LADDER, applied, documented_example, study

SETTINGS: dict[str, dict[str, Any]] = {
    "restore": {},
    "wise-ft": {},
    "dare": {},
    "ties": {},
    "lora": {},
    "low-rate": {},
    "freeze-layers": {"layers": "0-1"},
    "l2-sp": {"strength": 0.5},
    "clip-relative": {"limit": 0.5},
    "kl-to-base": {"weight": 0.1},
    "replay": {},
    "masked-update": {"percent": 20, "size": 16},
    "mixed": {},
    "divided": {},
}


def plan(spec: StudySpec, folder: Path) -> Plan:
    return Plan(spec, resolve(spec, folder))


def test_every_strategy_is_known_described_and_tested_here() -> None:
    known = known_strategies()
    assert known.keys() == SETTINGS.keys()
    assert all(kind.title and kind.source and kind.__doc__ for kind in known.values())
    assert len({kind.title for kind in known.values()}) == len(known)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_strategy_gives_a_valid_study_and_changes_nothing_but_its_fields(name: str) -> None:
    spec = study(sft={"epochs": 3}, training_sets={"sizes": [7], "seeds": [1, 2]}, answers={"max_tokens": 8})
    strategy = get_strategy(name, SETTINGS[name])
    found = spec.with_treatment(strategy.apply(spec.treatment))
    assert StudySpec.model_validate(found.model_dump()) == found
    assert found.restore.percents == (LADDER if strategy.has_ladder else (0,))
    assert found.sft.epochs == 3 and found.training_sets.sizes == (7,) and found.training_sets.seeds == (1, 2)
    for part in ("name", "pocket", "facts", "model", "engine", "mastery", "answers", "divergence"):
        assert getattr(found, part) == getattr(spec, part)
    parts = {part for part in ("training_sets", "sft") if getattr(found, part) != getattr(spec, part)}
    expected = {"mixed": {"training_sets"}, "replay": {"training_sets"}, "divided": set()}.get(name, {"sft"})
    assert parts == (set() if strategy.has_ladder else expected)
    assert pickle.loads(pickle.dumps(found)) == found


def test_the_restoration_and_its_ablations() -> None:
    assert applied("restore") == study()
    found = applied("restore", region="mlp", layers="2,0-1", order="random", seed=4).restore
    assert (found.region, found.layers, found.order, found.seed) == ("mlp", "0-2", "random", 4)
    assert (found.measure, found.method, found.parameters) == (None, None, None)
    assert applied("restore", measure="absolute").restore.measure == "absolute"
    trimmed = applied("ties").restore
    assert (trimmed.order, trimmed.measure, trimmed.region) == ("bottom", "absolute", "all")
    assert trimmed == applied("restore", region="all", order="bottom", measure="absolute").restore


def test_edits_of_their_own_leave_no_trace_of_the_restoration() -> None:
    for name in ("wise-ft", "dare"):
        found = applied(name, study(restore={"percents": LADDER, "order": "bottom", "region": "mlp"}))
        assert found == applied(name)
        assert found.restore.method == name and found.restore.order == "top"
    assert applied("dare", seed=3).restore.parameters == {"seed": 3, "region": "all", "layers": None}


def test_changes_of_fine_tuning_by_hand() -> None:
    assert applied("lora", rank=4, alpha=8).sft.lora == LoRASpec(rank=4, alpha=8)
    assert applied("low-rate").sft.learning_rate == 1e-6
    assert applied("low-rate", factor=0.3).sft.learning_rate == 3e-6
    assert applied("freeze-layers", layers="0-1").sft.freeze_layers == "0-1"
    assert applied("l2-sp", strength=0.5).sft.l2_sp == 0.5
    assert applied("clip-relative", limit=0.25).sft.clip_relative == 0.25
    assert applied("kl-to-base", weight=0.1).sft.kl_to_base == 0.1
    mask = applied("masked-update", percent=20, size=16, region="mlp", order="bottom").sft.mask
    assert mask == MaskSpec(percent=20, size=16, region="mlp", order="bottom")


@pytest.mark.usefixtures("own_names")
def test_a_custom_strategy_changes_fine_tuning_and_what_it_returns_is_checked() -> None:
    @register
    class Longer(Strategy):
        name = "longer"
        title = "More epochs"
        source = "test"
        factor: int
        method: str | None = None

        def apply(self, study: Treatment) -> Treatment:  # as strategies called it before treatments
            longer = study.sft.model_copy(update={"epochs": self.factor * study.sft.epochs})
            restore = study.restore.model_copy(update={"method": self.method})
            return study.model_copy(update={"sft": longer, "restore": restore})

    spec = study(sft={"epochs": 3})
    found = applied("longer", spec, factor=2)
    assert found == spec.model_copy(update={"sft": spec.sft.model_copy(update={"epochs": 6})})
    assert applied("longer", spec, factor=1, method="dare").restore == applied("dare", spec).restore
    with refused("strategy 'dear' is unknown", value="dear", advice="did you mean 'dare'"):
        applied("longer", spec, factor=1, method="dear")


def test_the_parameters_of_a_method_are_written_out_in_a_study_alone() -> None:
    fields = {"percents": LADDER, "method": "dare"}
    assert RestoreSpec.model_validate(fields).parameters is None
    assert study(restore=fields).restore.parameters == {"seed": 0, "region": "all", "layers": None}
    assert study(restore=fields).treatment.restore == study(restore=fields).restore


def test_data_of_table_7() -> None:
    assert applied("mixed").training_sets.buckets == ("mixed",)
    several = study(training_sets={"buckets": [1, 4, "mixed", "0:0.5+4:0.5"]})
    assert applied("divided", several).training_sets.buckets == (1, 4)
    assert applied("divided", several, bucket=2).training_sets.buckets == (2,)
    with refused(r"training_sets\.buckets holds no single bucket", place="divided"):
        applied("divided", applied("mixed"))


def test_replay_keeps_the_buckets_and_adds_to_what_a_cell_trains_on(tmp_path: Path) -> None:
    found = applied("replay", study(training_sets={"buckets": [0, "mixed"], "sizes": [30]}), share=0.25)
    assert (found.training_sets.replay, found.training_sets.buckets) == (0.25, (0, "mixed"))
    assert get_strategy("replay").training_set(3, None) == 3
    plain, replayed = (
        plan(study(training_sets=found.training_sets.model_copy(update={"replay": None})), tmp_path),
        plan(found, tmp_path),
    )
    for one, other in zip(plain.cells, replayed.cells, strict=True):
        assert one.training_set.id != other.training_set.id and one.name == other.name
        assert plain.prices.drawn(one.bucket, one.size) == 30
        assert replayed.prices.drawn(other.bucket, other.size) == 38
        assert replayed.prices.tuning(other.bucket, other.size, 1).trained_tokens == 38 * 32


def test_contradictions_with_the_study_are_refused() -> None:
    with pytest.raises(UserError, match=r"sft.*l2_sp.*lora"):
        applied("l2-sp", applied("lora"), strength=1.0)
    with pytest.raises(UserError, match="dare: 100 %"):
        applied("dare", study(restore={"percents": [50, 100]}))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "wise",
            {},
            r"strategy 'wise' is unknown; expected one of clip-relative, dare, .*wise-ft.*; did you mean 'wise-ft'\?",
        ),
        ("nothing-like-it", {}, "is unknown; expected one of clip-relative"),
        ("dare", {"sed": 1}, "strategy dare: unknown key 'sed'; did you mean 'seed'"),
        ("mixed", {"x": 1}, "strategy mixed: unknown key 'x'; known are: draw"),
        ("l2-sp", {}, "strategy l2-sp: strength is required"),
        ("l2-sp", {"strength": 0}, r"strategy l2-sp: strength: .*greater than 0 \(found 0\)"),
        ("low-rate", {"factor": 2}, "strategy low-rate: factor: .*less than 1"),
        ("masked-update", {"percent": 101, "size": 1}, "percent: .*less than or equal to 100"),
        ("restore", {"region": "legs"}, "strategy restore: region: .*'attention'.*found 'legs'"),
        ("restore", {"layers": "3-1"}, "strategy restore: layers: .*such as 0-3"),
        ("divided", {"bucket": 5}, "strategy divided: bucket"),
        ("dare", 3, "strategy dare: parameters 3; expected a mapping"),
    ],
)
def test_wrong_strategies_are_refused_with_the_right_ones(name: str, parameters: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_strategy(name, parameters)


@pytest.mark.parametrize(
    ("restore", "message"),
    [
        ("{method: wise_ft}", "did you mean 'wise-ft'"),
        ("{method: lora}", "lora is no edit of its own .* expected one of dare, wise-ft"),
        ("{method: ties}", "ties is no edit of its own"),
        ("{method: dare, parameters: {seeds: 1}}", "unknown key 'seeds'; did you mean 'seed'"),
        ("{method: dare, percents: [100]}", "100 % drops"),
        ("{parameters: {seed: 1}}", "belong to a `method`"),
        ("{layers: 3-1}", "layers.*such as 0-3"),
        ("{measure: squared}", "measure.*'absolute'"),
    ],
)
def test_wrong_study_files_name_what_is_wrong(restore: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: t\npocket: {{}}\nrestore: {restore}\n")
    with pytest.raises(UserError, match=rf"study\.yaml: restore.*{message}"):
        load_study(path)


def test_the_same_settings_written_otherwise_have_the_same_ids(tmp_path: Path) -> None:
    def ids(**restore: Any) -> list[str]:
        made = plan(study(restore={"percents": LADDER, **restore}), tmp_path)
        return [step.id for step, _ in made.steps()]

    assert ids(measure="relative") == ids()
    assert ids(layers="2,0,1") == ids(layers="0-2") != ids()
    assert ids(layers=3) == ids(layers="3")
    assert ids(method="dare") == ids(method="dare", parameters={"seed": 0}) != ids(method="wise-ft")


def test_plans_share_what_a_strategy_does_not_change(tmp_path: Path) -> None:
    plain = plan(study(), tmp_path).cells[0]
    for name in ("wise-ft", "dare"):
        cell = plan(applied(name), tmp_path).cells[0]
        assert (cell.tuned.id, cell.change.id) == (plain.tuned.id, plain.change.id)
        assert cell.evaluations[0.0].id == plain.evaluations[0.0].id
        assert cell.evaluations[10.0].id != plain.evaluations[10.0].id
    trimmed = plan(applied("ties"), tmp_path).cells[0]
    assert trimmed.tuned.id == plain.tuned.id and trimmed.change.id != plain.change.id
    for name in ("lora", "low-rate", "freeze-layers", "l2-sp", "clip-relative", "kl-to-base"):
        cell = plan(applied(name, **SETTINGS[name]), tmp_path).cells[0]
        assert cell.tuned.id != plain.tuned.id and cell.training_set.id == plain.training_set.id
        assert list(cell.evaluations) == [0.0]


def test_an_own_edit_loads_in_another_process_that_can_import_its_module(tmp_path: Path) -> None:
    (tmp_path / "clipping_strategy.py").write_text(documented_example())
    script = (
        "import pickle, sys\n"
        "from sftlab.strategies import get_strategy, load_plugins\n"
        "load_plugins(['clipping_strategy'])\n"
        "sys.stdout.buffer.write(pickle.dumps(get_strategy('clip', {'region': 'mlp'}).edit(20, None)))\n"
    )
    sent = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    read = "import pickle, sys\nprint(pickle.load(sys.stdin.buffer))\n"
    done = subprocess.run(
        [sys.executable, "-c", read], cwd=tmp_path, input=sent, capture_output=True, check=True
    )
    assert b"Clipped(region='mlp', layers=None, percent=20)" in done.stdout


def test_plugins_that_cannot_be_imported_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(
        r"nowhere\.at_all cannot be imported", place="plugins", value="nowhere.at_all", expected="PYTHONPATH"
    ):
        load_plugins(["nowhere.at_all"])
    (tmp_path / "broken_strategy.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"broken_strategy cannot be imported \(ZeroDivisionError"):
        load_plugins(["broken_strategy"])


@pytest.mark.usefixtures("own_names")
def test_wrong_registrations_are_refused() -> None:
    def strategy(**attributes: Any) -> type[Strategy]:
        whole = {"name": "mine", "title": "Mine", "source": "me", "apply": lambda _, spec: spec}
        fields = {key: value for key, value in (whole | attributes).items() if value is not None}
        return type("Mine", (Strategy,), {"__module__": __name__, **fields})

    for attributes, message in [
        ({"title": None}, "has no title"),
        ({"name": "My Own"}, "lower case words"),
        ({"name": "dare"}, "'dare' is taken by sftlab.strategies.dare.DropAndRescale"),
    ]:
        with pytest.raises(UserError, match=message):
            register(strategy(**attributes))
    assert "mine" not in known_strategies()


def test_the_registry_loads_nothing_heavy() -> None:
    script = "import sys, sftlab.strategies\nprint([m for m in ('torch', 'ray', 'vllm', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
