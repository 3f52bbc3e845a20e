"""Readers of a model that is packed as differences from its base."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import seeds

PACKED_MODEL = seeds.packed_model(seeds.delta_records()[0])
PACKED_DATA = seeds.packed_header() + seeds.delta_records()[0]


def delta_record(data: bytes, folder: Path) -> object:
    return _packed(folder, seeds.json_text(seeds.packed_model(data)), seeds.packed_header() + data)


def delta_data(data: bytes, folder: Path) -> object:
    """A packed data file, its header included, under a description of the sound one."""
    return _packed(folder, seeds.json_text(PACKED_MODEL), data)


def delta_description(data: bytes, folder: Path) -> object:
    return _packed(folder, data, PACKED_DATA)


def _packed(folder: Path, description: bytes, data: bytes) -> object:
    """What all readers of packed models do: the base model with the records, and every tensor's bits."""
    import numpy as np

    from sftlab.weights.bits import raw_type
    from sftlab.weights.delta_folder import open_packed

    base, packed = folder / "base", folder / "packed"
    bits, _ = seeds.delta_pair()
    for model in (base, packed):
        model.mkdir()
        (model / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(seeds.packed_header() + bits.tobytes())
    (packed / "weights.delta.json").write_bytes(description)
    (packed / "model.delta").write_bytes(data)
    with open_packed(packed, base) as found:
        for name in found.names:
            found.read_into(name, 0, np.empty(found.numel(name), raw_type(found.code(name))))
        return [sum(piece.nbytes for piece in found.restored(file)) for file in found.packed_files.values()]
