"""What a survey measures on request, besides scores, perplexity and the change of weights. Hashed into ids."""

from __future__ import annotations

from pydantic import Field

from sftlab.config.frozen import Frozen
from sftlab.measurements.map_texts import MAP_TEXTS, MapText


class LikelihoodMapSpec(Frozen):
    """The map of models by the log-likelihoods that they give to questions (Figure 6)."""

    questions: int = Field(ge=1, description="Questions of each benchmark, the first ones, at most.")
    texts: tuple[MapText, ...] = Field(
        default=MAP_TEXTS,
        min_length=1,
        description="What is scored of a question, a map each: its text (question), or the question with its answer in "
        "the template (answer).",
    )


class LayerMapsSpec(Frozen):
    """What the update of each layer does to scores, from models of which some layers alone are tuned."""

    data: tuple[str, ...] = Field(min_length=1, description="Sets whose models are mapped.")
    bases: tuple[str, ...] | None = Field(
        default=None, description="Bases whose models are mapped; all if unset."
    )
    group: int = Field(default=0, ge=0, description="Group of `runs` that the models are of, counted from 0.")
    questions: int | None = Field(
        default=None, ge=1, description="Questions of each benchmark, the first ones; all if unset."
    )
    cumulative: bool = Field(
        default=True,
        description="Also the layers up to each one from the input, and from the output, together.",
    )


class GeometrySpec(Frozen):
    """Geometry of the hidden states of prompts at every layer (Figures 5d, A.2, A.3)."""

    prompts: int = Field(
        ge=1, description="Prompts of each set, the first ones of its training set, at most."
    )
    group: int = Field(
        default=0,
        ge=0,
        description="Group of `runs` whose single sets give the prompts, and whose bases and models are measured.",
    )
    pictures: tuple[str, ...] | None = Field(
        default=None,
        description="Bases that are drawn, with their models: t-SNE of the states of the last layer (Figure A.4).",
    )


class MeasureSpec(Frozen):
    """Measurements that take time of their own; each is left out if unset."""

    likelihood_map: LikelihoodMapSpec | None = Field(default=None, description="Map of all models.")
    geometry: GeometrySpec | None = Field(default=None, description="Geometry of hidden states.")
    layer_maps: LayerMapsSpec | None = Field(default=None, description="Causal layer maps of some models.")
