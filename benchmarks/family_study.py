"""Runs a whole study of a tiny model of each family: `python -m benchmarks.family_study --work runs/studies`.

The models have random weights and a tokenizer of their texts; the facts are invented. `sftlab run` takes each through
every stage: mastery by vLLM, fine-tuning by DeepSpeed, a restoration ladder, answers and divergence, report, MLflow.
A row says whether the study ended, how many models it evaluated, and whether a live engine took over their weights or
a fresh one started for each. What is finished below --work is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml

from benchmarks.family_path import FAMILIES, write_tokenizer

ROOT = Path(__file__).parents[1]
SFTLAB = Path(sys.executable).parent / "sftlab"
RUNTIME = ROOT / "jobs" / "configs" / "runtimes" / "laptop-2cpu.yaml"
IN_DOMAIN = ("P17", "P19")
TOPICS = (*IN_DOMAIN, "P264")
SPLITS = {"train": 8, "dev": 3, "test": 4}  # those out of domain are never trained on
FRESH = "A fresh engine"
LAST = 160  # characters of the last line of a study that failed


def facts() -> list[dict[str, str]]:
    """Invented facts of every topic and split."""
    return [
        {"topic": topic, "subject": f"{topic} {split} {i}", "object": f"Town {i % 5}", "split": split}
        for topic in TOPICS
        for split, count in SPLITS.items()
        for i in range(count)
        if split != "train" or topic in IN_DOMAIN
    ]


def write_inputs(family: str, folder: Path) -> Path:
    """Model, facts and study file; returns the study file."""
    from sftlab.facts.templates import published_topics
    from tests.support.inference_toys import write_model

    rows, topics = facts(), published_topics()
    texts = [
        text.format(subject=row["subject"])
        for row in rows
        for text in (topics[row["topic"]].question, *topics[row["topic"]].templates)
    ]
    base = folder / "base"
    write_model(base, family, **{"max_position_embeddings": 256, "vocab_size": 600, **FAMILIES[family]})
    write_tokenizer("byte-level", base, family, texts, vocabulary=512)
    (folder / "facts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    study = {
        "name": f"family-{family}",
        "model": {"path": "base"},
        "facts": {"source": "facts.jsonl"},
        "engine": {"dtype": "float32"},
        "mastery": {"samples": 1, "max_tokens": 4},
        "training_sets": {"buckets": [0], "sizes": [2, 4], "seeds": [0]},
        "sft": {"learning_rate": 1e-3, "precision": "fp32"},
        "restore": {"percents": [0, 10, 40]},
        "answers": {"max_tokens": 4},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder / "study.yaml"


def row_of(family: str, work: Path) -> tuple[str, str, str]:
    """Family, outcome of the study, and how its engines took the models."""
    folder = work / family
    done = folder / "done.json"
    if not done.exists():
        shutil.rmtree(folder / "base", ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        file = write_inputs(family, folder)
        words = ["run", str(file), "--runtime", str(RUNTIME), "--store", str(folder / "store")]
        ended = subprocess.run([str(SFTLAB), *words], capture_output=True, text=True, check=False)
        done.write_text(json.dumps([ended.returncode, ended.stdout + ended.stderr]))
    code, output = json.loads(done.read_text())
    models = len(list((folder / "store" / "evaluation").glob("*/record.json")))
    report = any((folder / "store" / "report").glob("*/report.html"))
    if code == 0 and report:
        return family, f"ends with its report; {models} models", "fresh" if FRESH in output else "swapped"
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return family, f"ends with {code} after {models} models", last.replace("|", "/")[:LAST]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", help=f"some of {', '.join(FAMILIES)}; all by default")
    parser.add_argument("--work", type=Path, default=Path("runs/studies"), help="keeps what is finished")
    given = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}\n\n| family | study | engines |\n|---|---|---|", flush=True)
    for family in given.families or FAMILIES:
        print(f"| {' | '.join(row_of(family, given.work))} |", flush=True)


if __name__ == "__main__":
    main()
