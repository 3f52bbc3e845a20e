"""Tokens a second of scoring against bare vLLM, and of training against plain DeepSpeed and torch, on the same work.

    python -m benchmarks.gpu.throughput scoring  --model MODEL_FOLDER --facts FACTS_FOLDER [--limit 640]
    python -m benchmarks.gpu.throughput training --model MODEL_FOLDER --facts FACTS_FOLDER [--limit 1024] [--gpus 1]
    python -m benchmarks.gpu.throughput torch    --model MODEL_FOLDER --facts FACTS_FOLDER [--limit 1024]

Scoring: one engine of the GPU profile under Ray Data, from the commit of the first block, which holds the
engine's start, to the driver's word of the last; the peer is one call of `vllm.LLM.generate` with all other
prompts, warmed up with those of the first block. Training: one run under Ray Train, by the driver's clock from
the first step that it hears of to the last; the peer is transformers' own loss under `deepspeed.initialize` with
the same configuration and batches, its first step left out. With `torch` the peer of the same run is a loop of
plain torch on one device: float32 weights, bfloat16 arithmetic, fused AdamW. Each side runs in separate processes
and reports its tokens. Exit code 1 below the share of the peer's rate that is wanted, or where the tokens of both
sides differ by more than a hundredth.

`--gpus 0` takes the CPU, to try the program; `sftlab pocket --output DIR` makes a model and facts for it. Runs of
seconds say little of the ratio. A model with random weights needs `--samples 1` there, for it writes to the limit.

    python -m benchmarks.gpu.throughput scoring --gpus 0 --max-model-len 128 --limit 128 --repeats 1 ...
    python -m benchmarks.gpu.throughput training --gpus 0 --limit 512 --repeats 1 ...
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sftlab.facts.mastery import row_seed
from sftlab.facts.prompts import all_prompt_ids
from sftlab.facts.table import TOPICS_FILE, read_facts
from sftlab.facts.templates import load_topics
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.inference.vllm_engine import engine_arguments, environment
from sftlab.measurements.fact_blocks import FactBlocks
from sftlab.measurements.scoring import ScoringRequest, score
from sftlab.measurements.spec import MasterySpec
from sftlab.studies.knowledge.stages.training_sets import with_texts
from sftlab.training.records import SFTRun, TrainingEvent
from sftlab.training.spec import SFTSpec, TrainingRuntime

WANTED = 0.95
SAME = 0.01  # share by which the tokens of both sides may differ: a draw may fall otherwise in another batch
SPLIT = "train"
PROGRAM = "benchmarks.gpu.throughput"
MEASURED = "measured.json"  # what a side found, in its scratch folder: libraries print what they like


@dataclass(frozen=True)
class Measured:
    """What one side did."""

    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def some_facts(options: argparse.Namespace) -> pa.Table:
    """Facts that are evenly spaced over the split."""
    facts = read_facts(options.facts, SPLIT)
    step = max(1, facts.num_rows // options.limit)
    return facts.take(list(range(0, facts.num_rows, step))[: options.limit])


def engine_runtime(options: argparse.Namespace) -> EngineRuntime:
    return EngineRuntime(gpus_per_engine=min(options.gpus, 1), max_model_len=options.max_model_len)


def mastery_spec(options: argparse.Namespace) -> MasterySpec:
    return MasterySpec(samples=options.samples)


def start_ray(options: argparse.Namespace) -> None:
    import ray

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's spelling)
    ray.init(address="local", num_cpus=max(4, options.gpus), include_dashboard=False, log_to_driver=False)


def scoring_pipeline(options: argparse.Namespace) -> Measured:
    """`score`."""
    folder, spec = options.scratch / "scoring", mastery_spec(options)
    (folder / "facts").mkdir(parents=True)
    pq.write_table(some_facts(options), folder / "facts" / f"{SPLIT}.parquet")
    blocks = FactBlocks.of(folder / "facts", spec.block_facts, [SPLIT])
    topics = load_topics(options.facts / TOPICS_FILE)
    request = ScoringRequest(blocks, topics, options.model, spec, EngineSpec(), folder)
    stamps: list[float] = []
    start_ray(options)
    score(request, engine_runtime(options), lambda _: stamps.append(time.time()))
    files = [request.path(index) for index in range(len(blocks))]
    first = files.index(min(files, key=lambda file: file.stat().st_mtime))
    assert first == 0, "the peer is warmed up with the first block"
    tables = [pq.read_table(file) for file in files]
    assert not any(any(table["error"].to_pylist()) for table in tables), "a fact was refused"
    tokens = sum(sum(table["tokens"].to_pylist()) for table in tables[1:])
    return Measured(tokens, stamps[-1] - files[0].stat().st_mtime)


def scoring_peer(options: argparse.Namespace) -> Measured:
    """`vllm.LLM.generate`."""
    os.environ.update(environment(engine_runtime(options)))
    from vllm import LLM, SamplingParams

    llm = LLM(**engine_arguments(options.model, EngineSpec(), engine_runtime(options)))
    tokenizer, topics, spec = (
        llm.get_tokenizer(),
        load_topics(options.facts / TOPICS_FILE),
        mastery_spec(options),
    )
    prompts: list[Any] = []
    params: list[SamplingParams] = []
    warm = 0
    for number, fact in enumerate(some_facts(options).to_pylist()):
        if number == spec.block_facts:
            warm = len(prompts)
        texts = topics[fact["topic"]].fill(fact["subject"])
        for index, ids in enumerate(all_prompt_ids(tokenizer, texts)):
            prompts.append({"prompt_token_ids": ids})
            params.append(
                SamplingParams(
                    n=spec.samples,
                    temperature=spec.temperature,
                    top_p=spec.top_p,
                    max_tokens=spec.max_tokens,
                    seed=row_seed(spec.seed, fact["fact_id"], index),
                    stop=fact["accepted"],
                    include_stop_str_in_output=True,
                )
            )
    llm.generate(prompts[:warm], params[:warm], use_tqdm=False)
    started = time.perf_counter()
    outputs = llm.generate(prompts[warm:], params[warm:], use_tqdm=False)
    seconds = time.perf_counter() - started
    return Measured(sum(len(one.token_ids) for output in outputs for one in output.outputs), seconds)


def training_spec(options: argparse.Namespace) -> tuple[SFTSpec, TrainingRuntime]:
    runtime = TrainingRuntime(
        workers=max(options.gpus, 1),
        gpus_per_worker=min(options.gpus, 1),
        zero_stage=options.zero_stage,
        threads=options.threads,
        checkpoint_every_steps=None,
        checkpoint_every_seconds=None,
    )
    return SFTSpec(batch_size=options.batch_size), runtime


def training_run(options: argparse.Namespace) -> SFTRun:
    file = options.scratch / "facts.parquet"
    if not file.exists():
        pq.write_table(with_texts(some_facts(options)), file)
    spec, _ = training_spec(options)
    return SFTRun("throughput", options.model, str(file), str(options.scratch / "tuned"), spec)


def tokens_after(options: argparse.Namespace) -> list[int]:
    """Tokens of prompts and answers that a run has taken after each step; 0 after none."""
    from sftlab.training.batches import step_batches
    from sftlab.training.data import read_examples

    ((examples, _),) = read_examples([training_run(options)])
    batches = step_batches(len(examples), training_spec(options)[0])
    return [0, *accumulate(sum(len(examples[i].ids) for i in batch) for batch in batches)]


def training_pipeline(options: argparse.Namespace) -> Measured:
    """`train_runs`."""
    from sftlab.training.sft import train_runs

    stamps: list[tuple[float, int]] = []

    def on_event(event: TrainingEvent) -> None:
        if event.kind == "step":
            stamps.append((time.perf_counter(), event.step))

    tokens = tokens_after(options)
    start_ray(options)
    _, runtime = training_spec(options)
    train_runs([training_run(options)], runtime, on_event, storage_dir=str(options.scratch / "ray-train"))
    (begun, first), (ended, last) = stamps[0], stamps[-1]
    assert last == len(tokens) - 1, "the last step was not reported"
    return Measured(tokens[last] - tokens[first], ended - begun)


def training_peer(options: argparse.Namespace) -> Measured:
    """Plain DeepSpeed: starts its ranks and waits for them; each is this program again."""
    ranks = max(options.gpus, 1)
    if "RANK" in os.environ:
        return plain_deepspeed(options, int(os.environ["RANK"]), ranks)
    training_run(options)  # its file, before several ranks would write it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", PROGRAM, *sys.argv[1:]],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(ranks)
    ]
    codes = [process.wait() for process in processes]
    assert not any(codes), f"a rank of plain DeepSpeed failed: {codes}"
    return read_measured(options.scratch)


def plain_deepspeed(options: argparse.Namespace, rank: int, ranks: int) -> Measured:
    """One rank of the peer."""
    spec, runtime = training_spec(options)
    from sftlab.training.deepspeed import deepspeed_config, disable_shared_memory_op, prepare_process

    prepare_process(runtime)
    import deepspeed
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    from sftlab.training.batches import collate, micro_batches, step_batches
    from sftlab.training.data import read_examples

    on_gpu = runtime.gpus_per_worker > 0
    device = torch.device(f"cuda:{rank}" if on_gpu else "cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        disable_shared_memory_op()
        torch.set_num_threads(runtime.threads)
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", verbose=False)
    config = deepspeed_config(spec, runtime)
    held = (
        HfDeepSpeedConfig(config) if runtime.zero_stage == 3 else None
    )  # as long as it lives, loading is in parts
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16, local_files_only=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    ((examples, pad_id),) = read_examples([training_run(options)])
    micro, tokens, started = int(config["train_micro_batch_size_per_gpu"]), 0, 0.0
    for step, batch in enumerate(step_batches(len(examples), spec)):
        for part in micro_batches(batch, rank, ranks, micro):
            tensors = {name: t.to(device) for name, t in collate([examples[i] for i in part], pad_id).items()}
            engine.backward(engine(**tensors).loss)
            engine.step()
        if step == 0:  # memory and kernels are found by the first one
            if on_gpu:
                torch.cuda.synchronize()
            started = time.perf_counter()
        else:
            tokens += sum(len(examples[i].ids) for i in batch)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    del held
    return Measured(tokens, seconds)


def plain_torch(options: argparse.Namespace) -> Measured:
    """A loop of plain torch over the batches of the run."""
    import torch
    from transformers import AutoModelForCausalLM

    from sftlab.training.batches import collate, step_batches
    from sftlab.training.data import read_examples

    spec, _ = training_spec(options)
    device = "cuda" if options.gpus else "cpu"
    torch.set_num_threads(options.threads)
    model: Any = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.float32, local_files_only=True
    )
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, fused=True)
    ((examples, pad_id),) = read_examples([training_run(options)])
    tokens, started = 0, 0.0
    for step, batch in enumerate(step_batches(len(examples), spec)):
        tensors = {name: t.to(device) for name, t in collate([examples[i] for i in batch], pad_id).items()}
        with torch.autocast(device, torch.bfloat16):
            loss = model(**tensors).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if options.gpus and step == 0:
            torch.cuda.synchronize()
        if step == 0:
            started = time.perf_counter()
        else:
            tokens += sum(len(examples[i].ids) for i in batch)
    if options.gpus:
        torch.cuda.synchronize()
    return Measured(tokens, time.perf_counter() - started)


SIDES = {
    "scoring": (scoring_pipeline, scoring_peer, "bare vLLM"),
    "training": (training_pipeline, training_peer, "plain DeepSpeed"),
    "torch": (training_pipeline, plain_torch, "plain torch"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=SIDES)
    parser.add_argument("--model", required=True)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=640, help="facts, evenly spaced over the train split")
    parser.add_argument("--gpus", type=int, default=1, help="for training; scoring takes one")
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--zero-stage", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of a training rank")
    parser.add_argument("--samples", type=int, default=MasterySpec().samples, help="completions of a prompt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, choices=(0, 1), help="one side (used by the benchmark)")
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    ours, peer, name = SIDES[options.what]
    if options.limit < (least := 2 * MasterySpec().block_facts):
        parser.error(f"--limit {options.limit}: at least {least} facts, for the first block is left out")
    if options.what == "torch" and options.gpus > 1:
        parser.error("torch compares on one GPU")
    if options.side is not None:
        found = (ours, peer)[options.side](options)
        if os.environ.get("RANK", "0") == "0":
            (options.scratch / MEASURED).write_text(json.dumps(asdict(found)))
        return
    sides: tuple[list[Measured], list[Measured]] = ([], [])
    for _ in range(options.repeats):
        for side in (1, 0):
            with tempfile.TemporaryDirectory() as scratch:
                words = [*sys.argv[1:], "--side", str(side), "--scratch", scratch]
                command = [sys.executable, "-m", PROGRAM, *words]
                subprocess.run(command, check=True)
                sides[side].append(read_measured(Path(scratch)))
        shown = [
            f"{who} {one.rate:,.0f} tokens/s ({one.tokens:,} in {one.seconds:.1f} s)"
            for who, one in (("sftlab", sides[0][-1]), (name, sides[1][-1]))
        ]
        print(", ".join(shown), flush=True)
    best = max(one.rate for one in sides[0]) / max(one.rate for one in sides[1])
    print(
        f"{options.what}: {best:.3f} of {name}, by the best of {options.repeats} runs (wanted: at least {WANTED})"
    )
    pairs = zip(*sides, strict=True)
    same = all(abs(mine.tokens - theirs.tokens) <= SAME * theirs.tokens for mine, theirs in pairs)
    if not same:
        print("the tokens of both sides differ: they did not do the same work")
    if best < WANTED or not same:
        raise SystemExit(1)


def read_measured(scratch: Path) -> Measured:
    return Measured(**json.loads((scratch / MEASURED).read_text()))


if __name__ == "__main__":
    main()
