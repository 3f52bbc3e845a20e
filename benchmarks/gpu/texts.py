"""Point 5: log-likelihoods against bare vLLM and transformers, and hidden states against transformers.

    python -m benchmarks.gpu.texts --work DIR

The model is `wide` of `inputs`, with a vocabulary of 128,256. The texts are drawn token ids: 1,024 of 96 tokens, of
which 32 are scored, and 16 of 2,047 tokens, for which a row has the extra memory. A second call
shows whether results repeat.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import numpy as np

from benchmarks.gpu.bench import Bench, Use, arguments, engine_runtime, run
from sftlab.inference.hidden import batches, last_states
from sftlab.inference.spec import EngineSpec
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.weights.restoration import ModelSource

MODEL = "wide-base"
BATCH = 32
LONGEST = 2047
Pair = tuple[list[int], list[int]]


def pairs(count: int, context: int, continuation: int, seed: int) -> list[Pair]:
    draw = random.Random(seed)

    def ids(length: int) -> list[int]:
        return [draw.randrange(5, 900) for _ in range(length)]

    return [(ids(context), ids(continuation)) for _ in range(count)]


def ours(bench: Bench, engine: VllmEngine, label: str, given: list[Pair]) -> tuple[list[Any], float]:
    """The log-probabilities, and texts per second."""
    import torch

    held = 0 if bench.cpu else torch.cuda.memory_allocated()
    bench.reset_peak()
    with Use(bench) as use:
        started = time.perf_counter()
        found = engine.log_likelihoods([context for context, _ in given], [rest for _, rest in given])
        seconds = time.perf_counter() - started
    peak = bench.peak_gb()
    bench.row(
        "likelihoods",
        label=label,
        texts=len(given),
        texts_per_second=round(len(given) / seconds, 1),
        extra_gpu_gb=None if peak is None else round(peak - held / 1e9, 2),
        gpu_percent=use.percent,
    )
    return found, len(given) / seconds


def bare_vllm(engine: VllmEngine, given: list[Pair]) -> float:
    """Texts per second of one call of `generate` that asks for the scores of prompts."""
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False, prompt_logprobs=0)
    prompts = [TokensPrompt(prompt_token_ids=context + rest) for context, rest in given]
    started = time.perf_counter()
    engine.llm.generate(prompts, params, use_tqdm=False)
    return len(given) / (time.perf_counter() - started)


def loaded(bench: Bench) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    folder = bench.model(MODEL)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    return model.to(bench.device).eval()


def by_transformers(bench: Bench, given: list[Pair]) -> tuple[list[Any], float]:
    """The same log-probabilities, for texts of one length, and texts per second."""
    import torch

    model = loaded(bench)

    def scores(some: list[Pair]) -> list[Any]:
        ids = torch.tensor([context + rest for context, rest in some], device=bench.device)
        count = len(some[0][1])
        logs = model(input_ids=ids, use_cache=False).logits[:, -count - 1 : -1].float().log_softmax(-1)
        return list(logs.gather(2, ids[:, -count:, None])[..., 0].cpu().numpy())

    with torch.inference_mode():
        scores(given[:BATCH])
        started = time.perf_counter()
        found = [row for at in range(0, len(given), BATCH) for row in scores(given[at : at + BATCH])]
        seconds = time.perf_counter() - started
    return found, len(given) / seconds


def likelihoods(bench: Bench, engine: VllmEngine, count: int) -> None:
    given = pairs(count, 64, 32, seed=1)
    ours(bench, engine, "first", given[:8])
    found, rate = ours(bench, engine, "short", given)
    theirs = bare_vllm(engine, given)
    again, _ = ours(bench, engine, "short again", given)
    expected, other = by_transformers(bench, given)
    bench.row(
        "likelihoods compared",
        of_bare_vllm=round(rate / theirs, 3),
        of_transformers=round(rate / other, 3),
        repeat=all(np.array_equal(a, b) for a, b in zip(found, again, strict=True)),
        largest_difference_nats=float(max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True))),
    )


def hidden_states(bench: Bench, count: int) -> None:
    """Seconds with loading and without, and the largest difference from transformers' `output_hidden_states`."""
    import torch

    prompts = [context for context, _ in pairs(count, 96, 1, seed=3)]
    source, dtype = ModelSource(bench.model(MODEL)), "bfloat16"
    last_states(source, prompts[:1], dtype, bench.device)
    started = time.perf_counter()
    found = last_states(source, prompts, dtype, bench.device)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    model = loaded(bench)
    kept: list[Any] = [None] * len(prompts)
    with torch.inference_mode():
        for rows in batches([len(prompt) for prompt in prompts]):
            ids = torch.tensor([prompts[row] for row in rows], device=bench.device)
            states = model.base_model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
            for row, state in zip(
                rows, torch.stack([one[:, -1] for one in states[1:]], 1).cpu(), strict=True
            ):
                kept[row] = state
    plain = time.perf_counter() - started
    again = last_states(source, prompts, dtype, bench.device)
    expected = torch.stack(kept, 1)
    # transformers gives the last state after the final norm, sftlab before it.
    differences = [
        float((a.float() - b.float()).abs().max()) for a, b in zip(found[:-1], expected, strict=False)
    ]
    bench.row(
        "hidden states",
        texts=len(prompts),
        seconds_with_loading=round(seconds, 2),
        of_transformers=round(plain / seconds, 2),
        repeat=all(torch.equal(a, b) for a, b in zip(found, again, strict=True)),
        largest_difference=max(differences),
    )


def measure(bench: Bench, _: argparse.Namespace) -> None:
    count, long = (12, 2) if bench.cpu else (1024, 16)
    room: dict[str, Any] = {"max_model_len": LONGEST + 1}
    if not bench.cpu:
        room |= {"kv_cache_gib": 4, "gpu_memory_utilization": 0.3}
    engine = VllmEngine(bench.model(MODEL), EngineSpec(), engine_runtime(bench, **room))
    with bench.part("likelihoods"):
        likelihoods(bench, engine, count)
    with bench.part("long texts"):
        ours(bench, engine, f"{LONGEST} tokens", pairs(long, LONGEST - 100, 100, seed=2))
    with bench.part("hidden states"):
        hidden_states(bench, count)


def main() -> None:
    run(arguments(__doc__).parse_args(), measure)


if __name__ == "__main__":
    main()
