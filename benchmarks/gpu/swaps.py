"""Point 2: swaps of weights in a live engine, against fresh engines of the same models.

    python -m benchmarks.gpu.swaps --work DIR --model llama|qwen
    python -m benchmarks.gpu.swaps --work DIR --model llama|qwen --fresh tuned|restored

The first form swaps base, tuned and a restored model that is mixed while it streams, and back to the base, times each
swap and its proof, and lets a swap forget the weights, which the proof must find. It writes what the engine showed of
each model. The second form starts an engine of a folder, in a process of its own, and compares.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, Row, arguments, difference, engine_runtime, look, run
from sftlab.inference.spec import EngineSpec
from sftlab.inference.swap import swap_in_worker
from sftlab.inference.vllm_engine import VllmEngine
from sftlab.weights.edits import Restoration
from sftlab.weights.ladder import restore
from sftlab.weights.restoration import ModelSource

PERCENT = "10"


def looks_file(bench: Bench, model: str) -> Path:
    return bench.work / f"looks-{model}.json"


def restored_folder(bench: Bench, model: str) -> Path:
    return bench.work / f"restored-{model}"


def restoration(bench: Bench, model: str) -> Restoration:
    """A tenth of the weights are base weights again; the folder of that model is kept for the fresh engine."""
    folder = restored_folder(bench, model)
    shutil.rmtree(folder, ignore_errors=True)
    found = restore(bench.model(f"{model}-base"), bench.model(f"{model}-tuned"), [PERCENT], folder)
    return Restoration(found.cuts[PERCENT])


def timed_swap(bench: Bench, engine: VllmEngine, label: str, source: ModelSource) -> None:
    """One swap, with the seconds of its proof."""
    from sftlab.inference import swap

    proof, verify = [0.0], swap.verify

    def timed(*given: Any) -> None:
        started = time.perf_counter()
        verify(*given)
        proof[0] = time.perf_counter() - started

    swap.verify = timed  # type: ignore[assignment]  # passes everything on
    started = time.perf_counter()
    try:
        engine.load_weights(source)
    finally:
        swap.verify = verify
    seconds = time.perf_counter() - started
    bench.row("swap", to=label, seconds=round(seconds, 3), seconds_of_proof=round(proof[0], 3))


def forgetful_swap(worker: Any, source: ModelSource) -> tuple[str, ...] | None:
    """A swap in a worker that reads the tensors and leaves the live model as it is."""
    worker.model_runner.reload_weights = lambda weights_iterator: [None for _ in weights_iterator]
    try:
        return swap_in_worker(worker, source, 1)
    finally:
        del worker.model_runner.reload_weights


def swap_all(bench: Bench, engine: VllmEngine, model: str) -> None:
    """From the base to the tuned model, a restored one, the base again, and a swap that forgets."""
    base, tuned = bench.model(f"{model}-base"), bench.model(f"{model}-tuned")
    seen: dict[str, Row] = {"base": look(engine)}
    bench.row("two looks", model=model, **difference(seen["base"], look(engine)))
    with bench.part(f"{model} tuned"):
        timed_swap(bench, engine, f"{model} tuned", ModelSource(base, tuned))
        seen["tuned"] = look(engine)
        assert not difference(seen["base"], seen["tuned"])["equal"], "the tuned model answers as the base"
    with bench.part(f"{model} restored"):
        source = ModelSource(base, tuned, restoration(bench, model))
        timed_swap(bench, engine, f"{model} restored, first", source)
        seen["restored"] = look(engine)
        timed_swap(bench, engine, f"{model} restored, again", source)
    looks_file(bench, model).write_text(json.dumps(seen))
    with bench.part(f"{model} back"):
        timed_swap(bench, engine, f"{model} base", ModelSource(base))
        bench.row("back to the base", model=model, **difference(seen["base"], look(engine)))
    with bench.part(f"{model} sabotage"):
        (found,) = engine.llm.collective_rpc(forgetful_swap, args=(ModelSource(base, tuned),))
        assert found and "other weights" in found[0], f"the proof did not find the old weights: {found}"
        bench.row("sabotage", model=model, found=found[0][:300])


def start(bench: Bench, folder: str) -> VllmEngine:
    room = {} if bench.cpu else {"kv_cache_gib": 4, "gpu_memory_utilization": 0.25}
    return VllmEngine(folder, EngineSpec(), engine_runtime(bench, **room))


def measure(bench: Bench, options: argparse.Namespace) -> None:
    model = options.model
    if options.fresh is None:
        swap_all(bench, start(bench, bench.model(f"{model}-base")), model)
        return
    restored = str(restored_folder(bench, model) / f"restored-{PERCENT}")
    folder = restored if options.fresh == "restored" else bench.model(f"{model}-tuned")
    seen = json.loads(looks_file(bench, model).read_text())[options.fresh]
    found = difference(json.loads(json.dumps(look(start(bench, folder)))), seen)
    bench.row("fresh against swapped", model=model, kind=options.fresh, **found)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=("llama", "qwen"), default="llama")
    parser.add_argument("--fresh", choices=("tuned", "restored"))
    run(parser.parse_args(), measure)


if __name__ == "__main__":
    main()
