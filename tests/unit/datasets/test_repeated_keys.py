"""An object of JSON that has a key twice is refused in every container of instruction data."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.datasets.read import open_rows
from tests.support.refusals import refused

LISTS = ("list.jsonl", "a.json", "a.json.gz")
VALUES = st.recursive(
    st.integers(0, 9) | st.sampled_from(["a", "\u00e9"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(st.tuples(st.sampled_from("abcd"), inner), max_size=3).map(tuple)
    ),
    max_leaves=6,
)


def json_of(value: Any) -> tuple[str, set[str]]:
    """A JSON text in which tuples of pairs are objects, and the keys that one object has twice."""
    if isinstance(value, int | str):
        return json.dumps(value), set()
    if isinstance(value, list):
        parts = [json_of(item) for item in value]
        return f"[{', '.join(text for text, _ in parts)}]", set[str]().union(*(keys for _, keys in parts))
    keys = [key for key, _ in value]
    parts = [json_of(inner) for _, inner in value]
    text = ", ".join(f"{json.dumps(key)}: {part}" for key, (part, _) in zip(keys, parts, strict=True))
    twice = {key for key in keys if keys.count(key) > 1}
    return f"{{{text}}}", twice.union(*(keys for _, keys in parts))


@given(VALUES, st.sampled_from([*LISTS, "a.jsonl", "lines.json", "a.jsonl.gz"]))
def test_an_object_that_has_a_key_twice_is_refused_at_any_depth_in_every_container(
    tmp_path_factory: pytest.TempPathFactory, value: Any, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    text, twice = json_of(value)
    rows = ['{"q": 0}', f'{{"q": {text}}}']
    content = (f"[{', '.join(rows)}]" if name in LISTS else "\n".join(rows)).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    if not twice:
        assert [where for where, _ in open_rows(path).all] == [f"{path}, row 1", f"{path}, row 2"]
        return
    with refused("is given twice in one object", place=f"{name}, row 2") as caught:
        list(open_rows(path).all)
    assert caught.value.value in twice
