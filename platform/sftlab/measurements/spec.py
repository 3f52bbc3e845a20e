"""Specifications of the measurements; hashed into the ids of results."""

from __future__ import annotations

from pydantic import Field, model_validator

from sftlab.config.frozen import Flag, Frozen


class MasterySpec(Frozen):
    """How mastery of a fact is scored (paper, section 3.1)."""

    samples: int = Field(default=10, ge=1, description="Sampled completions of each mapping template.")
    temperature: float = Field(default=0.7, gt=0, description="Sampling temperature.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus of the sampling distribution.")
    max_tokens: int = Field(default=32, ge=1, description="Longest completion, in tokens.")
    seed: int = Field(default=0, ge=0, description="Seed from which every row derives its own.")
    block_facts: int = Field(
        default=32,
        ge=1,
        description="Facts of one committed block, which is also one batch of the engine. It belongs to the "
        "spec because what a batch holds may move the last bits of a logit.",
    )
    early_stop: bool = Field(
        default=True,
        description="End a completion as soon as it contains an accepted name. The verdict is the same.",
    )
    whole_words: Flag = Field(
        default=None,
        description="Count an accepted name only where no letter or digit touches it. Completions then run on to "
        "max_tokens, since the character after a name decides.",
    )


class AnswerSpec(Frozen):
    """How closed-book questions are answered: greedily (paper, section 3.3)."""

    max_tokens: int = Field(default=16, ge=1, description="Longest answer, in tokens.")
    early_stop: bool = Field(
        default=True,
        description="End an answer as soon as it contains an accepted name. The verdict is the same; the text "
        "of a right answer then ends with the name.",
    )
    whole_words: Flag = Field(
        default=None,
        description="Count an accepted name only where no letter or digit touches it. Answers then run on to "
        "max_tokens.",
    )
    block_rows: int = Field(
        default=4096,
        ge=1,
        description="Questions of one call to the engine. It belongs to the spec because what a batch holds "
        "may move the last bits of a logit.",
    )


class FewShotSpec(Frozen):
    """The ceiling of the base model: its answers where solved questions of the topic come before each question."""

    shots: int = Field(default=4, ge=1, le=64, description="Solved questions before each question.")
    seed: int = Field(default=0, ge=0, description="Seed of the draw; draws of one seed are nested.")


class DivergenceSpec(Frozen):
    """Which first-token distributions are compared (paper, section 4.1)."""

    top: int = Field(default=10, ge=2, description="Tokens compared: the tuned model's largest logits.")
    same_prompt: bool = Field(
        default=False,
        description="Give the tuned model the base model's mapping template in place of its question prompt.",
    )
    answer_within: int = Field(
        default=4,
        ge=0,
        description="The base model's completion must contain an accepted name that starts within this many "
        "characters of the completion's first non-blank one; 0: right at it.",
    )


class GradientSpec(Frozen):
    """Which facts have their gradients measured at the base model."""

    percent: float = Field(
        gt=0,
        le=100,
        description="Restored weights on which the share of gradients is measured; on the ladder.",
    )
    facts: int = Field(
        default=16,
        ge=2,
        description="Facts of each bucket of test whose gradients are compared; all if fewer.",
    )
    questions: int = Field(
        default=100,
        ge=2,
        description="Well-mastered facts (bucket 4) of test and of test_ood each whose loss after fine-tuning is "
        "predicted; all if fewer.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw; draws of one seed are nested.")


class LikelihoodSpec(Frozen):
    """How log-likelihoods of continuations are measured."""

    block_rows: int = Field(
        default=1024,
        ge=1,
        description="Rows of one call to the engine. It belongs to the spec because what a batch holds may move the "
        "last bits of a log-probability.",
    )


class CodeFileSpec(Frozen):
    """Programming problems in the format of HumanEval or MBPP."""

    source: str = Field(description="File: .jsonl, .ndjson, .json (each also .gz) or .parquet.")
    max_tokens: int = Field(default=512, ge=1, description="Longest answer, in tokens.")
    questions: int | None = Field(
        default=None, ge=1, description="Problems that are asked, drawn by seed; all if unset."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw; draws of one seed are nested.")


class CodeSpec(Frozen):
    """Benchmarks whose answers are programs, which run in a sandbox."""

    allow: bool = Field(
        default=False, description="Run what the models write; without it the survey is refused."
    )
    files: dict[str, CodeFileSpec] = Field(min_length=1, description="Problems by the name of the benchmark.")
    seconds: float = Field(default=5.0, gt=0, le=600, description="Longest run of a program.")
    memory_mib: int = Field(default=1024, ge=128, description="Memory of a program.")


class HarnessSpec(Frozen):
    """Tasks of lm-eval, answered by the engines of the survey. They need `pip install sftlab[harness]`."""

    tasks: tuple[str, ...] = Field(min_length=1, description="Names of tasks or groups.")
    include: str | None = Field(
        default=None, description="Folder with YAML files of tasks and their data; their names come first."
    )
    questions: int | None = Field(
        default=None, ge=1, description="The first questions of each task that are asked; all if unset."
    )
    shots: int | None = Field(
        default=None, ge=0, description="Examples before each question; as the task says if unset."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the examples.")
    metrics: dict[str, str] = Field(
        default_factory=dict,
        description="By task the metric that is its score, or METRIC,FILTER; the first of the task if unset.",
    )

    @model_validator(mode="after")
    def _known_tasks(self) -> HarnessSpec:
        for name in self.metrics:
            if name not in self.tasks:
                raise ValueError(f"metrics: {name!r} is not among the tasks {', '.join(self.tasks)}")
        return self
