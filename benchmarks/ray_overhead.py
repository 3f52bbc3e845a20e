"""What the Ray Data pipeline of mastery scoring costs over a bare loop around one vLLM engine.

    python -m benchmarks.ray_overhead --model MODEL_FOLDER --facts FACTS_FOLDER [--split test] [--limit 320]

Both sides score the same blocks with the same engine settings, and write the same files; they take turns, each
bare run in a fresh process. Two ratios are printed: of the time per block once the first block is done, and of
the whole time, engine start included (Ray's own start left out, for a study starts it once).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from sftlab.cluster.environment import spin_briefly
from sftlab.facts.table import TOPICS_FILE, read_facts
from sftlab.facts.templates import load_topics
from sftlab.inference.pieces import commit_table
from sftlab.inference.spec import EngineRuntime, EngineSpec
from sftlab.measurements.fact_blocks import FactBlocks, FactReader
from sftlab.measurements.scoring import ScoringRequest, score
from sftlab.measurements.spec import MasterySpec

WANTED = 1.10  # time of the pipeline over that of the loop, at most


def request_of(options: argparse.Namespace, folder: Path) -> ScoringRequest:
    """To score facts that are evenly spaced over the split, into `folder`."""
    facts, spec = read_facts(options.facts, options.split), MasterySpec()
    some = list(range(0, facts.num_rows, max(1, facts.num_rows // options.limit)))[: options.limit]
    (folder / "facts").mkdir(parents=True)
    pq.write_table(facts.take(some), folder / "facts" / f"{options.split}.parquet")
    blocks = FactBlocks.of(folder / "facts", spec.block_facts, [options.split])
    topics = load_topics(options.facts / TOPICS_FILE)
    return ScoringRequest(blocks, topics, options.model, spec, EngineSpec(), folder)


def bare(options: argparse.Namespace, folder: Path) -> list[float]:
    """Seconds from the start to each block's commit, in this process."""
    start = time.perf_counter()
    from sftlab.inference.vllm_engine import VllmEngine
    from sftlab.measurements.mastery import score_block

    request = request_of(options, folder)
    engine, reader = VllmEngine(options.model, EngineSpec(), EngineRuntime()), FactReader(request.facts)
    stamps = []
    for index in range(len(request.facts)):
        table = score_block(reader.block(index), request.topics, engine, request.spec)
        commit_table(table, request.path(index), checksums=True)  # as the pipeline's actors do
        stamps.append(time.perf_counter() - start)
    return stamps


def bare_in_fresh_process(options: argparse.Namespace, folder: Path) -> list[float]:
    command = [sys.executable, __file__, "--bare", str(folder), "--model", options.model]
    command += ["--facts", str(options.facts), "--split", options.split, "--limit", str(options.limit)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    stamps: list[float] = json.loads(output.splitlines()[-1])
    return stamps


def pipeline(options: argparse.Namespace, folder: Path) -> list[float]:
    """Seconds from the start to each block's commit, through Ray Data."""
    start = time.perf_counter()
    stamps: list[float] = []
    request = request_of(options, folder)
    score(request, EngineRuntime(), progress=lambda _: stamps.append(time.perf_counter() - start))
    return stamps


def content(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "blocks").glob("*.parquet"))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=320, help="facts to score, evenly spaced over the split")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--bare", type=Path, help="run the loop alone and print its times (used by the benchmark)"
    )
    options = parser.parse_args()
    if options.bare is not None:
        print(json.dumps(bare(options, options.bare)))
        return

    # As the command line sets it; both sides must wait in the same way for each other's threads.
    spin_briefly()
    # By default Ray lets everything else on the machine go first. (The spelling is Ray's.)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False)
    times: dict[str, list[list[float]]] = {"loop": [], "Ray Data": []}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(options.repeats):
            folders = [Path(scratch) / f"{side}-{repeat}" for side in ("bare", "ray")]
            loop, ray_data = bare_in_fresh_process(options, folders[0]), pipeline(options, folders[1])
            assert content(folders[0]) == content(folders[1]), "the two sides disagree"
            times["loop"].append(loop)
            times["Ray Data"].append(ray_data)
            print(
                f"{len(loop)} blocks: loop {loop[-1] - loop[0]:.1f} s ({loop[-1]:.1f} s with start), "
                f"Ray Data {ray_data[-1] - ray_data[0]:.1f} s ({ray_data[-1]:.1f} s with start)",
                flush=True,
            )
    ray.shutdown()
    for what, seconds in (("left out", blocks_alone), ("included", lambda stamps: stamps[-1])):
        loop, ray_data = ([seconds(stamps) for stamps in times[side]] for side in ("loop", "Ray Data"))
        fastest, middle = min(ray_data) / min(loop), statistics.median(ray_data) / statistics.median(loop)
        print(
            f"Ray Data / bare loop, engine start {what}: {fastest:.3f} by the fastest run of each, {middle:.3f} by "
            f"the medians (wanted: {WANTED})"
        )


def blocks_alone(stamps: list[float]) -> float:
    """Seconds of all blocks but the first, whose time holds the engine's start."""
    return stamps[-1] - stamps[0]


if __name__ == "__main__":
    main()
