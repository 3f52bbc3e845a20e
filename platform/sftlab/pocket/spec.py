"""What the pocket world is (`PocketSpec`, hashed) and how it is built here (`PocketRuntime`, not hashed)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sftlab.config.frozen import Frozen
from sftlab.config.words import AUTO

Knot = tuple[float, float]


class FactCounts(Frozen):
    """Facts per topic of each split; `train`, `test`, `dev` are in-domain topics, `*_ood` the others."""

    train: int = Field(default=300, ge=1, description="training facts per in-domain topic")
    test: int = Field(default=60, ge=1, description="test facts per in-domain topic")
    test_ood: int = Field(default=40, ge=1, description="test facts per out-of-domain topic")
    dev: int = Field(default=25, ge=1, description="development facts per in-domain topic")
    dev_ood: int = Field(default=20, ge=1, description="development facts per out-of-domain topic")
    qa: int = Field(
        default=40,
        ge=0,
        description="facts per topic, in no split, that the question-and-answer text is about",
    )


class Exposure(Frozen):
    """How often facts are shown in the pre-training text."""

    curve: tuple[Knot, ...] = Field(
        default=((0.15, 6.0), (0.24, 10.0), (0.34, 17.0), (0.86, 32.0), (0.88, 50.0), (1.0, 100.0)),
        description="quantile function of the showings: (quantile, showings) knots, log-linear between them; "
        "quantiles below the first knot are never shown",
    )
    ood_scale: float = Field(
        default=1.3,
        gt=0,
        description="factor on the showings of out-of-domain facts, which have rarer templates",
    )
    qa_sentences: int = Field(
        default=50, ge=0, description="showings of each question-and-answer fact as a sentence"
    )
    qa_questions: int = Field(default=25, ge=0, description="showings of each as question and answer")
    qa_unanswered: int = Field(default=20, ge=0, description="showings of its question without the answer")

    @model_validator(mode="after")
    def _ascending(self) -> Exposure:
        if not self.curve or self.curve[-1][0] != 1.0:
            raise ValueError("curve: the last knot must be at quantile 1.0")
        for (q0, s0), (q1, s1) in pairwise(self.curve):
            if not (0 <= q0 < q1 and 0 < s0 <= s1):
                raise ValueError(
                    "curve: quantiles must rise from 0 or more, showings must be positive and not fall"
                )
        return self


class Shape(Frozen):
    """Shape of the untied Llama."""

    hidden: int = Field(default=192, ge=8, description="hidden size")
    layers: int = Field(default=4, ge=1, description="transformer layers")
    heads: int = Field(default=3, ge=1, description="attention heads; must divide `hidden`")
    intermediate: int = Field(default=512, ge=8, description="inner size of the feed-forward layers")
    vocabulary: int = Field(
        default=4096, ge=300, description="entries of the byte-level BPE vocabulary, at most"
    )
    sequence: int = Field(default=128, ge=32, description="tokens of a training sequence")

    @model_validator(mode="after")
    def _divides(self) -> Shape:
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"heads: {self.heads} heads of even size do not divide hidden size {self.hidden}"
            )
        return self


class Optimisation(Frozen):
    """AdamW with linear warm-up and cosine decay to a tenth, one pass over the text."""

    sequences: int = Field(default=8, ge=1, description="sequences per step")
    learning_rate: float = Field(default=3e-3, gt=0, description="peak learning rate")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps spent warming up")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW weight decay, on matrices")
    beta2: float = Field(default=0.98, gt=0, lt=1, description="AdamW second-moment decay")


class PocketSpec(Frozen):
    """Everything that decides which facts and which model come out."""

    seed: int = Field(default=0, ge=0, description="seed of names, facts, showings, text, weights")
    source: str | None = Field(
        default=None,
        description="None: invented entities; else the EntityQuestions zip or folder to draw facts from",
    )
    in_domain: tuple[str, ...] = Field(
        default=("P17", "P19", "P159", "P495"),
        min_length=1,
        description="topics of train, test and dev",
    )
    out_of_domain: tuple[str, ...] = Field(
        default=("P50", "P112", "P127", "P176", "P264"),
        min_length=1,
        description="topics of test_ood and dev_ood",
    )
    facts: FactCounts = Field(default=FactCounts(), description="number of facts")
    objects: int = Field(default=160, ge=4, description="names in each pool of objects (invented facts)")
    object_share: float = Field(
        default=0.04,
        gt=0,
        le=1,
        description="share of a topic's facts that one object may have (given facts)",
    )
    exposure: Exposure = Field(default=Exposure(), description="how often facts are shown")
    false_facts: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the shown facts of each split and topic whose sentences name another object of the "
        "topic, so that the base model believes a wrong answer; none if unset",
    )
    shape: Shape = Field(default=Shape(), description="model and vocabulary")
    optimisation: Optimisation = Field(default=Optimisation(), description="pre-training")


Family = Literal["a", "b", "c"]


class FamilySpec(Frozen):
    """One base of the pocket survey: how its text is mixed, its shape, and the base that it continues."""

    family: Family = Field(default="a", description="Family; three of ten people are shown to one alone.")
    seed: int = Field(default=0, ge=0, description="Seed of text and weights.")
    second_share: float = Field(
        default=0.15, ge=0, le=1, description="Share of fact sentences in the second language."
    )
    scale: float = Field(default=1.0, gt=0, description="Length of the text; 1 is about 580,000 tokens.")
    facts: float = Field(default=1.0, gt=0, description="Factor on the showings of facts.")
    sums: float = Field(default=1.0, gt=0, description="Factor on the documents about numbers.")
    shape: Shape = Field(
        default=Shape(hidden=128, layers=6, heads=4, intermediate=336, vocabulary=1024),
        description="Model and vocabulary; those of the continued base where it continues one.",
    )
    optimisation: Optimisation = Field(default=Optimisation(sequences=4), description="Pre-training.")


class PocketRuntime(Frozen):
    """How pocket models are pre-trained on this machine; the same threads give the same bits."""

    threads: int = Field(default=2, ge=1, description="CPU threads of PyTorch for the model of a study")
    bases: Annotated[int | None, Field(ge=1), AUTO] = Field(
        default=None,
        description="bases of a survey that are pre-trained at once; auto: as many as the cores hold",
    )
    base_threads: int = Field(default=1, ge=1, description="CPU threads of PyTorch for each of these bases")
    checkpoint_every: int = Field(default=100, ge=1, description="steps between checkpoints")
