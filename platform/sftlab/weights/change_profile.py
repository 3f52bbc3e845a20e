"""How the weights of a model changed in fine-tuning, and where the weights to restore are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from sftlab.config.documents import parse_record
from sftlab.errors import UserError
from sftlab.files import write_text
from sftlab.weights.amount import SHARE_PASSES, counts_of_shares
from sftlab.weights.bits import item_bytes
from sftlab.weights.controls import CONTROL_PASSES, Controls, controls_of
from sftlab.weights.cut import (
    CONCENTRATION_PERCENTS,
    Cut,
    Measure,
    Order,
    Ranking,
    Region,
    SelectionKeys,
    ShareOf,
    percent_labels,
    restored_count,
    without_defaults,
)
from sftlab.weights.pairs import check_pair, open_pair
from sftlab.weights.regions import by_layer, by_module, check_layers, in_region, layers_label, percents_of
from sftlab.weights.search import Search
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import Progress, Report
from sftlab.weights.survey import Survey, survey


@dataclass(frozen=True)
class ChangeProfile:
    """What `change.json` holds.

    weights, changed: weights of the region, and those whose value differs from the base model's.
    total_change: sum of all relative changes of the region. concentration: percent -> share (0 to 1) of the
    total relative change that the most changed percent of weights holds (Table 3). weights_by_layer,
    weights_by_module: number of weights; restored_by_layer, restored_by_module: percent -> number of
    restored weights (Tables 9 and 10). Layers are numbers written as text, or "outside the layers". cuts:
    percent -> the cut that restores it. measure: what top and bottom order by; the concentration is of the
    relative change all the same. layers: to which layers the region is narrowed, None for no narrowing. share_of:
    what the percentages of the cuts are shares of. controls: what the statements are compared with, where measured.
    """

    region: Region
    order: Order
    seed: int
    weights: int
    changed: int
    total_change: float
    concentration: Mapping[str, float]
    weights_by_layer: Mapping[str, int]
    weights_by_module: Mapping[str, int]
    restored_by_layer: Mapping[str, Mapping[str, int]]
    restored_by_module: Mapping[str, Mapping[str, int]]
    cuts: Mapping[str, Cut]
    measure: Measure = "relative"
    layers: str | None = None
    share_of: ShareOf = "weights"
    controls: Controls | None = None

    def layer_percents(self, percent: str) -> dict[str, float]:
        """How the restored weights distribute over the layers, in percent (Table 9)."""
        return percents_of(self.restored_by_layer[percent])

    def module_percents(self, percent: str) -> dict[str, float]:
        """How the restored weights distribute over the modules, in percent (Table 10)."""
        return percents_of(self.restored_by_module[percent])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, the two tables in percent included for readers' comfort; `measure`, `layers`,
        `share_of` and `controls` are left out where they have their defaults.
        """
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "cuts"}
        data["controls"] = None if self.controls is None else asdict(self.controls)
        return without_defaults(data) | {
            "layer_percents": {percent: self.layer_percents(percent) for percent in self.cuts},
            "module_percents": {percent: self.module_percents(percent) for percent in self.cuts},
            "cuts": {percent: cut.to_json() for percent, cut in self.cuts.items()},
        }


def write_profile(path: Path, found: ChangeProfile) -> None:
    """Write a profile as a result of a store."""
    write_text(path, json.dumps(found.to_json(), indent=1) + "\n")


def read_profile(path: Path) -> ChangeProfile:
    """What a change.json holds. Raises UserError where it is damaged."""
    advice = "delete its folder to measure it again."
    found = parse_record(ChangeProfile, path.read_bytes(), str(path), advice)
    counts = [
        n
        for by in (found.restored_by_layer, found.restored_by_module)
        for part in by.values()
        for n in part.values()
    ]
    if counts and not 0 <= min(counts) <= max(counts) < 2**63:
        raise UserError("holds a number of weights that no model has", place=path, advice=advice)
    lacking = found.cuts.keys() - (found.restored_by_layer.keys() & found.restored_by_module.keys())
    if lacking:
        raise UserError(f"does not say what {min(lacking)} % restore", place=path, advice=advice)
    return found


def region_sizes(
    base: Checkpoint, names: Sequence[str], region: Region, layers: str | None = None
) -> dict[str, int]:
    """Parameters of the region with their numbers of weights, sorted by name. Raises UserError if there is
    none, and for a layer that the model does not have.
    """
    check_layers(layers, names, base.path)
    sizes = {name: prod(base.shape(name)) for name in sorted(names) if in_region(name, region, layers)}
    if not any(sizes.values()):
        narrowed = "" if layers is None else f" within layers {layers}"
        raise UserError(
            f"region {region}{narrowed} selects no parameter (the model has {', '.join(names[:3])}, ...)",
            place=base.path,
            advice="choose another region.",
        )
    return sizes


def profile(
    base_dir: str | PathLike[str],
    tuned_dir: str | PathLike[str],
    percents: str | Sequence[str | int | float] = CONCENTRATION_PERCENTS,
    *,
    progress: Report | None = None,
    controls_seed: int | None = None,
    **selection: Unpack[SelectionKeys],
) -> ChangeProfile:
    """Streams both models three times and returns the exact profile of the change and the cuts of a ladder.

    selection: `region`, `order`, `seed`, `measure`, `layers` and `share_of` (`sftlab.weights.cut.SelectionKeys`); a
    `share_of` other than "weights" takes three passes more (`sftlab.weights.amount`). controls_seed: measures the
    controls too, with this seed of the shuffle, in four passes more. Memory does not depend on the size of the models.
    Raises UserError for models that do not fit each other, for NaN and infinite weights, for an empty region, for
    layers that the model lacks and for percentages that are none.
    """
    chosen = Selection.of(**selection)
    with open_pair(base_dir, tuned_dir) as (base, tuned):
        return profile_pair(base, tuned, percent_labels(percents), chosen, progress, controls_seed)


@dataclass(frozen=True)
class Selection:
    """The weights that are ranked, their order, and what a percentage is a share of. `SelectionKeys` explains each."""

    region: Region
    ranking: Ranking
    layers: str | None
    share_of: ShareOf

    @staticmethod
    def of(**keys: Unpack[SelectionKeys]) -> Selection:
        ranking = Ranking.of(keys.get("order", "top"), keys.get("seed", 0), keys.get("measure", "relative"))
        layers = keys.get("layers")
        return Selection(
            keys.get("region", "layers"),
            ranking,
            None if layers is None else layers_label(layers),
            keys.get("share_of", "weights"),
        )


def profile_pair(
    base: Checkpoint,
    tuned: Checkpoint,
    labels: Sequence[str],
    selection: Selection,
    report: Report | None = None,
    controls_seed: int | None = None,
) -> ChangeProfile:
    """`profile` of two open checkpoints; `labels` as `percent_labels` returns them."""
    region, ranking, layers, share_of = (
        selection.region,
        selection.ranking,
        selection.layers,
        selection.share_of,
    )
    names = check_pair(base, tuned, region, layers)
    sizes = region_sizes(base, names, region, layers)
    outside = {name: base.numel(name) for name in names if name not in sizes}
    search = Search((base, tuned), sizes, ranking)
    passes = 3 + SHARE_PASSES * (share_of != "weights") + CONTROL_PASSES * (controls_seed is not None)
    progress = Progress(pass_bytes(base, (sizes, passes), (outside, 1)), report)
    total = sum(sizes.values())

    if share_of == "weights":
        ranks = {label: restored_count(total, label) for label in labels}
    else:
        ranks = counts_of_shares(search, labels, share_of, progress)
    found = survey(search, ranks, outside, progress)
    cuts, restored = _cuts(search, region, layers, found)
    controls = None if controls_seed is None else controls_of(search, cuts, controls_seed, progress)
    progress.show()
    return ChangeProfile(
        region=region,
        order=ranking.order,
        seed=ranking.seed,
        weights=total,
        changed=found.changed,
        total_change=found.total_change,
        concentration=found.concentration,
        weights_by_layer=by_layer(sizes),
        weights_by_module=by_module(sizes),
        restored_by_layer={label: by_layer(of) for label, of in restored.items()},
        restored_by_module={label: by_module(of) for label, of in restored.items()},
        cuts=cuts,
        measure=ranking.measure,
        layers=layers,
        share_of=share_of,
        controls=controls,
    )


def controls_for(
    base_dir: str | PathLike[str],
    tuned_dir: str | PathLike[str],
    found: ChangeProfile,
    seed: int = 0,
    progress: Report | None = None,
) -> Controls:
    """The controls of a pair whose profile was found before. Raises UserError as `profile`."""
    with open_pair(base_dir, tuned_dir) as (base, tuned):
        sizes = region_sizes(
            base, check_pair(base, tuned, found.region, found.layers), found.region, found.layers
        )
        search = Search((base, tuned), sizes, Ranking.of(found.order, found.seed, found.measure))
        done = Progress(pass_bytes(base, (sizes, CONTROL_PASSES)), progress)
        return controls_of(search, found.cuts, seed, done)


def pass_bytes(base: Checkpoint, *passes: tuple[Mapping[str, int], int]) -> int:
    """Bytes that reading these parameters of both models so many times takes."""
    return sum(
        2 * times * size * item_bytes(base.code(name))
        for sizes, times in passes
        for name, size in sizes.items()
    )


def _cuts(
    search: Search, region: Region, layers: str | None, found: Survey
) -> tuple[dict[str, Cut], dict[str, dict[str, int]]]:
    """The cuts, and how many weights each restores of every parameter."""
    cuts, restored = {}, {}
    total = sum(search.sizes.values())
    for label, threshold in found.thresholds.items():
        restored[label], last = found.restored(label)
        name, position = "", 0
        if last is not None:
            name, position = last[0], search.position_after(last[0], threshold.key, last[1])
        cuts[label] = Cut(
            percent=label,
            order=search.ranking.order,
            region=region,
            seed=search.ranking.seed,
            threshold=threshold.key,
            tie_name=name,
            tie_position=position,
            count=threshold.count,
            total=total,
            measure=search.ranking.measure,
            layers=layers,
        )
    return cuts, restored
