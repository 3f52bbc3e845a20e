"""Ids of results: a hash over what was computed from what."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

CHUNK = 2**22


def canonical(value: Any) -> Any:
    """`value` in the form that is hashed: plain JSON types, `None` fields left out.

    Leaving `None` out lets a new optional field move nobody's results. Raises TypeError for what has no
    single JSON form, and ValueError for a float that is not finite.
    """
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if isinstance(value, int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be part of a fingerprint")
        return int(value) if value == int(value) and abs(value) < 2**53 else value
    if isinstance(value, Mapping):
        if not set(map(type, value)) <= {str}:
            raise TypeError("keys of a fingerprint must be texts")
        return {key: canonical(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint")


def canonical_json(value: Any) -> str:
    """The one text of `value`: sorted keys, no blanks, no escapes beyond JSON's own."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(stage: str, revision: int, spec: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """SHA-256, in hex, of {stage, revision, spec, ids of the inputs}."""
    spec_text = spec.text if isinstance(spec, HashedOften) else canonical_json(spec)
    # The canonical text of the four, with that of the spec in its place.
    body = f'{{"inputs":{canonical_json(inputs)},"revision":{revision},"spec":{spec_text},"stage":{json.dumps(stage)}}}'
    return sha256(body.encode()).hexdigest()


class HashedOften(dict[str, Any]):
    """A spec that many steps share: its canonical text is made once. Must not be changed."""

    @cached_property
    def text(self) -> str:
        return canonical_json(self)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def rows_hash(rows: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over relative paths and hashes of files, in whatever order."""
    return sha256(canonical_json(sorted(rows)).encode()).hexdigest()
