"""What stop strings save in mastery scoring: generated tokens against completions that all run to their limit.

    python -m benchmarks.scoring --model MODEL_FOLDER --facts FACTS_FOLDER [--split test] [--limit 64]

The peer is the same engine on the same prompts and seeds; it has no stop strings and ignores the end of a text, so
that every completion takes all its tokens, as those of a large base model mostly do. Its verdicts are taken on what
the pipeline would judge, its text up to the end-of-sequence token; names that come only after that are counted. The
engine between the two has no stop strings and ends where the model ends its text, as the pocket model does soon.
Prints the ratios of tokens and of time; exits with 1 where a verdict differs or the peer's ratio misses its target.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sftlab.facts.mastery import contains_answer
from sftlab.facts.table import TOPICS_FILE, read_facts
from sftlab.facts.templates import Topic, load_topics
from sftlab.inference.engine import Completion, Engine, Prompt, Sampling
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.measurements.mastery import score_block
from sftlab.measurements.spec import MasterySpec

WANTED = 0.60  # generated tokens over those of the peer, at most
STOP, END, LIMIT = "stop strings", "to the end of the text", "to the limit"


class RunsOn:
    """The peer: a vLLM engine whose completions all go on to their limit.

    Attributes:
        named_after_end: completions that hold an accepted name after the end-of-sequence token and none before it.
    """

    def __init__(self, engine: Any) -> None:
        self.engine, self.named_after_end = engine, 0
        self.tokenizer, self.max_model_len = engine.tokenizer, engine.max_model_len

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Texts up to the end-of-sequence token, and the tokens of the whole; a prompt's `stop` is only looked for."""
        drawn = {
            "n": sampling.samples,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "ignore_eos": True,
        }
        params = [{"seed": prompt.seed, **drawn} for prompt in prompts]
        outputs = self.engine.generate([prompt.token_ids for prompt in prompts], params)
        return [
            [self._cut(sample.text, list(sample.token_ids), prompt.stop) for sample in output.outputs]
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def _cut(self, whole: str, ids: list[int], accepted: Sequence[str]) -> Completion:
        end = self.tokenizer.eos_token_id
        if end not in ids:
            return Completion(whole, len(ids))
        text = self.tokenizer.decode(ids[: ids.index(end)], skip_special_tokens=True)
        if contains_answer(whole, accepted) and not contains_answer(text, accepted):
            self.named_after_end += 1
        return Completion(text, len(ids))


@dataclass(frozen=True)
class Side:
    """What one way of completing gave: rows of the mastery table, and the seconds it took."""

    rows: list[dict[str, Any]]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(row["tokens"] for row in self.rows)

    @property
    def completions(self) -> int:
        return sum(len(row["hits"]) * row["samples"] for row in self.rows)

    @property
    def verdicts(self) -> list[list[int]]:
        """Right completions by fact and template."""
        return [row["hits"] for row in self.rows]

    def summary(self, name: str) -> str:
        """A line with the totals."""
        return (
            f"{name}: {self.tokens:,} tokens, {self.seconds:.1f} s, {self.completions / self.seconds:,.0f} "
            f"completions/s, {self.tokens / self.completions:.1f} tokens each"
        )


def scored(facts: pa.Table, topics: Mapping[str, Topic], engine: Engine, spec: MasterySpec) -> Side:
    """Score facts block by block. Facts that cannot be asked about are left out."""
    start = time.perf_counter()
    blocks = [facts.slice(at, spec.block_facts) for at in range(0, facts.num_rows, spec.block_facts)]
    rows = [row for block in blocks for row in score_block(block, topics, engine, spec).to_pylist()]
    return Side([row for row in rows if row["error"] is None], time.perf_counter() - start)


def missed(sides: Mapping[str, Side], spec: MasterySpec, named_after_end: int) -> list[str]:
    """Print the comparison; returns what misses its target."""
    stop, completions = sides[STOP], sides[STOP].completions
    for name, side in sides.items():
        print(side.summary(name))
    full = stop.tokens / sides[LIMIT].tokens
    print(f"mean R {sum(row['r'] for row in stop.rows) / len(stop.rows):.3f} over {len(stop.rows)} facts")
    print(f"tokens, stop strings / all to {spec.max_tokens} tokens: {full:.3f} (wanted: at most {WANTED})")
    print(f"tokens, stop strings / {END}: {stop.tokens / sides[END].tokens:.3f}")
    for name in (LIMIT, END):
        print(f"time,   stop strings / {name}: {stop.seconds / sides[name].seconds:.3f}")
        same = stop.verdicts == sides[name].verdicts
        print(f"verdicts of all {completions:,} completions equal to those {name}: {same}")
    print(f"names that come only after the end of the text, which nobody judges: {named_after_end:,}")
    differing = [name for name in (END, LIMIT) if stop.verdicts != sides[name].verdicts]
    wrong = [f"verdicts differ from those {name}" for name in differing]
    if sides[LIMIT].tokens != completions * spec.max_tokens:
        wrong.append("the peer did not run to its limit")
    return wrong + ([f"the ratio of tokens is over {WANTED}"] if full > WANTED else [])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=64, help="facts to score, evenly spaced over the split")
    parser.add_argument("--max-num-seqs", type=int, help="default: that of the engine")
    parser.add_argument("--block-facts", type=int, default=MasterySpec().block_facts)
    options = parser.parse_args()

    topics = load_topics(options.facts / TOPICS_FILE)
    facts = read_facts(options.facts, options.split)
    facts = facts.take(
        list(range(0, facts.num_rows, max(1, facts.num_rows // options.limit)))[: options.limit]
    )
    engine = VllmEngine(options.model, EngineSpec(), EngineRuntime(max_num_seqs=options.max_num_seqs))
    stopping = MasterySpec(block_facts=options.block_facts)
    running = stopping.model_copy(update={"early_stop": False})
    peer = RunsOn(engine)
    # Warm up with all prompts: later sides would find more of them in the engine's cache than the first one.
    scored(facts, topics, engine, stopping.model_copy(update={"samples": 1}))
    sides = {
        STOP: scored(facts, topics, engine, stopping),
        END: scored(facts, topics, engine, running),
        LIMIT: scored(facts, topics, peer, stopping),
    }
    if wrong := missed(sides, stopping, peer.named_after_end):
        raise SystemExit("; ".join(wrong))


if __name__ == "__main__":
    main()
