"""Points 1 and 2: an engine's start, scoring, seeds and stop strings, against bare vLLM; then swaps of its weights.

    python -m benchmarks.gpu.engine --work DIR [--dtype bfloat16] [--swaps]
    python -m benchmarks.gpu.engine --work DIR --defaults

Scoring: `score_block` on blocks of facts, the first left out, against one call of `vllm.LLM.generate` of the same
engine with the same prompts, seeds and stop strings. Wanted: at least 0.95 of its tokens per second. Rows without
seeds or stop strings show what these cost. --defaults, in a process of its own, asks a `vllm.LLM` with vLLM's settings
for the same, and compares with the rate of the first run. --swaps goes on with `swaps` in that engine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from benchmarks.gpu.bench import Bench, Row, Use, arguments, engine_runtime, run, some_facts
from benchmarks.gpu.swaps import swap_all
from benchmarks.gpu.throughput import WANTED
from sftlab.facts.mastery import row_seed
from sftlab.facts.prompts import all_prompt_ids
from sftlab.facts.table import TOPICS_FILE
from sftlab.facts.templates import load_topics
from sftlab.inference.engine import Prompt, Sampling
from sftlab.inference.spec import EngineSpec
from sftlab.inference.vllm_engine import VllmEngine, environment
from sftlab.measurements.mastery import score_block
from sftlab.measurements.spec import MasterySpec

RATE = "engine-rate.json"  # tokens per second of `score_block`, for the comparison with vLLM's defaults
MODEL = "llama"
STOPS = ("a", "Z")
Params = list[dict[str, Any]]


def mastery_spec(bench: Bench) -> MasterySpec:
    return MasterySpec(samples=2, max_tokens=4, block_facts=2) if bench.cpu else MasterySpec()


def start(bench: Bench, folder: str, dtype: str = "auto", **changed: Any) -> VllmEngine:
    """An engine, with a row of what vLLM chose for it."""
    started = time.perf_counter()
    engine = VllmEngine(folder, EngineSpec.model_validate({"dtype": dtype}), engine_runtime(bench, **changed))
    seconds = time.perf_counter() - started
    config = engine.llm.llm_engine.vllm_config
    bench.row(
        "engine start",
        model=folder.rpartition("/")[2],
        dtype=str(config.model_config.dtype),
        seconds=round(seconds, 1),
        compilation=str(config.compilation_config.mode),
        graphs=str(config.compilation_config.cudagraph_mode),
        sequences=config.scheduler_config.max_num_seqs,
        batched_tokens=config.scheduler_config.max_num_batched_tokens,
        cache_blocks=config.cache_config.num_gpu_blocks,
    )
    return engine


def requests(bench: Bench, tokenizer: Any, facts: list[Row]) -> tuple[list[dict[str, Any]], Params]:
    """The prompts of facts and their sampling parameters, as `score_block` makes them."""
    spec, topics = mastery_spec(bench), load_topics(bench.facts / TOPICS_FILE)
    prompts, params = [], []
    for fact in facts:
        texts = topics[fact["topic"]].fill(fact["subject"])
        for index, ids in enumerate(all_prompt_ids(tokenizer, texts)):
            prompts.append({"prompt_token_ids": ids})
            params.append(
                {
                    "n": spec.samples,
                    "temperature": spec.temperature,
                    "top_p": spec.top_p,
                    "max_tokens": spec.max_tokens,
                    "seed": row_seed(spec.seed, fact["fact_id"], index),
                    "stop": fact["accepted"],
                    "include_stop_str_in_output": True,
                }
            )
    return prompts, params


def bare(bench: Bench, llm: Any, label: str, facts: list[Row], without: tuple[str, ...] = ()) -> float:
    """Tokens per second of one call of `generate`; parameters in `without` are left out."""
    from vllm import SamplingParams

    prompts, params = requests(bench, llm.get_tokenizer(), facts)
    kept = [
        SamplingParams(**{key: value for key, value in one.items() if key not in without}) for one in params
    ]
    with Use(bench) as use:
        started = time.perf_counter()
        outputs = llm.generate(prompts, kept, use_tqdm=False)
        seconds = time.perf_counter() - started
    found = [one for output in outputs for one in output.outputs]
    tokens = sum(len(one.token_ids) for one in found)
    bench.row(
        "bare vLLM",
        label=label,
        tokens_per_second=round(tokens / seconds),
        completions_per_second=round(len(found) / seconds, 1),
        tokens=tokens,
        seconds=round(seconds, 2),
        stopped=sum(one.finish_reason == "stop" for one in found),
        gpu_percent=use.percent,
    )
    return tokens / seconds


def scoring(bench: Bench, engine: VllmEngine, facts: Any) -> float:
    """Tokens per second of `score_block` over all blocks but the first, with a row for each block."""
    spec, topics = mastery_spec(bench), load_topics(bench.facts / TOPICS_FILE)
    spent: list[tuple[int, float]] = []
    for start_row in range(0, facts.num_rows, spec.block_facts):
        with Use(bench) as use:
            started = time.perf_counter()
            table = score_block(facts.slice(start_row, spec.block_facts), topics, engine, spec)
            seconds = time.perf_counter() - started
        tokens = sum(table["tokens"].to_pylist())
        completions = spec.samples * sum(len(hits) for hits in table["hits"].to_pylist())
        spent.append((tokens, seconds))
        bench.row(
            "scored block",
            tokens_per_second=round(tokens / seconds),
            completions_per_second=round(completions / seconds, 1),
            tokens=tokens,
            hits=sum(map(sum, table["hits"].to_pylist())),
            gpu_percent=use.percent,
        )
    return sum(tokens for tokens, _ in spent[1:]) / sum(seconds for _, seconds in spent[1:])


def compare(bench: Bench, engine: VllmEngine, count: int) -> None:
    """Scoring against bare vLLM in this process, and what seeds and stop strings cost."""
    facts = some_facts(bench, count)
    ours = scoring(bench, engine, facts)
    (bench.work / RATE).write_text(json.dumps(ours))
    engine.llm.reset_prefix_cache()
    left = facts.slice(mastery_spec(bench).block_facts).to_pylist()
    theirs = bare(bench, engine.llm, "same engine, prompts, seeds and stop strings", left)
    bench.row("scoring of bare vLLM", ratio=round(ours / theirs, 3), wanted=WANTED)
    some = left[: max(2, len(left) // 4)]
    engine.llm.reset_prefix_cache()
    bare(bench, engine.llm, "a quarter, nothing cached", some)
    bare(bench, engine.llm, "a quarter, prefixes cached", some)
    bare(bench, engine.llm, "a quarter, without seeds", some, ("seed",))
    bare(bench, engine.llm, "a quarter, without stop strings", some, ("stop", "include_stop_str_in_output"))


def check_draws(bench: Bench, engine: VllmEngine) -> None:
    """Draws repeat, continue those of a lower number, and have the same verdicts with stop strings."""
    base = [
        Prompt(tuple(engine.tokenizer(f"Person {number} was born in")["input_ids"]), (), 1000 * number)
        for number in range(24)
    ]
    shifted = [Prompt(one.token_ids, (), one.seed + 2) for one in base]
    stopping = [Prompt(one.token_ids, STOPS, one.seed) for one in base]

    def drawn(prompts: list[Prompt], samples: int) -> list[list[str]]:
        engine.llm.reset_prefix_cache()
        return [[one.text for one in row] for row in engine.sample(prompts, Sampling(samples, 0.7, 1.0, 32))]

    def verdicts(rows: list[list[str]]) -> list[bool]:
        return [any(name in text for name in STOPS) for row in rows for text in row]

    first, again = drawn(base, 6), drawn(base, 6)
    alone = [drawn([one], 6)[0] for one in base[:4]]
    stopped, whole = verdicts(drawn(stopping, 6)), verdicts(first)
    bench.row(
        "draws",
        repeat=first == again,
        continue_others=[row[2:] for row in first] == drawn(shifted, 4),
        alone_as_in_a_batch=[sum(a == b for a, b in zip(alone, first, strict=False)), len(alone)],
        other_verdicts_with_stops=[sum(a != b for a, b in zip(stopped, whole, strict=True)), len(whole)],
        hits=sum(whole),
    )


def with_defaults(bench: Bench, count: int) -> None:
    """A `vllm.LLM` with vLLM's settings, on the same prompts."""
    os.environ.update(environment(engine_runtime(bench)))
    from vllm import LLM

    llm = LLM(
        model=bench.model(f"{MODEL}-base"),
        max_model_len=engine_runtime(bench).max_model_len,
        generation_config="vllm",
        disable_log_stats=True,
    )
    facts, size = some_facts(bench, count).to_pylist(), mastery_spec(bench).block_facts
    bare(bench, llm, "vLLM's defaults, first block", facts[:size])
    theirs = bare(bench, llm, "vLLM's defaults", facts[size:])
    ours = json.loads((bench.work / RATE).read_text())
    bench.row("scoring of vLLM's defaults", ratio=round(ours / theirs, 3), wanted=WANTED)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    count = options.limit or (6 if bench.cpu else 96)
    if options.defaults:
        with_defaults(bench, count)
        return
    room = {} if bench.cpu else {"kv_cache_gib": 8, "gpu_memory_utilization": 0.3}
    engine = start(bench, bench.model(f"{MODEL}-base"), options.dtype, **room)
    with bench.part("scoring"):
        compare(bench, engine, count)
    with bench.part("draws"):
        check_draws(bench, engine)
    if options.swaps:
        swap_all(bench, engine, MODEL)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--limit", type=int, help="facts; 96 on a GPU")
    parser.add_argument("--defaults", action="store_true")
    parser.add_argument("--swaps", action="store_true")
    run(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
