"""Real DeepSpeed in two ranks, every ZeRO stage, against a plain loop in one process.

All runs share one pair of Ray actors, because starting them costs more than the runs.
"""

from __future__ import annotations

import math
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
from safetensors import safe_open

from sftlab.errors import UserError
from sftlab.training.batches import step_batches
from sftlab.training.checkpoints import call_token
from sftlab.training.records import SFTResult, SFTRun, TrainingEvent, read_result
from sftlab.training.spec import LoRASpec, SFTSpec, TrainingRuntime

pytestmark = pytest.mark.slow

SPEC = SFTSpec(batch_size=4, learning_rate=1e-3, precision="fp32", weight_decay=0.1)
BF16 = SPEC.model_copy(update={"precision": "bf16", "weight_decay": 0.0})
LORA = SPEC.model_copy(update={"lora": LoRASpec(rank=2, alpha=8), "weight_decay": 0.0})
STAGES = (0, 1, 2, 3)


def write_facts(file: Path, count: int, seed: int = 0) -> None:
    """Questions about invented names of different lengths."""
    draw = random.Random(seed)

    def name() -> str:
        return "".join(draw.choice("abdefgiklmnoprstu") for _ in range(draw.randint(3, 9))).title()

    prompts = [f"<|question|> Who wrote {name()}? <|answer|>" for _ in range(count)]
    pq.write_table(pa.table({"prompt": prompts, "target": [f" {name()} " for _ in range(count)]}), file)


def write_tokenizer(folder: Path) -> int:
    """A tokenizer of single bytes, with two special tokens; returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return len(vocabulary)


def write_llama(folder: Path, tied: bool, dtype: torch.dtype, shard: str = "1GB") -> None:
    """A Llama of two layers and width 48; `shard` bytes a file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=write_tokenizer(folder),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size=shard)


def write_gpt2(folder: Path) -> None:
    """A GPT-2 with dropout, stored as the hub stores it: the bare backbone, without its prefix."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=write_tokenizer(folder),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=1,
    )
    GPT2LMHeadModel(config).transformer.save_pretrained(folder)


def tensors(folder: Path | str) -> dict[str, torch.Tensor]:
    """All stored tensors of a model folder."""
    found = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            found.update({name: handle.get_tensor(name) for name in handle.keys()})  # noqa: SIM118
    return found


def digests(folder: Path | str) -> dict[str, str]:
    """SHA-256 of every weight file of a folder."""
    return {f.name: sha256(f.read_bytes()).hexdigest() for f in Path(folder).glob("*.safetensors")}


@dataclass(frozen=True)
class Job:
    """Runs for the two ranks, and the number of steps after which the driver asks them to stop."""

    runs: list[SFTRun]
    runtime: TrainingRuntime
    stop_after: int | None = None


class Member:
    """One of the ranks: the loop of training.loop without Ray Train around it."""

    def __init__(self, rank: int, workers: int, port: int) -> None:
        self.rank, self.workers = rank, workers
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank))
        os.environ.update(WORLD_SIZE=str(workers), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(workers))

    def start(self) -> bool:
        """Join the process group; tells whether DeepSpeed's shared-memory op stayed out."""
        from sftlab.training.deepspeed import prepare_process, start_deepspeed

        prepare_process(TrainingRuntime())
        torch.distributed.init_process_group("gloo", rank=self.rank, world_size=self.workers)
        start_deepspeed(TrainingRuntime())
        import deepspeed

        return deepspeed.comm.comm.cdb.shm_comm_op is None

    def train(self, job: Job, storage_dir: str) -> list[str]:
        """Train a job; returns the kinds of its events, or the error as its last entry."""
        from sftlab.training.loop import Rank, Stopped, train_all

        kinds: list[str] = []

        def emit(event: TrainingEvent | None) -> bool:
            kinds.extend([] if event is None else [event.kind])
            return event is not None and event.step == job.stop_after

        token = call_token()
        me = Rank(self.rank, self.workers, torch.device("cpu"), job.runtime, storage_dir, token, emit)
        try:
            train_all(job.runs, me)
        except (Stopped, UserError) as error:
            kinds.append(f"{type(error).__name__}: {error}")
        return kinds


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Base models, facts and two ranks in one process group."""
    root = tmp_path_factory.mktemp("training")
    write_llama(root / "llama", tied=False, dtype=torch.float32, shard="100KB")
    write_llama(root / "tied", tied=True, dtype=torch.bfloat16)
    write_gpt2(root / "gpt2")
    write_facts(root / "facts.parquet", 13)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        runtime_env={"env_vars": environment},
        log_to_driver=False,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [ray.remote(Member).options(num_cpus=0.5).remote(rank, 2, port) for rank in range(2)]
    assert ray.get([rank.start.remote() for rank in ranks]) == [True, True]
    yield Bench(root, ranks)
    ray.shutdown()


@dataclass
class Bench:
    """Makes runs and trains them, each once."""

    root: Path
    ranks: list[Any]

    def run(self, name: str, base: str, spec: SFTSpec) -> SFTRun:
        """A run on the shared facts."""
        facts = str(self.root / "facts.parquet")
        return SFTRun(name, str(self.root / base), facts, str(self.root / "out" / name), spec)

    def train(self, runs: list[SFTRun], stop_after: int | None = None, **runtime: Any) -> list[list[str]]:
        """Train in both ranks; the events of rank 0, then those of rank 1."""
        job = Job(runs, TrainingRuntime(workers=2, **runtime), stop_after)
        return ray.get([rank.train.remote(job, str(self.root / "scratch")) for rank in self.ranks])

    def result(self, name: str, base: str, spec: SFTSpec, **runtime: Any) -> tuple[SFTRun, SFTResult]:
        """The committed result of a run, trained if it is not there yet."""
        run = self.run(name, base, spec)
        events = self.train([run], **runtime) if read_result(run) is None else []
        result = read_result(run)
        assert result is not None, events
        return run, result


def plain_loop(run: SFTRun) -> tuple[list[float], list[float], torch.nn.Module]:
    """Losses and float32 model of the same run in one process, one example at a time, without DeepSpeed."""
    from transformers import AutoTokenizer

    from sftlab.training.hf_model import add_lora, load_model

    spec = run.spec
    tokenizer = AutoTokenizer.from_pretrained(run.base_model)
    facts = pq.read_table(run.train_file).to_pylist()
    model = load_model(Path(run.base_model), spec.model_copy(update={"precision": "fp32"}), None)
    if spec.lora:
        model = add_lora(model, spec.lora)
    work = load_model(Path(run.base_model), spec, None) if spec.precision == "bf16" else model
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=spec.betas, eps=spec.eps)
    batches, losses, norms = step_batches(len(facts), spec), [], []
    for step, batch in enumerate(batches):
        total, count = torch.zeros(()), 0
        for i in batch:
            question = tokenizer(facts[i]["prompt"])["input_ids"]
            answer = [*tokenizer(facts[i]["target"])["input_ids"], 1]
            logits = work(torch.tensor([[0, *question, *answer]])).logits[0].float()
            log_p = logits.log_softmax(-1)[len(question) : -1]
            total = total - log_p[torch.arange(len(answer)), torch.tensor(answer)].sum()
            count += len(answer)
        (total / count).backward()
        losses.append(total.item() / count)
        for mine, theirs in zip(model.parameters(), work.parameters(), strict=True):
            mine.grad = None if theirs.grad is None else theirs.grad.float()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), spec.max_grad_norm or math.inf)
        norms.append(norm.item())
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * 0.5 * (1 + math.cos(math.pi * step / len(batches)))
        optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(model.parameters(), work.parameters(), strict=True):
                mine.grad = theirs.grad = None
                theirs.copy_(mine)
    return losses, norms, model


@pytest.fixture(scope="module")
def plain() -> dict[str, tuple[list[float], list[float], torch.nn.Module]]:
    """Results of plain_loop, each computed once."""
    return {}


def distance(out: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference between any two weights of the same name."""
    return max((out[name].float() - wanted[name].float()).abs().max().item() for name in out)


@pytest.mark.parametrize("stage", STAGES)
def test_float32_equals_a_plain_loop_in_every_zero_stage(bench: Bench, plain: dict, stage: int) -> None:
    run, result = bench.result(f"fp32-{stage}", "llama", SPEC, zero_stage=stage, micro_batch_size=1)
    losses, norms, model = plain.setdefault("fp32", plain_loop(run))
    assert len(losses) == 4  # 13 examples, batch 4: the last batch has one, and one rank has none of it
    assert result.losses == pytest.approx(losses, abs=1e-5)
    assert result.gradient_norms == pytest.approx(norms, rel=1e-3)
    assert distance(tensors(run.output_dir), model.state_dict()) < 2e-6
    assert distance(tensors(run.base_model), model.state_dict()) > 1e-3
    assert result.learning_rates[2] == pytest.approx(0.5 * 1e-3)


@pytest.mark.parametrize(
    "runtime",
    [
        {"zero_stage": 3, "gradient_checkpointing": True},
        {"zero_stage": 0, "gradient_checkpointing": True, "micro_batch_size": 2},
        {"zero_stage": 2, "offload": "optimizer"},
        {"zero_stage": 3, "offload": "parameters"},
    ],
    ids=["checkpointing-3", "checkpointing-0", "offload-optimizer", "offload-parameters"],
)
def test_sparing_memory_changes_nothing(bench: Bench, plain: dict, runtime: dict[str, Any]) -> None:
    name = "-".join(str(value) for value in runtime.values())
    run, result = bench.result(f"spare-{name}", "llama", SPEC, **runtime)
    losses, _, model = plain.setdefault("fp32", plain_loop(run))
    assert result.losses == pytest.approx(losses, abs=1e-5)
    assert distance(tensors(run.output_dir), model.state_dict()) < 2e-6


@pytest.mark.parametrize("base", ["tied", "llama"])
@pytest.mark.parametrize("stage", STAGES)
def test_bf16_follows_a_plain_bf16_loop(bench: Bench, plain: dict, stage: int, base: str) -> None:
    run, result = bench.result(f"bf16-{base}-{stage}", base, BF16, zero_stage=stage)
    losses, _, model = plain.setdefault(base, plain_loop(run))
    assert result.losses == pytest.approx(losses, abs=5e-3)
    out, start, wanted = tensors(run.output_dir), tensors(run.base_model), model.state_dict()
    error = sum((out[name].float() - wanted[name]).square().sum() for name in out)
    moved = sum((wanted[name] - start[name].float()).square().sum() for name in out)
    assert math.sqrt(error / moved) < 0.2


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_leaves_weights_without_a_gradient_as_the_float32_base_has_them(
    bench: Bench, stage: int
) -> None:
    run, _ = bench.result(f"bf16-llama-{stage}", "llama", BF16, zero_stage=stage)
    name = "model.embed_tokens.weight"
    out, start = tensors(run.output_dir)[name], tensors(run.base_model)[name]
    kept = (out == start).all(dim=1)
    assert 0 < (~kept).sum() < 60  # letters that the facts use
    assert kept.sum() > 190
    assert not torch.equal(start, start.bfloat16().float())


@pytest.mark.parametrize(
    ("base", "stage"), [("llama", 0), ("llama", 1), ("llama", 2), ("llama", 3), ("gpt2", 0), ("gpt2", 3)]
)
def test_lora_is_merged_as_peft_merges_it(bench: Bench, plain: dict, stage: int, base: str) -> None:
    run, result = bench.result(f"lora-{base}-{stage}", base, LORA, zero_stage=stage)
    out, start = tensors(run.output_dir), tensors(run.base_model)
    changed = {name for name in out if not torch.equal(out[name], start[name])}
    linear = ("_proj", "c_attn", "c_proj", "c_fc")
    assert changed == {n for n in out if any(part in n for part in linear) and n.endswith("weight")}
    for name in changed:
        values = torch.linalg.svdvals(out[name] - start[name])
        assert values[2] < 1e-3 * values[0], f"{name}: the update has more than rank 2"
    if base == "llama":  # GPT-2 drops out at random, so no other loop can follow it
        losses, _, model = plain.setdefault("lora", plain_loop(run))
        wanted = plain.setdefault("merged", ([], [], model.merge_and_unload()))[2].state_dict()
        assert result.losses == pytest.approx(losses, abs=1e-5)
        assert distance(out, wanted) < 2e-6


@pytest.mark.parametrize("stage", STAGES)
def test_an_export_has_the_bases_files_names_dtypes_and_ties_and_loads(bench: Bench, stage: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name, base, spec in (("fp32", "llama", SPEC), ("bf16-tied", "tied", BF16)):
        options = {"micro_batch_size": 1} if name == "fp32" else {}
        run, _ = bench.result(f"{name}-{stage}", base, spec, zero_stage=stage, **options)
        out, start = tensors(run.output_dir), tensors(run.base_model)
        assert {n: (t.dtype, t.shape) for n, t in out.items()} == {
            n: (t.dtype, t.shape) for n, t in start.items()
        }
        files = {file.name for file in Path(run.output_dir).iterdir()}
        assert files == {file.name for file in Path(run.base_model).iterdir()} | {"training.json"}
        model, info = AutoModelForCausalLM.from_pretrained(run.output_dir, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        tied = model.lm_head.weight is model.model.embed_tokens.weight
        assert tied == (base == "tied")
        assert AutoTokenizer.from_pretrained(run.output_dir)("a")["input_ids"]
    assert len(list((bench.root / "llama").glob("*.safetensors"))) > 1, "the base should be sharded"


RESUMED = {"bf16-tied": ("tied", BF16), "gpt2": ("gpt2", SPEC), "lora-llama": ("llama", LORA)}


@pytest.mark.parametrize(
    ("kind", "stage"),
    [
        *(("bf16-tied", stage) for stage in STAGES),
        ("gpt2", 0),
        ("gpt2", 3),
        ("lora-llama", 0),
        ("lora-llama", 3),
    ],
)
def test_a_stopped_run_resumes_to_the_same_bits(bench: Bench, kind: str, stage: int) -> None:
    base, spec = RESUMED[kind]
    whole, wanted = bench.result(f"{kind}-{stage}", base, spec, zero_stage=stage)
    run = bench.run(f"resumed-{kind}-{stage}", base, spec)
    events, _ = bench.train([run], stop_after=2, zero_stage=stage)
    assert events[:4] == ["step", "step", "checkpoint", f"Stopped: {run.run_id}"]
    assert read_result(run) is None
    events, _ = bench.train([run], zero_stage=stage)
    assert events == ["resumed", "step", "step", "finished"]
    result = read_result(run)
    assert result is not None
    assert result.losses == wanted.losses
    assert digests(run.output_dir) == digests(whole.output_dir)
    assert not list((bench.root / "scratch" / "checkpoints").glob(f"{run.run_id}*"))


def test_an_example_that_is_too_long_stops_all_ranks_before_any_run_begins(bench: Bench) -> None:
    good = bench.run("before-long", "llama", SPEC)
    short = SPEC.model_copy(update={"max_length": 40})
    long = bench.run("long", "llama", short)
    for events in bench.train([good, long]):
        (message,) = events
        assert all(part in message for part in ("UserError: ", "facts.parquet: row", "max_length = 40"))
    assert read_result(good) is None
