"""What stop strings save in mastery scoring: generated tokens against completions that run to their limit.

    python benchmarks/scoring.py --model MODEL_FOLDER --facts FACTS_FOLDER [--split test] [--limit 64]

The peer is the same engine on the same prompts and seeds without stop strings. Prints the ratio of tokens and
of time, and fails where a single verdict differs. The pocket model ends most texts itself, soon after the object;
a large base model seldom does, so the tokens are also compared with runs that all go on to the limit.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pyarrow as pa

from sftlab.facts.table import TOPICS_FILE, read_facts
from sftlab.facts.templates import load_topics
from sftlab.inference.mastery_block import score_block
from sftlab.inference.spec import EngineRuntime, EngineSpec, MasterySpec
from sftlab.inference.vllm_engine import VllmEngine

WANTED = 0.60  # generated tokens, at most


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=64, help="facts to score, evenly spaced over the split")
    parser.add_argument("--max-num-seqs", type=int, default=EngineRuntime().max_num_seqs)
    parser.add_argument("--block-facts", type=int, default=MasterySpec().block_facts)
    options = parser.parse_args()

    topics = load_topics(options.facts / TOPICS_FILE)
    facts = read_facts(options.facts, options.split)
    facts = facts.take(
        list(range(0, facts.num_rows, max(1, facts.num_rows // options.limit)))[: options.limit]
    )
    engine = VllmEngine(options.model, EngineSpec(), EngineRuntime(max_num_seqs=options.max_num_seqs))
    score_block(facts.slice(0, 2), topics, engine, MasterySpec())  # warm up

    tables: dict[bool, pa.Table] = {}
    seconds: dict[bool, float] = {}
    for early_stop in (True, False):
        spec = MasterySpec(early_stop=early_stop, block_facts=options.block_facts)
        start = time.perf_counter()
        blocks = [facts.slice(at, spec.block_facts) for at in range(0, facts.num_rows, spec.block_facts)]
        tables[early_stop] = pa.concat_tables(score_block(block, topics, engine, spec) for block in blocks)
        seconds[early_stop] = time.perf_counter() - start

    tokens = {stop: sum(table["tokens"].to_pylist()) for stop, table in tables.items()}
    completions = (
        sum(sum(map(len, table["hits"].to_pylist())) for table in tables.values()) // 2 * spec.samples
    )
    for stop, name in ((True, "stop strings"), (False, "to the limit")):
        print(
            f"{name}: {tokens[stop]:,} tokens, {seconds[stop]:.1f} s, "
            f"{completions / seconds[stop]:,.0f} completions/s, {tokens[stop] / completions:.1f} tokens each"
        )
    ratio = tokens[True] / tokens[False]
    print(f"mean R {sum(tables[True]['r'].to_pylist()) / facts.num_rows:.3f} over {facts.num_rows} facts")
    full = tokens[True] / (completions * spec.max_tokens)
    print(f"tokens, stop strings / runs to {spec.max_tokens} tokens: {full:.3f} (wanted: at most {WANTED})")
    print(f"tokens, stop strings / runs that end where the model ends its text: {ratio:.3f}")
    print(f"time,   stop strings / to the limit: {seconds[True] / seconds[False]:.3f}")
    same = tables[True]["hits"].to_pylist() == tables[False]["hits"].to_pylist()
    print(f"verdicts of all {completions:,} completions identical: {same}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
