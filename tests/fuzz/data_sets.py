"""Readers of data sets, of benchmark questions and of templates."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz import seeds
from tests.fuzz.mutate import altered
from tests.fuzz.reader import Reader


def data_set_readers() -> list[Reader]:
    """One reader a container: lines and lists in one, the same packed, and tables."""
    plain = [*map(seeds.json_lines, seeds.DATA), *map(seeds.json_text, seeds.DATA)]
    packed = [gzip.compress(data, mtime=0) for data in plain]
    tables = [seeds.parquet(rows, kind) for rows in seeds.DATA for kind in ("none", "zstd")]
    questions = [seeds.json_lines([{"question": "What is it?", "answer": "x"}])]
    templates = [text.encode() for text in seeds.TEMPLATES]
    return [
        Reader("data set lines", _reader_of("data.jsonl"), plain, _rows),
        Reader("data set packed", _reader_of("data.json.gz"), packed, lambda draw: gzip.compress(_rows(draw), mtime=0)),
        Reader("data set parquet", _reader_of("data.parquet"), tables, _table),
        Reader("benchmark questions", _questions, questions, _rows),
        Reader("data set template", _template, templates, _template_text),
    ]  # fmt: skip


def _reader_of(name: str) -> Callable[[bytes, Path], object]:
    """Rows, conversations, texts, and what a preview prints of them."""

    def read(data: bytes, folder: Path) -> object:
        from sftlab.datasets.preview import as_json, preview
        from sftlab.datasets.preview_text import as_text
        from sftlab.datasets.source import open_data
        from sftlab.datasets.spec import DataFileSpec
        from sftlab.datasets.templates import make_template

        (folder / name).write_bytes(data)
        source = open_data(DataFileSpec(source=str(folder / name), unusable="drop"))
        found = preview(source, make_template("paper"), [])
        as_text(found, colour=True).encode()
        return json.dumps(as_json(found))

    return read


def _questions(data: bytes, folder: Path) -> object:
    from sftlab.datasets.overlap import Overlap, read_questions

    (folder / "questions.jsonl").write_bytes(data)
    return Overlap("x", read_questions(folder / "questions.jsonl")).questions


def _template(data: bytes, folder: Path) -> object:
    from sftlab.datasets.conversations import exchange
    from sftlab.datasets.templates import make_template, read_template

    (folder / "template").write_bytes(data)
    return make_template(read_template(str(folder / "template"))).render(
        exchange("What is it?", "A thing.", "S")
    )


def _rows(draw: Random) -> bytes:
    rows = altered(draw.choice(seeds.DATA), draw)
    lines = isinstance(rows, list) and draw.random() < 0.5
    return seeds.json_lines(rows) if lines else seeds.json_text(rows)


def _table(draw: Random) -> bytes:
    kind = draw.choice(("none", "snappy", "zstd", "gzip"))
    return seeds.parquet(altered(draw.choice(seeds.DATA), draw), kind)


def _template_text(draw: Random) -> bytes:
    return str(altered(draw.choice(seeds.TEMPLATES), draw)).encode("utf-8", "surrogatepass")
