"""Writes the pocket world's facts folder, and pre-trains its small model on the CPU.

The same spec, facts and number of threads give the same bits, also after a kill and a resume.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from math import cos, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.errors import UserError
from sftlab.facts.prepare import write_folder
from sftlab.facts.table import TOPICS_FILE
from sftlab.facts.templates import load_topics
from sftlab.files import make_folder, readable_write_errors
from sftlab.pocket.corpus import corpus
from sftlab.pocket.spec import FamilySpec, PocketRuntime, PocketSpec, Shape
from sftlab.pocket.world import exposure_table, facts_of, split_tables, world_facts, world_topics
from sftlab.store.mirror import drop, pull, push
from sftlab.store.tables import filled, read_table

if TYPE_CHECKING:
    import pyarrow as pa
    import torch


EXPOSURE = "exposure"
EXPOSURE_FILE = f"{EXPOSURE}.parquet"
CHECKPOINT_FILE = "pretraining.safetensors"
PARTS = ("weight", "first", "second")  # of a parameter in a checkpoint: itself, and AdamW's moments
BOS, EOS = "<s>", "</s>"
SHORTEST_CONTEXT = 256

Pretraining = PocketSpec | FamilySpec
Progress = Callable[[int, int, float], None]
log = logging.getLogger(__name__)


def build_facts(spec: PocketSpec, out_dir: Path, tables: Mapping[str, pa.Table] | None = None) -> None:
    """Write the facts folder: SPLIT.parquet, topics.json, and exposure.parquet (what the text will show).

    `tables` maps each split to the facts table read from `spec.source`, and is None for invented facts.
    Raises UserError where topics are unknown or have too few facts, and where the disk refuses a file; none
    is left then.
    """
    facts = world_facts(spec, tables)
    written = split_tables(facts) | {EXPOSURE: exposure_table(facts, spec.false_facts is not None)}
    write_folder(written, world_topics(spec), out_dir, "snappy")


def pretrain(
    spec: PocketSpec,
    facts_dir: Path,
    out_dir: Path,
    runtime: PocketRuntime,
    progress: Progress | None = None,
) -> None:
    """Train tokenizer and model on the text of `facts_dir`; write a plain Hugging Face folder to `out_dir`.

    `progress` is called with (steps done, steps in all, loss in nats per token). A checkpoint is in
    `out_dir` while training runs; a killed run goes on from it. Raises UserError without exposure.parquet,
    and naming the file where the disk refuses one.
    """
    pretrain_on(_documents(spec, facts_dir), spec, out_dir, runtime, progress)


def pretrain_on(
    documents: Sequence[str],
    spec: Pretraining,
    out_dir: Path,
    runtime: PocketRuntime,
    progress: Progress | None = None,
    start: Path | None = None,
) -> None:
    """`pretrain` on any documents, from random weights or from those of the folder `start`, with its tokenizer."""
    import torch

    tokenizer = train_tokenizer(documents, spec.shape.vocabulary) if start is None else _load_tokenizer(start)
    sequences = pack(_token_ids(tokenizer, documents), spec.shape.sequence, spec.optimisation.sequences)
    make_folder(out_dir)
    threads = torch.get_num_threads()
    torch.set_num_threads(runtime.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            model = new_model(spec.shape, tokenizer) if start is None else _load_model(start)
            _train(model, sequences, spec, out_dir / CHECKPOINT_FILE, runtime.checkpoint_every, progress)
    finally:
        torch.set_num_threads(threads)
    with readable_write_errors(out_dir):
        tokenizer.save_pretrained(out_dir)
        _save_model(model, out_dir)
    drop(out_dir / CHECKPOINT_FILE)


def _load_tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for name in ("is_local", "local_files_only"):  # how it was loaded, which would be saved as its settings
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def _load_model(folder: Path) -> Any:
    """The float32 model of a folder that was pre-trained here."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype="float32")


def _save_model(model: Any, out_dir: Path) -> None:
    """As `save_pretrained` writes a small model, which would import DeepSpeed and draw a bar of its own."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = model.dtype
    model.config.save_pretrained(out_dir)
    model.generation_config.save_pretrained(out_dir)
    save_tensors(model.state_dict(), out_dir / "model.safetensors", {"format": "pt"})


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all. Raises UserError naming it where the disk refuses it."""
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.part")
    try:
        with readable_write_errors(path):
            save_file(dict(tensors), partial, metadata=dict(metadata))
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def train_tokenizer(documents: Sequence[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of at most `vocabulary` entries that adds no special token by itself.

    A blank is put before every text, so that a name has the same tokens at the start as within a sentence.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, eos_token=EOS)


def new_model(shape: Shape, tokenizer: Any) -> Any:
    """An untied float32 LlamaForCausalLM with random weights from torch's current seed."""
    return _model(
        shape, len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )


def model_without_weights(shape: Shape) -> Any:
    """The model of a shape on torch's meta device, which shows its modules before anything is trained."""
    import torch

    with torch.device("meta"):
        return _model(shape, shape.vocabulary)


def _model(shape: Shape, vocabulary: int, **tokens: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=max(SHORTEST_CONTEXT, shape.sequence),
        tie_word_embeddings=False,
        **tokens,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # its base class takes it
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def pack(documents: Sequence[Sequence[int]], length: int, per_step: int) -> torch.Tensor:
    """The documents end to end as (steps * per_step, length) int64; the start again fills the last step."""
    import torch

    stream = torch.tensor([token for document in documents for token in document])
    tokens_per_step = length * per_step
    steps = -(-len(stream) // tokens_per_step)
    missing = steps * tokens_per_step - len(stream)
    repeated = stream.repeat(-(-missing // len(stream)))[:missing]
    return torch.cat([stream, repeated]).view(steps * per_step, length)


def _documents(spec: PocketSpec, facts_dir: Path) -> list[str]:
    path = facts_dir / EXPOSURE_FILE
    if not path.is_file():
        raise UserError(
            "not found", place=path, advice="`sftlab pocket` writes it with the facts of the pocket world."
        )
    topics = load_topics(facts_dir / TOPICS_FILE)
    schema = filled(exposure_table([], spec.false_facts is not None).schema)
    return corpus(spec, facts_of(read_table(path, schema)), list(topics.values()))


def _token_ids(tokenizer: Any, documents: Sequence[str]) -> list[list[int]]:
    rows: list[list[int]] = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
    return [[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] for ids in rows]


def _train(
    model: Any,
    sequences: torch.Tensor,
    spec: Pretraining,
    checkpoint: Path,
    checkpoint_every: int,
    progress: Progress | None,
) -> None:
    from torch.nn.functional import cross_entropy

    plan = spec.optimisation
    optimizer = _optimizer(model, spec)
    batches = sequences.view(-1, plan.sequences, sequences.shape[1])
    identity = sha256(spec.model_dump_json().encode() + sequences.numpy().tobytes()).hexdigest()
    done = load_checkpoint(checkpoint, model, optimizer, identity)
    model.train()
    for step in range(done, len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * rate_at(step, len(batches), plan.warmup)
        logits = model(input_ids=batches[step][:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), batches[step][:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % checkpoint_every == 0 and step + 1 < len(batches):
            save_checkpoint(checkpoint, model, optimizer, identity, step + 1)
        if progress is not None:
            progress(step + 1, len(batches), loss.item())


def _optimizer(model: Any, spec: Pretraining) -> Any:
    import torch

    plan = spec.optimisation
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, plan.beta2), fused=True)


def save_checkpoint(path: Path, model: Any, optimizer: Any, identity: str, step: int) -> None:
    """Weights and AdamW moments as one safetensors file, put in place by a rename."""
    tensors = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        tensors[f"weight {name}"] = parameter.detach()
        tensors[f"first {name}"] = state["exp_avg"]
        tensors[f"second {name}"] = state["exp_avg_sq"]
    metadata = {"identity": identity, "step": str(step)}
    save_tensors(tensors, path, metadata | {"sha256": _content_hash(tensors, metadata)})
    push(path)


def _content_hash(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over a checkpoint's metadata and the names and values of its tensors."""
    digest = sha256(f"{metadata['identity']} {metadata['step']}".encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(path: Path, model: Any, optimizer: Any, identity: str) -> int:
    """Steps done; 0 without a checkpoint, with a damaged one, or with that of another spec, text or tokenizer."""
    import torch

    if not pull(path, again=True).is_file():
        return 0
    parameters = dict(model.named_parameters())
    try:
        found = _read_checkpoint(path, identity, {name: p.shape for name, p in parameters.items()})
    except ValueError as error:
        log.warning("%s: is damaged (%s); pre-training starts again.", path, error)
        return 0
    if found is None:
        return 0
    step, tensors = found
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight {name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"first {name}"],
                "exp_avg_sq": tensors[f"second {name}"],
            }
    return step


def _read_checkpoint(
    path: Path, identity: str, shapes: Mapping[str, torch.Size]
) -> tuple[int, dict[str, torch.Tensor]] | None:
    """Steps and float32 tensors of a checkpoint; None for one of another identity. Raises ValueError if damaged."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                return None
            kinds = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            wanted = {f"{part} {name}": list(shapes[name]) for part in PARTS for name in shapes}
            if {name: kind.get_shape() for name, kind in kinds.items()} != wanted:
                raise ValueError("its tensors are not those of the model")
            tensors = {name: file.get_tensor(name) for name in wanted}
    except SafetensorError as error:  # cut off, or no longer a checkpoint
        raise ValueError(str(error)) from error
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise ValueError("its tensors are not float32")
    if re.fullmatch("[1-9][0-9]{0,9}", metadata.get("step", "")) is None:
        raise ValueError("it does not name its step")
    if metadata.get("sha256") != _content_hash(tensors, metadata):
        raise ValueError("it has other bytes than were written")
    return int(metadata["step"]), tensors


FLOOR = 0.1


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at `step` in [0, steps): linear warm-up, then cosine down to FLOOR."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    share = (step - rising) / max(1, steps - rising)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + cos(pi * share))
