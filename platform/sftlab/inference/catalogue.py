"""A catalogue of models: one YAML file a model, which studies of any kind name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sftlab.config.frozen import Frozen
from sftlab.config.overrides import read_yaml, validated
from sftlab.config.paths import anchor
from sftlab.errors import UserError

ADVICE = "name a file of the catalogue, such as models/llama3-8b.yaml, or a folder by model: {path: FOLDER}."


class ModelEntry(Frozen):
    """A model as a catalogue has it. All but `dtype` becomes `model` of a study, `dtype` its `engine.dtype`."""

    path: str = Field(description="folder with config.json, safetensors and tokenizer")
    revision: str | None = Field(None, description="hub commit of the files, where the folder has one")
    parameters: int = Field(ge=1, description="weights of the model")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        description="dtype of weights and activations in engines"
    )
    tensor_parallel: tuple[int, ...] = Field(
        min_length=1, description="numbers of GPUs over which an engine can split each layer"
    )
    memory_gib: float = Field(
        gt=0, description="GPU memory of an engine, over all of its GPUs: weights, cache and workspace"
    )

    @property
    def model(self) -> dict[str, Any]:
        """What a study has under `model`."""
        return self.model_dump(exclude={"dtype"}, exclude_none=True)


def read_entry(path: Path) -> ModelEntry:
    """A file of a catalogue. Raises UserError naming file and field."""
    document = read_yaml(path, ModelEntry, {}, ADVICE)
    anchor(document, ["path"], path)
    return validated(ModelEntry, document, str(path))


def read_catalogue(folder: Path) -> dict[str, ModelEntry]:
    """All models of a catalogue by the names of their files, sorted. Raises UserError where there is none."""
    found = {path.stem: read_entry(path) for path in sorted(folder.glob("*.yaml"))}
    if not found:
        raise UserError(
            "has no model (*.yaml)", place=folder, advice="name the folder of a catalogue by --models."
        )
    return found


def described(entry: ModelEntry) -> str:
    """A line about a model: size, memory and GPUs of an engine, folder."""
    gpus = ", ".join(map(str, entry.tensor_parallel))
    return (
        f"{entry.parameters / 1e9:.1f} billion parameters in {entry.dtype}; an engine takes {entry.memory_gib:g} GiB "
        f"over {gpus} GPUs; folder {entry.path}"
    )
