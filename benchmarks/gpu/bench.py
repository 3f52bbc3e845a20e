"""What the measuring programs share: their arguments, rows of results, the use of the GPU, what an engine shows."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.inference.spec import EngineRuntime
    from sftlab.inference.vllm_engine import VllmEngine

MARK = "##"  # begins each line that holds a row of results
RESULTS = "results.jsonl"
INTERVAL = 250  # milliseconds between two looks at the GPU
Row = dict[str, Any]


@dataclass
class Bench:
    """Where a program works, on which device, and which of its parts failed."""

    work: Path
    cpu: bool
    failed: list[str] = field(default_factory=list)

    @property
    def device(self) -> str:
        return "cpu" if self.cpu else "cuda"

    @property
    def facts(self) -> Path:
        return self.work / "facts"

    def model(self, name: str) -> str:
        return str(self.work / "models" / name)

    def row(self, step: str, **values: Any) -> None:
        """Print one row of results and append it to the file of results."""
        text = json.dumps({"step": step, **values}, default=str)
        print(MARK, text, flush=True)
        with (self.work / RESULTS).open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part whose failure is recorded and fails the program, but lets the parts after it run."""
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.failed.append(name)
            seconds = round(time.perf_counter() - started, 1)
            self.row(name, failed=repr(error)[:500], seconds=seconds, trace=traceback.format_exc()[-3000:])

    def synchronize(self) -> None:
        """Wait for all work of the GPU."""
        if not self.cpu:
            import torch

            torch.cuda.synchronize()

    def peak_gb(self) -> float | None:
        """Peak of torch's memory on the GPU since `reset_peak`."""
        import torch

        return None if self.cpu else round(torch.cuda.max_memory_allocated() / 1e9, 2)

    def reset_peak(self) -> None:
        import torch

        if not self.cpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments of all programs."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for models and results")
    cpu = os.environ.get("CPU") == "1"
    parser.add_argument("--cpu", action="store_true", default=cpu, help="small, without a GPU (or CPU=1)")
    return parser


def run(options: argparse.Namespace, measure: Callable[[Bench, argparse.Namespace], None]) -> NoReturn:
    """Measure, and end the process: 1 where a part failed. Engines and process groups keep threads."""
    options.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.work.resolve(), options.cpu)
    with bench.part(measure.__module__ if measure.__module__ != "__main__" else Path(sys.argv[0]).stem):
        measure(bench, options)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(bool(bench.failed)))


class Use:
    """The mean use of the GPU while a block runs, in percent, by nvidia-smi; None on the CPU."""

    def __init__(self, bench: Bench) -> None:
        self._off = bench.cpu
        self.percent: float | None = None

    def __enter__(self) -> Use:
        if not self._off:
            command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            self._watch = subprocess.Popen(
                [*command, "--id=0", f"--loop-ms={INTERVAL}"], stdout=subprocess.PIPE, text=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._off:
            return
        self._watch.terminate()
        seen = [int(line) for line in self._watch.communicate()[0].split()]
        self.percent = round(sum(seen) / len(seen), 1) if seen else None


def some_facts(bench: Bench, count: int) -> pa.Table:
    """Facts that are evenly spaced over the training split."""
    from sftlab.facts.table import read_facts

    facts = read_facts(bench.facts, "train")
    step = max(1, facts.num_rows // count)
    return facts.take(list(range(0, facts.num_rows, step))[:count])


def engine_runtime(bench: Bench, **changed: Any) -> EngineRuntime:
    """One engine: of the GPU profile, or a small one of two threads."""
    from sftlab.inference.spec import EngineRuntime

    small = {"max_model_len": 128, "threads": 2}
    large = {"gpus_per_engine": 1, "max_model_len": 512}
    return EngineRuntime.model_validate({**(small if bench.cpu else large), **changed})


def look(engine: VllmEngine) -> Row:
    """All that an engine shows of its weights; no prefix is cached before."""
    import numpy as np

    from sftlab.facts.prompts import prompt_ids
    from sftlab.inference.engine import Prompt, Sampling

    texts = [f"Person {number} was born in" for number in range(24)]
    prompts = [
        Prompt(tuple(prompt_ids(engine.tokenizer, text)), (), 1000 * number)
        for number, text in enumerate(texts)
    ]
    engine.llm.reset_prefix_cache()
    ids, logits = engine.first_token_top([prompt.token_ids for prompt in prompts], 8)
    at = engine.first_token_at([prompt.token_ids for prompt in prompts], ids.tolist())
    engine.llm.reset_prefix_cache()
    answers = [completion.text for completion in engine.answer(prompts, 16)]
    drawn = [one.text for row in engine.sample(prompts[:8], Sampling(6, 0.7, 1.0, 32)) for one in row]
    same = all(np.array_equal(one, top) for one, top in zip(at, logits, strict=True))
    return {
        "ids": ids.tolist(),
        "logits": logits.tolist(),
        "answers": answers,
        "drawn": drawn,
        "at_equals_top": same,
    }


def difference(one: Row, other: Row) -> Row:
    """How far two looks differ."""
    import numpy as np

    def equal(key: str) -> int:
        return sum(a == b for a, b in zip(one[key], other[key], strict=True))

    return {
        "equal": one == other,
        "same_ids": one["ids"] == other["ids"],
        "largest_logit_difference": float(np.abs(np.array(one["logits"]) - np.array(other["logits"])).max()),
        "same_answers": [equal("answers"), len(one["answers"])],
        "same_draws": [equal("drawn"), len(one["drawn"])],
    }
