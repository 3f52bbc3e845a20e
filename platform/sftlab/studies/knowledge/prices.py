"""What the steps of a study take: completions, tokens and bytes of weights, without running anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sftlab.execution.cost import Cost
from sftlab.facts.mastery import BUCKETS
from sftlab.facts.training_sets import MIXED
from sftlab.studies.knowledge.sources import Sources
from sftlab.studies.knowledge.spec import StudySpec

AFTER_SPLITS = ("test", "test_ood")  # of which mastery is scored after tuning
EVALUATION_SPLITS = ("dev", "dev_ood", "test", "test_ood")
# For estimates alone. In EntityQuestions a filled template has 43 characters on average and a question's prompt 62, and
# the markers of the prompt are several tokens each.
TOKENS_PER_EXAMPLE = 32  # prompt and target of one question
QUESTION_TOKENS = 24  # prompt of one question
TEMPLATE_TOKENS = 12  # one filled mapping template


@dataclass(frozen=True)
class Prices:
    """The costs of a study's steps, without engine starts."""

    spec: StudySpec
    sources: Sources

    def drawn(self, bucket: int | str, size: int | str) -> int:
        """Facts of a training set, replayed ones included; estimated where the set is all of a bucket."""
        facts = self.estimated_size(bucket, size)
        return facts + self.spec.training_sets.rule.replayed(facts)

    def estimated_size(self, bucket: int | str, size: int | str) -> int:
        """Facts of a set; of all facts of a bucket, which no plan knows, as if buckets were equally large."""
        if isinstance(size, int):
            return size
        everything = self.sources.fact_counts["train"]
        return everything if bucket == MIXED else everything // len(BUCKETS)

    def scoring(self, counts: Iterable[int]) -> Cost:
        """What scoring the mastery of so many facts takes."""
        prompts = sum(counts) * self.sources.templates  # each is read once for all of its samples
        scored = round(prompts * self.spec.mastery.samples)
        return Cost(
            completions=scored,
            generated_tokens=scored * self.spec.mastery.max_tokens,
            prompt_tokens=round(prompts * TEMPLATE_TOKENS),
        )

    def tuning(self, bucket: int | str, size: int | str, epochs: int) -> Cost:
        """What the fine-tuning on a training set takes."""
        trained = self.drawn(bucket, size) * epochs * TOKENS_PER_EXAMPLE
        return Cost(trained_tokens=trained, bytes_written=self.sources.model_bytes)

    def answering(self, percent: float, trained_on: int) -> Cost:
        """What the answers of one model take, those about the facts that it was trained on included."""
        questions = trained_on + sum(self.sources.fact_counts[split] for split in EVALUATION_SPLITS)
        return self._asking(questions, QUESTION_TOKENS) + self.loading(percent)

    def answering_after_examples(self) -> Cost:
        """What the base model's answers to the test questions take, with solved questions before each."""
        assert self.spec.few_shot is not None
        questions = sum(self.sources.fact_counts[split] for split in AFTER_SPLITS)
        prompt = QUESTION_TOKENS + self.spec.few_shot.shots * TOKENS_PER_EXAMPLE
        return self._asking(questions, prompt) + self.loading(0)

    def _asking(self, questions: int, prompt_tokens: int) -> Cost:
        return Cost(
            completions=questions,
            generated_tokens=questions * self.spec.answers.max_tokens,
            prompt_tokens=questions * prompt_tokens,
        )

    def loading(self, at: float | str) -> Cost:
        """The weights that are read for a model of a ladder: of a restored one those of the base and the tuned one."""
        return Cost(bytes_read=(2 if at else 1) * self.sources.model_bytes)
