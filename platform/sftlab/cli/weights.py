"""Commands for the weights of two models: change, restore, pack and unpack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from sftlab.cli.common import JsonFlag, Shown, bar_once_begun, show
from sftlab.cli.options import MODEL, expanded
from sftlab.errors import UserError
from sftlab.files import bytes_text

if TYPE_CHECKING:
    from sftlab.weights.cut import Measure, Order, Region, SelectionKeys, ShareOf


BaseFolder = Annotated[
    Path, typer.Option(help="Folder, or id of a hub, of the model before fine-tuning."), MODEL
]
TunedFolder = Annotated[
    Path,
    typer.Option(help="Folder of the model after fine-tuning: plain, an adapter, or of `sftlab pack`."),
    MODEL,
]


@dataclass(frozen=True)
class Ranked:
    """Which weights are ranked, and how."""

    percent: Annotated[str, typer.Option(help="Percentages, separated by commas.")] = "1,3,5,10,20,40,60"
    region: Annotated[str, typer.Option(help="layers, attention, mlp, embeddings or all.")] = "layers"
    order: Annotated[str, typer.Option(help="top, bottom, random, smallest-base or shuffled.")] = "top"
    seed: Annotated[int, typer.Option(help="Seed of the orders random and shuffled.")] = 0
    measure: Annotated[
        str, typer.Option(help="Change that top, bottom and shuffled rank by: relative or absolute.")
    ] = "relative"
    layers: Annotated[
        str | None, typer.Option(help="Narrow the region to these transformer layers, as 0-3 or 0,2,5-7.")
    ] = None
    share_of: Annotated[
        str,
        typer.Option(help="What a percentage is a share of: weights, or of the change, l1 or l2 (squared)."),
    ] = "weights"


@expanded
def change(
    base: BaseFolder,
    tuned: TunedFolder,
    output: Annotated[Path, typer.Option(help="Folder for change.json.")],
    ranked: Ranked,
    as_json: JsonFlag = False,
) -> None:
    """Measure how far each weight moved.

    And how concentrated the movement is.
    """
    show(as_json, lambda: change_weights(base, tuned, output, ranked))


@expanded
def restore(
    base: BaseFolder,
    tuned: TunedFolder,
    output: Annotated[Path, typer.Option(help="Folder for restored-10/ and so on, and change.json.")],
    ranked: Ranked,
    as_json: JsonFlag = False,
) -> None:
    """Put the most-changed weights back to base values.

    Writes a model for each percentage.
    """
    show(as_json, lambda: restore_weights(base, tuned, output, ranked))


@expanded
def pack(
    base: BaseFolder,
    tuned: Annotated[
        Path, typer.Option(help="Folder of the model after fine-tuning, plain or an adapter."), MODEL
    ],
    output: Annotated[Path, typer.Option(help="New folder for the packed model.")],
    as_json: JsonFlag = False,
) -> None:
    """Store a tuned model as the difference to its base.

    Lossless: `sftlab unpack` writes the same bytes again. `change` and `restore` take the packed folder as --tuned.
    """
    show(as_json, lambda: pack_weights(base, tuned, output))


@expanded
def unpack(
    base: BaseFolder,
    packed: Annotated[Path, typer.Option(help="Folder that `sftlab pack` wrote."), MODEL],
    output: Annotated[Path, typer.Option(help="New folder for the tuned model.")],
    as_json: JsonFlag = False,
) -> None:
    """Write a packed model as the folder that it was.

    All files are the same, byte for byte; their hashes are checked.
    """
    show(as_json, lambda: unpack_weights(base, packed, output))


def change_weights(base: Path, tuned: Path, output: Path, ranked: Ranked) -> Shown:
    """Measure the change of the weights and write change.json."""
    from sftlab.weights.ladder import CHANGE_FILE, change

    with bar_once_begun("measuring") as update:
        found = change(base, tuned, output, ranked.percent, progress=update, **_selection(ranked))
    assert found.controls is not None
    null, undone = found.controls.null.concentration, found.controls.undone
    shares = ", ".join(
        f"top {top} %: {share:.1%} ({null[top]:.1%})" for top, share in found.concentration.items()
    )
    taken_back = ", ".join(
        f"{percent} %: {of.relative:.1%} relative, {of.l1:.1%} absolute, {of.l2:.1%} squared"
        for percent, of in undone.items()
    )
    data = {
        "weights": found.weights,
        "changed": found.changed,
        "concentration": dict(found.concentration),
        "null_concentration": dict(null),
        "undone": {percent: asdict(of) for percent, of in undone.items()},
        "change": str(output / CHANGE_FILE),
    }
    return Shown(
        data,
        f"{found.changed:,} of {found.weights:,} weights changed\n"
        f"share of the total relative change (with the updates of each matrix shuffled): {shares}\n"
        f"share of the total change that a restoration undoes: {taken_back}\n"
        f"written to {output / CHANGE_FILE}",
    )


def restore_weights(base: Path, tuned: Path, output: Path, ranked: Ranked) -> Shown:
    """Write a restored model for each percentage."""
    from sftlab.weights.ladder import CHANGE_FILE, restore

    with bar_once_begun("restoring") as update:
        found = restore(base, tuned, ranked.percent, output, progress=update, **_selection(ranked))
    models = {
        label: {"path": str(output / f"restored-{label}"), "restored": cut.count, "weights": cut.total}
        for label, cut in found.cuts.items()
    }
    lines = [
        f"{model['path']}: {model['restored']:,} of {model['weights']:,} weights restored"
        for model in models.values()
    ]
    return Shown({"models": models, "change": str(output / CHANGE_FILE)}, "\n".join(lines))


def pack_weights(base: Path, tuned: Path, output: Path) -> Shown:
    """Pack a tuned model; shows the sizes, and what is not in the packed folder."""
    from sftlab.weights.packing import pack

    with bar_once_begun("packing") as update:
        found = pack(base, tuned, output, update)
    share = found.packed_bytes / found.restored_bytes
    lines = [
        f"{output}: {bytes_text(found.packed_bytes)} for {bytes_text(found.restored_bytes)} ({share:.1%}); read back "
        "and compared"
    ]
    if found.whole:
        lines.append(f"kept whole, as the base model has no such tensor: {', '.join(found.whole)}")
    if found.left_out:
        lines.append(f"not packed, as no part of the model: {', '.join(found.left_out)}")
    return Shown({"path": str(output), **asdict(found)}, "\n".join(lines))


def unpack_weights(base: Path, packed: Path, output: Path) -> Shown:
    """Unpack a packed model; shows what was written."""
    from sftlab.weights.packing import unpack

    with bar_once_begun("unpacking") as update:
        written = unpack(base, packed, output, update)
    text = f"{output}: {bytes_text(written)} of weights, the same bytes as were packed"
    return Shown({"path": str(output), "bytes": written}, text)


def _selection(ranked: Ranked) -> SelectionKeys:
    return {
        "region": _region(ranked.region),
        "order": _order(ranked.order),
        "seed": ranked.seed,
        "measure": _measure(ranked.measure),
        "layers": ranked.layers,
        "share_of": _share_of(ranked.share_of),
    }


def _region(name: str) -> Region:
    from sftlab.weights.cut import Region

    return _one_of(name, get_args(Region), "--region")  # type: ignore[return-value]


def _order(name: str) -> Order:
    from sftlab.weights.cut import Order

    return _one_of(name, get_args(Order), "--order")  # type: ignore[return-value]


def _measure(name: str) -> Measure:
    from sftlab.weights.cut import Measure

    return _one_of(name, get_args(Measure), "--measure")  # type: ignore[return-value]


def _share_of(name: str) -> ShareOf:
    from sftlab.weights.cut import ShareOf

    return _one_of(name, get_args(ShareOf), "--share-of")  # type: ignore[return-value]


def _one_of(name: str, known: Sequence[str], option: str) -> str:
    if name not in known:
        raise UserError(f"is none of {', '.join(known)}", place=f"{option} {name}", value=name)
    return name
