"""Lossless deltas of tuned models against their peers: size, and MB/s a core both ways.

python -m benchmarks.deltas [--folder DIR] [--json FILE]

Two kinds of pairs are packed. The trained ones are a pocket model, pre-trained here, and the same after 32 and 313
steps of AdamW on its questions (rate 1e-5, cosine, batch 32, float32 weights), both stored in bfloat16. The synthetic
ones are normal weights of deviation 0.02 and the same after normal changes of one deviation each.

Peers: zstd of the tuned model's byte planes alone; XOR of both models by byte planes and zstd-3, as BitX and ZipLLM
do it; ZipNN of the XOR, where it is installed. All work on stretches of one record and all run in one thread;
the rate of a core is tuned bytes by processor time. `pack` and `unpack` are whole folders, with all threads and
reading back included.

Goals: on the trained pairs at most 0.85 of the size of XOR + byte planes + zstd, at least 80 MB/s a core both ways.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftlab.weights.bits import Raw, raw_type
from sftlab.weights.delta import DELTA_CHUNK, decode, encode
from sftlab.weights.shards import Checkpoint
from sftlab.weights.stream import chunks, thread_count

if TYPE_CHECKING:
    import torch

RATE, BATCH, STEPS = 1e-5, 32, (32, 313)
REPEATS = 5
SIZE_GOAL, RATE_GOAL = 0.85, 80.0
Stretch = tuple[Raw, Raw, str]  # base, tuned, type


@dataclass(frozen=True)
class Figures:
    """One pair: sizes as shares of the tuned bytes, rates in MB/s of processor time."""

    pair: str
    megabytes: float
    ours: float
    xor: float
    alone: float
    zipnn_xor: float | None
    encode_rate: float
    decode_rate: float

    @property
    def of_xor(self) -> float:
        return self.ours / self.xor

    def __str__(self) -> str:
        zipnn = "" if self.zipnn_xor is None else f", ZipNN of XOR {self.zipnn_xor:.3f}"
        return (
            f"{self.pair:<34} {self.ours:.3f} (XOR {self.xor:.3f}, alone {self.alone:.3f}{zipnn}): {self.of_xor:.2f} "
            f"of XOR; {self.encode_rate:4.0f} MB/s writing, {self.decode_rate:4.0f} MB/s reading"
        )


def planes(values: Raw) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    split = values.view(np.uint8).reshape(values.size, values.itemsize)
    return (np.ascontiguousarray(split[:, number]) for number in range(values.itemsize))


def planes_size(values: Raw) -> int:
    """Bytes of the byte planes after zstd-3, each at most as large as it is."""
    from pyarrow import Codec

    codec = Codec("zstd", compression_level=3)
    return sum(min(plane.size, len(codec.compress(plane, asbytes=True))) for plane in planes(values))


def zipnn_size(values: Raw, code: str) -> int:
    import zipnn  # type: ignore[import-not-found]

    kinds = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    return len(
        zipnn.ZipNN(bytearray_dtype=kinds[code], input_format="byte").compress(bytearray(values.tobytes()))
    )


def fastest(work: Callable[[], object]) -> float:
    """Processor seconds of the fastest of REPEATS calls."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def compare(pair: str, stretches: Sequence[Stretch]) -> Figures:
    """Encodes and decodes all stretches in this thread; they must come back exactly."""
    size = sum(tuned.nbytes for _, tuned, _ in stretches)
    records = [encode(tuned, base, code) for base, tuned, code in stretches]
    out = np.empty(DELTA_CHUNK, np.uint64)

    def write() -> None:
        for base, tuned, code in stretches:
            encode(tuned, base, code)

    def read() -> None:
        for record, (base, tuned, code) in zip(records, stretches, strict=True):
            decode(record, base, code, out.view(tuned.dtype)[: tuned.size])

    for record, (base, tuned, code) in zip(records, stretches, strict=True):
        restored = out.view(tuned.dtype)[: tuned.size]
        decode(record, base, code, restored)
        assert restored.tobytes() == tuned.tobytes(), pair
    zipnn = None
    if find_spec("zipnn") is not None:
        zipnn = sum(zipnn_size(base ^ tuned, code) for base, tuned, code in stretches) / size
    return Figures(
        pair=pair,
        megabytes=size / 1e6,
        ours=sum(map(len, records)) / size,
        xor=sum(planes_size(base ^ tuned) for base, tuned, _ in stretches) / size,
        alone=sum(planes_size(tuned) for _, tuned, _ in stretches) / size,
        zipnn_xor=zipnn,
        encode_rate=size / 1e6 / fastest(write),
        decode_rate=size / 1e6 / fastest(read),
    )


def stretches_of(base: Path, tuned: Path) -> list[Stretch]:
    found = []
    with Checkpoint.open(base) as old, Checkpoint.open(tuned) as new:
        for chunk in chunks({name: new.numel(name) for name in new.names}):
            code = new.code(chunk.name)
            bits = [np.empty(chunk.stop - chunk.start, raw_type(code)) for _ in range(2)]
            for model, values in zip((old, new), bits, strict=True):
                model.read_into(chunk.name, chunk.start, values)
            found.append((bits[0], bits[1], code))
    return found


def synthetic(code: str, change: float, records: int = 8) -> list[Stretch]:
    """Normal weights of deviation 0.02 and changes of deviation `change`."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(records):
        base = stored(draw.normal(0, 0.02, DELTA_CHUNK).astype(np.float32), code)
        tuned = numbers(base, code) + draw.normal(0, change, DELTA_CHUNK).astype(np.float32)
        found.append((base, stored(tuned, code), code))
    return found


def stored(values: np.ndarray[Any, np.dtype[np.float32]], code: str) -> Raw:
    """The bits of float32 numbers rounded to the type."""
    if code == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return values.astype(np.float16 if code == "F16" else np.float32).view(raw_type(code))


def numbers(bits: Raw, code: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    if code == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(np.float16 if code == "F16" else np.float32).astype(np.float32)


def pretrained(folder: Path) -> None:
    """folder/facts and folder/model, a small pocket model after about 120,000 tokens."""
    from sftlab.pocket.pretrain import build_facts, pretrain
    from sftlab.pocket.spec import FactCounts, PocketRuntime, PocketSpec, Shape

    spec = PocketSpec(
        in_domain=("P17", "P19"),
        out_of_domain=("P50",),
        facts=FactCounts(train=120, test=5, test_ood=5, dev=5, dev_ood=5, qa=5),
        shape=Shape(hidden=128, layers=4, heads=4, intermediate=352, vocabulary=2048),
    )
    build_facts(spec, folder / "facts")
    pretrain(spec, folder / "facts", folder / "model", PocketRuntime(threads=1))


def save_bfloat16(model: torch.nn.Module, config: Path, output: Path) -> None:
    import torch
    from safetensors.torch import save_file

    output.mkdir()
    tensors = {name: value.detach().to(torch.bfloat16) for name, value in model.state_dict().items()}
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    (output / "config.json").write_text(config.read_text())
    (output / "tokenizer.json").write_text((config.parent / "tokenizer.json").read_text())


def batches(folder: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and labels of questions with their answers, in turn and without end; padding counts for nothing."""
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = pq.read_table(folder / "facts" / "train.parquet").to_pylist()
    texts = [f"{row['question']} {row['object']}" for row in rows]
    ids = [[*row, tokenizer.eos_token_id] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    draw = np.random.default_rng(0)
    while True:
        order = draw.permutation(len(ids))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = [ids[index] for index in order[start : start + BATCH]]
            longest = max(map(len, chosen))
            inputs = torch.tensor(
                [[*row, *[tokenizer.eos_token_id] * (longest - len(row))] for row in chosen]
            )
            labels = torch.tensor([[*row, *[-100] * (longest - len(row))] for row in chosen])
            yield inputs, labels


def trained_pairs(folder: Path) -> None:
    """folder/base, and folder/tuned-32 and folder/tuned-313 after so many steps; bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # two wait for each other on a busy machine
    pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    config = folder / "model" / "config.json"
    save_bfloat16(model, config, folder / "base")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    model.train()
    for step, (inputs, labels) in enumerate(batches(folder)):
        if step in STEPS:
            save_bfloat16(model, config, folder / f"tuned-{step}")
        if step == max(STEPS):
            return
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / max(STEPS)))
        logits = model(input_ids=inputs, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def whole_folders(folder: Path) -> dict[str, float]:
    """MB/s of `pack` and `unpack`, by the clock and by processor time, of a synthetic bfloat16 pair of 134 MB."""
    import torch
    from safetensors.torch import save_file

    from sftlab.weights.packing import pack, unpack

    for number, name in enumerate(("base", "tuned")):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        stretches = np.concatenate([stretch[number] for stretch in synthetic("BF16", 1e-4)])
        weights = torch.from_numpy(np.tile(stretches, 8).view(np.int16)).view(torch.bfloat16)
        tensors = {f"layer.{layer}": weights.clone() for layer in range(4)}
        save_file(tensors, folder / name / "model.safetensors")
    begin, begin_processor = time.perf_counter(), time.process_time()
    packed = pack(folder / "base", folder / "tuned", folder / "packed")
    middle, middle_processor = time.perf_counter(), time.process_time()
    unpack(folder / "base", folder / "packed", folder / "back")
    end, end_processor = time.perf_counter(), time.process_time()
    size = packed.restored_bytes / 1e6
    return {
        "threads": thread_count(),
        "pack_rate": size / (middle - begin),
        "unpack_rate": size / (end - middle),
        "pack_processor_rate": size / (middle_processor - begin_processor),
        "unpack_processor_rate": size / (end_processor - middle_processor),
    }


def measure(folder: Path) -> dict[str, Any]:
    trained_pairs(folder)
    rows = [
        compare(
            f"trained, {steps} steps at {RATE:g}, BF16",
            stretches_of(folder / "base", folder / f"tuned-{steps}"),
        )
        for steps in STEPS
    ]
    for row in rows:
        print(row, flush=True)
    for code in ("BF16", "F16", "F32"):
        for change in (1e-5, 1e-4, 1e-3):
            rows.append(compare(f"synthetic, change {change:g}, {code}", synthetic(code, change)))
            print(rows[-1], flush=True)
    threads = whole_folders(folder / "whole")
    print(
        f"folders, {threads['threads']} threads: pack {threads['pack_rate']:.0f} MB/s (reading back included), "
        f"unpack {threads['unpack_rate']:.0f} MB/s; by processor time {threads['pack_processor_rate']:.0f} and "
        f"{threads['unpack_processor_rate']:.0f} MB/s"
    )
    trained = rows[: len(STEPS)]
    figures: dict[str, Any] = {
        "pairs": [{**vars(row), "of_xor": row.of_xor} for row in rows],
        "folders": threads,
        "trained_of_xor": max(row.of_xor for row in trained),
        "slowest_bf16_rate": min(
            min(row.encode_rate, row.decode_rate) for row in rows if row.pair.endswith("BF16")
        ),
    }
    for what, found, goal, met in (
        (
            "size on the trained pairs, of XOR",
            figures["trained_of_xor"],
            f"at most {SIZE_GOAL}",
            figures["trained_of_xor"] <= SIZE_GOAL,
        ),
        (
            "slowest MB/s a core, bfloat16",
            figures["slowest_bf16_rate"],
            f"at least {RATE_GOAL:.0f}",
            figures["slowest_bf16_rate"] >= RATE_GOAL,
        ),
    ):
        print(f"{what}: {found:.2f} (goal: {goal}): {'met' if met else 'missed'}")
    if find_spec("zipnn") is None:
        print("ZipNN is not installed, so it was not measured")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deltas-", dir=options.folder) as folder:
        figures = measure(Path(folder))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
