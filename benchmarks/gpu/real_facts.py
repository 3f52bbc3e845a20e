"""Point 8: a study of real facts with a model of about 42 million weights that is pre-trained on the GPU.

    python -m benchmarks.gpu.real_facts --work DIR --data data/entity_questions.zip

The facts and the pre-training text are those of a pocket world of EntityQuestions. The loop here is for the GPU:
bfloat16 arithmetic, no checkpoint. The study then takes the folder as any other model: mastery of 2,000 training facts,
a training set of the unknown and one of the well-mastered facts, and a ladder. The rows have the accuracies along the
ladders, in which the shape that the paper reports would show. On the CPU the world and the model are tiny.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gpu.bench import Bench, Use, arguments, run
from benchmarks.gpu.studies import runtime_of, sftlab
from sftlab.facts.prepare import read_source
from sftlab.facts.table import SPLITS, TOPICS_FILE, read_facts
from sftlab.pocket.corpus import corpus
from sftlab.pocket.pretrain import EXPOSURE_FILE, build_facts, new_model, pack, rate_at, train_tokenizer
from sftlab.pocket.spec import PocketSpec
from sftlab.pocket.world import facts_of, world_topics
from sftlab.studies import read_results

NAME = "real-facts"
WORLD: dict[str, Any] = {
    "facts": {"train": 500, "test": 100, "test_ood": 80, "dev": 40, "dev_ood": 30},
    "shape": {
        "hidden": 512,
        "layers": 8,
        "heads": 8,
        "intermediate": 1408,
        "vocabulary": 16384,
        "sequence": 256,
    },
    "optimisation": {"sequences": 32, "learning_rate": 1e-3},
}
SMALL_WORLD: dict[str, Any] = {
    "facts": {"train": 24, "test": 8, "test_ood": 8, "dev": 6, "dev_ood": 6, "qa": 4},
    "in_domain": ["P17", "P19"],
    "out_of_domain": ["P50", "P264"],
    "object_share": 0.25,
    "exposure": {
        "curve": [[0.5, 2], [0.7, 6], [1.0, 16]],
        "qa_sentences": 2,
        "qa_questions": 2,
        "qa_unanswered": 2,
    },
    "shape": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 128, "vocabulary": 1024, "sequence": 64},
    "optimisation": {"sequences": 4, "learning_rate": 5e-3},
}
STUDY: dict[str, Any] = {
    "engine": {"dtype": "float32"},
    "mastery": {"samples": 4},
    "training_sets": {"buckets": [0, 4], "sizes": [80], "seeds": [0], "balance": "fill"},
    "sft": {"learning_rate": 3e-4, "precision": "fp32"},
    "restore": {"percents": [0, 1, 3, 5, 10, 20, 40, 60]},
}
SMALL_STUDY: dict[str, Any] = {
    **STUDY,
    "mastery": {"samples": 2},
    "training_sets": {"buckets": [0], "sizes": [4], "seeds": [0], "balance": "fill"},
    "restore": {"percents": [0, 10, 40]},
}


def sequences_of(spec: PocketSpec, facts: Path) -> tuple[Any, Any]:
    """The tokenizer, and the packed pre-training text."""
    exposure = facts_of(pq.read_table(facts / EXPOSURE_FILE))
    documents = corpus(spec, exposure, world_topics(spec))
    tokenizer = train_tokenizer(documents, spec.shape.vocabulary)
    rows = tokenizer(documents, add_special_tokens=False)["input_ids"]
    ids = [[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] for row in rows]
    return tokenizer, pack(ids, spec.shape.sequence, spec.optimisation.sequences)


def pretrain(bench: Bench, spec: PocketSpec, facts: Path, folder: Path) -> None:
    """Write a Hugging Face folder of a model that was trained on the text of `facts`."""
    import torch
    from torch.nn.functional import cross_entropy

    tokenizer, sequences = sequences_of(spec, facts)
    torch.manual_seed(spec.seed)
    model, plan = new_model(spec.shape, tokenizer).to(bench.device).train(), spec.optimisation
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, plan.beta2), weight_decay=plan.weight_decay, fused=True
    )
    batches = sequences.to(bench.device).view(-1, plan.sequences, sequences.shape[1])
    losses = torch.zeros(len(batches), device=bench.device)
    with Use(bench) as use:
        started = time.perf_counter()
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * rate_at(step, len(batches), plan.warmup)
            with torch.autocast(bench.device, torch.bfloat16, enabled=not bench.cpu):
                logits = model(input_ids=batch[:, :-1], use_cache=False).logits
            loss = cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses[step] = loss.detach()
        bench.synchronize()
        seconds = time.perf_counter() - started
    model.to("cpu").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    bench.row(
        "pre-training",
        weights=sum(parameter.numel() for parameter in model.parameters()),
        tokens=sequences.numel(),
        tokens_per_second=round(sequences.numel() / seconds),
        losses=[round(float(losses[0]), 3), round(float(losses[-20:].mean()), 3)],
        gpu_percent=use.percent,
    )


def write_study(bench: Bench, facts: Path, model: Path) -> Path:
    """A study's file, with the facts as a user's table."""
    tables = []
    for split in SPLITS:
        table = read_facts(facts, split).select(["subject", "object", "topic", "accepted"])
        name = split.removesuffix("_ood")  # the topic says whether it is in domain
        tables.append(table.append_column("split", pa.array([name] * table.num_rows, pa.string())))
    pq.write_table(pa.concat_tables(tables), facts.parent / "facts.parquet")
    source = {"source": str(facts.parent / "facts.parquet"), "templates": str(facts / TOPICS_FILE)}
    study = SMALL_STUDY if bench.cpu else STUDY
    file = facts.parent / "study.yaml"
    file.write_text(json.dumps({"name": NAME, "facts": source, "model": {"path": str(model)}, **study}))
    return file


def report(bench: Bench, store: Path) -> None:
    """Rows of the mastery of training facts, and of the accuracies along the ladders."""
    tables = read_results(store, NAME)
    counts = tables["mastery"].to_pylist()
    bench.row("mastery", rows=[{key: row[key] for key in row if row[key] is not None} for row in counts[:40]])
    for row in tables["accuracy"].to_pylist():
        if row["bucket"] is None:
            kept = {key: row[key] for key in ("cell", "split", "percent", "accuracy")}
            bench.row("accuracy", **kept)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    folder = bench.work / NAME
    facts, model, store = folder / "facts", folder / "model", folder / "store"
    world = SMALL_WORLD if bench.cpu else WORLD
    spec = PocketSpec.model_validate({**world, "source": str(options.data)})
    build_facts(spec, facts, read_source(options.data, None)[0])
    pretrain(bench, spec, facts, model)
    file = write_study(bench, facts, model)
    sftlab(bench, ["run", str(file)], runtime_of(bench, store, zero_stage=0))
    report(bench, store)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of EntityQuestions")
    run(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
