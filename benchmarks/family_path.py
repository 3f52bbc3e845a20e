"""Runs a tiny model of each family through the whole path and writes a row of docs/models.md for each.

    .venv/bin/python -m benchmarks.family_path [FAMILY...] --tokenizer byte-level --work runs/families

The path: the checks of a study, two steps of fine-tuning, the export, a restoration of 10 %, and a live vLLM engine of
the base model that takes over the tuned and the restored model. The first-token logits of the restored model are
compared with those of transformers. Random weights; seconds for each family on idle cores, most of it vLLM's start.
What is finished below --work is kept, so that a run that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sftlab.errors import UserError

# Families by model_type, with what differs from the shape of tests.support.inference_toys.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {},
    "gpt2": {"n_inner": 160},
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": {"tie_word_embeddings": True},  # as published; vLLM has no other head for it
    "mistral": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
}
TOKENIZERS = ("byte-level", "metaspace", "bytes")
QUESTIONS = [f"Where was person {i} born?" for i in range(8)]
TOLERANCE = 2e-3  # of a logit in float32
REASON = 160  # characters of a reason


def prepare(family: str, tokenizer: str, folder: Path) -> dict[str, Any]:
    """Base model, checks, fine-tuning, export, restoration. Runs in a process of its own, which vLLM never enters."""
    import torch

    from sftlab.inference.model_check import check_model
    from sftlab.inference.tokenizer_check import check_tokenizer, embedding_rows, load_tokenizer
    from sftlab.training.hf_model import check_trainable
    from sftlab.training.spec import SFTSpec
    from sftlab.weights.ladder import restore
    from tests.support.inference_toys import write_model

    for made in folder.iterdir():  # by a stage that was ended
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    base = folder / "base"
    write_model(base, family, **FAMILIES[family])
    write_tokenizer(tokenizer, base, family, QUESTIONS, vocabulary=290)
    spec = SFTSpec(batch_size=4, learning_rate=1e-2, precision="fp32")
    try:
        check_model(base, on_cpu=True)
        check_trainable(base, spec)
        lost = check_tokenizer(base, load_tokenizer(base), embedding_rows(base), QUESTIONS)
    except UserError as error:
        return {"refused": str(error)}
    _train(base, folder, spec)
    restore(base, folder / "tuned", "10", folder / "restored")
    restored = folder / "restored" / "restored-10"
    return {"lost": lost, "same": _same_form(base, restored), "reference": _logits(restored, torch)}


def write_tokenizer(kind: str, folder: Path, family: str, texts: Sequence[str], vocabulary: int) -> None:
    """Put a tokenizer of these texts in place of that of a model folder."""
    from tests.support import inference_toys, tokenizers_built

    byte_level = tokenizers_built.qwen2 if family == "qwen2" else tokenizers_built.byte_level
    made = {
        "byte-level": lambda: byte_level(texts, vocabulary=vocabulary),
        "metaspace": lambda: tokenizers_built.metaspace(texts),
        "bytes": inference_toys.byte_tokenizer,
    }[kind]()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    made.save_pretrained(folder)


def _train(base: Path, folder: Path, spec: Any) -> None:
    """Two steps by the loop of a study, in this process."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from sftlab.training.checkpoints import call_token
    from sftlab.training.deepspeed import prepare_process, start_deepspeed
    from sftlab.training.loop import Rank, train_all
    from sftlab.training.records import SFTRun
    from sftlab.training.spec import TrainingRuntime

    group = {"MASTER_ADDR": "127.0.0.1", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ.update(group, LOCAL_WORLD_SIZE="1", MASTER_PORT="0")
    runtime = TrainingRuntime()
    prepare_process(runtime)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    start_deepspeed(runtime)
    rows = {"prompt": QUESTIONS, "target": [f" Town {i}" for i in range(len(QUESTIONS))]}
    pq.write_table(pa.table(rows), folder / "train.parquet")
    run = SFTRun("run", str(base), str(folder / "train.parquet"), str(folder / "tuned"), spec)
    device = torch.device("cpu")
    train_all([run], Rank(0, 1, device, runtime, str(folder / "scratch"), call_token(), lambda _event: False))


def _same_form(base: Path, restored: Path) -> bool:
    """Whether configuration and the names, shapes and types of all tensors are those of the base model."""
    from sftlab.weights.shards import Checkpoint

    with Checkpoint.open(base) as old, Checkpoint.open(restored) as new:
        forms = [{name: (m.code(name), m.shape(name)) for name in m.names} for m in (old, new)]
    return forms[0] == forms[1] and json.loads((base / "config.json").read_text()) == json.loads(
        (restored / "config.json").read_text()
    )


def _logits(folder: Path, torch: Any) -> list[list[float]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    with torch.no_grad():
        for question in QUESTIONS[:4]:
            ids = torch.tensor([tokenizer(question, add_special_tokens=False)["input_ids"]])
            found.append(model(input_ids=ids).logits[0, -1].tolist())
    return found


def serve(folder: Path, start: str, swaps: list[str], reference: list[list[float]]) -> dict[str, Any]:
    """An engine of `start` that takes over the models of `swaps`; how far the last one's logits are off."""
    import numpy as np

    from sftlab.inference.engine import EngineSwapError
    from sftlab.inference.spec import EngineSpec
    from sftlab.inference.vllm_engine import VllmEngine
    from tests.support.inference_toys import RUNTIME, FolderSource

    engine = VllmEngine(str(folder / start), EngineSpec(dtype="float32"), RUNTIME)
    try:
        for other in swaps:
            engine.load_weights(FolderSource(str(folder / other)))
    except EngineSwapError as error:
        return {"swap": str(error)}
    prompts = [
        engine.tokenizer(question, add_special_tokens=False)["input_ids"] for question in QUESTIONS[:4]
    ]
    ids, logits = engine.first_token_top([tuple(prompt) for prompt in prompts], 8)
    wanted = np.take_along_axis(np.array(reference), np.array(ids), 1)
    return {"off": float(np.abs(np.array(logits) - wanted).max())}


def row_of(family: str, tokenizer: str, work: Path) -> tuple[str, ...]:
    """Family, tokenizer, outcome, and how the swap went."""
    folder = work / f"{family}-{tokenizer}"
    folder.mkdir(parents=True, exist_ok=True)
    made = _kept(folder / "prepared.json", "prepare", family, tokenizer, str(folder))
    if "refused" in made or "failed" in made:
        kind = "refused before anything is computed" if "refused" in made else "fails"
        return family, tokenizer, kind, _short(made.get("refused") or made["failed"])
    form = "" if made["same"] else "; config or names differ"
    served = _kept(folder / "swapped.json", "serve", str(folder), "base", "tuned,restored/restored-10")
    if "off" in served:
        word = "works" if served["off"] <= TOLERANCE and not form else "fails"
        return family, tokenizer, word, f"swapped; logits agree within {served['off']:.0e}{form}"
    reason = _short(served.get("swap") or served["failed"])
    again = _kept(folder / "fresh.json", "serve", str(folder), "restored/restored-10", "")
    if again.get("off", 1.0) <= TOLERANCE:
        return family, tokenizer, "fresh engine", f"{reason}{form}"
    wrong = again.get("failed") or f"logits differ by {again['off']:.0e}"
    return family, tokenizer, "fails", _short(wrong)


def _kept(file: Path, *words: str) -> dict[str, Any]:
    """What a stage found, from its file where it has been run."""
    if not file.exists():
        found = _child(*words)
        file.write_text(json.dumps(found))
    kept: dict[str, Any] = json.loads(file.read_text())
    return kept


def _child(*words: str) -> dict[str, Any]:
    """The last line that a stage prints, as JSON; what went wrong under `failed`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.family_path", "--stage", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines or not lines[-1].startswith("{"):
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _short(reason: str) -> str:
    text = " ".join(reason.split()).replace("|", "/")
    return text if len(text) <= REASON else f"{text[:REASON]}..."


def _stage(words: list[str]) -> None:
    if words[0] == "prepare":
        found = prepare(words[1], words[2], Path(words[3]))
    else:
        reference = json.loads((Path(words[1]) / "prepared.json").read_text())["reference"]
        found = serve(Path(words[1]), words[2], [x for x in words[3].split(",") if x], reference)
    print("\n" + json.dumps(found), flush=True)
    os._exit(0)  # engines and process groups keep threads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", help=f"some of {', '.join(FAMILIES)}; all by default")
    parser.add_argument("--tokenizer", choices=TOKENIZERS, default="byte-level")
    parser.add_argument("--work", type=Path, default=Path("runs/families"), help="keeps what is finished")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        _stage(given.stage)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}\n\n| family | tokenizer | result | detail |\n|---|---|---|---|",
        flush=True,
    )
    for family in given.families or FAMILIES:
        print(f"| {' | '.join(row_of(family, given.tokenizer, given.work))} |", flush=True)


if __name__ == "__main__":
    main()
