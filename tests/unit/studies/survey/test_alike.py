"""Which bases share their engines."""

from __future__ import annotations

from pathlib import Path

from sftlab.studies.survey.stages.scores import all_but_weights


def test_bases_that_differ_in_weights_alone_are_alike(tmp_path: Path) -> None:
    files = {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "weights", "notes.md": "mine"}
    changed = {
        "same": {},
        "weights": {"model.safetensors": "other", "notes.md": "yours"},
        "tokenizer": {"tokenizer.json": '{"a": 1}'},
        "config": {"config.json": '{"a": 1}'},
    }
    for name, change in changed.items():
        (tmp_path / name).mkdir()
        for file, text in {**files, **change}.items():
            (tmp_path / name / file).write_text(text)
    same, weights, tokenizer, config = (all_but_weights(tmp_path / name) for name in changed)
    assert same == weights and [name for name, _ in same] == ["config.json", "tokenizer.json"]
    assert len({same, tokenizer, config}) == 3
