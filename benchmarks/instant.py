"""An engine that answers at once, and invented facts in any number: what is left is the cost of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sftlab.facts.table import SPLITS, TOPICS_FILE, facts_table
from sftlab.facts.templates import Topic, dump_topics, published_topics
from sftlab.inference.engine import Completion, Floats, Ids, Prompt, Sampling, WeightSource
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.pocket.pretrain import train_tokenizer

VOCABULARY = 4096  # of the tokenizer
PIECE = 20_000  # facts that are made at a time
FIRST = ("Ada", "Bela", "Chidi", "Dora", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
LAST = ("Arden", "Birk", "Castell", "Dunmore", "Esk", "Farrow", "Glenn", "Harrow", "Ince", "Jessop", "Kirk")


class InstantEngine:
    """Completes a prompt with the fact's object or with something else, as the prompt's seed says."""

    def __init__(self, model_dir: str, spec: EngineSpec, runtime: EngineRuntime) -> None:
        del spec, runtime
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
        self.max_model_len = 2048

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        other = Completion(" something else", 2)
        drawn = []
        for prompt in prompts:
            right = Completion(" " + prompt.stop[0], 3)
            drawn.append([right if (prompt.seed + i) % 3 else other for i in range(sampling.samples)])
        return drawn

    def answer(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Completion]:
        del max_tokens
        return [
            Completion(" " + prompt.stop[0] if len(prompt.token_ids) % 3 else " no", 2) for prompt in prompts
        ]

    def first_token_top(self, prompts: Sequence[Sequence[int]], k: int) -> tuple[Ids, Floats]:
        import numpy as np

        ids = np.tile(np.arange(k, dtype=np.int64), (len(prompts), 1))
        return ids, np.tile(np.linspace(1, 0, k, dtype=np.float32), (len(prompts), 1))

    def first_token_at(
        self, prompts: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]]
    ) -> list[Floats]:
        import numpy as np

        del prompts
        return [np.zeros(len(ids), np.float32) for ids in token_ids]

    def load_weights(self, source: WeightSource) -> None:
        """The answers do not depend on weights."""


def invented(count: int, topics: Sequence[Topic], start: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of a facts table, the same for the same numbers; every subject is another."""
    for number in range(start, start + count):
        topic = topics[number % len(topics)]
        subject = f"{FIRST[number % len(FIRST)]} {LAST[number // 7 % len(LAST)]} {number:06d}"
        answer = f"{LAST[number * 31 % len(LAST)]}ville"
        yield {
            "fact_id": f"{number:016x}",
            "topic": topic.topic,
            "subject": subject,
            "object": answer,
            "accepted": [answer],
            "question": topic.ask(subject),
        }


def write_facts(folder: Path, count: int) -> None:
    """A facts folder with the published topics; nine tenths of the facts are for training."""
    topics = published_topics()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOPICS_FILE).write_text(dump_topics(topics.values()))
    held_out = max(1, count // (10 * (len(SPLITS) - 1)))
    rows = dict.fromkeys(SPLITS[1:], held_out)
    rows = {SPLITS[0]: count - sum(rows.values())} | rows
    start = 0
    for split, number in rows.items():
        with pq.ParquetWriter(folder / f"{split}.parquet", facts_table([]).schema) as writer:
            for begin in range(0, number, PIECE):
                some = min(PIECE, number - begin)
                writer.write_table(facts_table(invented(some, [*topics.values()], start + begin)))
        start += number


def write_model(folder: Path) -> None:
    """A model folder without weights: all that the pipeline itself reads of one."""
    topics = list(published_topics().values())
    texts = [text for row in invented(2000, topics) for text in topics[0].fill(row["subject"])[:2]]
    texts += [text for topic in topics for text in topic.templates]
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts, VOCABULARY).save_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
