"""Intrinsic dimension, density peaks and label statistics of many points: time and peak memory of one process.

python -m benchmarks.geometry [--points 10000] [--dimensions 128] [--neighbours 1000] [--json FILE]

The points are a mixture of twenty noisy curved surfaces of dimension 5. Targets for 10,000 points of 128 dimensions:
under 20 seconds and 2 GiB, all steps together.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.restoration import peak_bytes
from sftlab.analysis.geometry.density_peaks import density_peaks
from sftlab.analysis.geometry.dimension import dimension_by_scale
from sftlab.analysis.geometry.labels import (
    adjusted_rand_index,
    nearest_share,
    neighbour_consistency,
    silhouette,
)
from sftlab.analysis.geometry.neighbours import distinct, nearest_neighbours

T = TypeVar("T")


def surfaces(points: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Points near twenty surfaces, and the surface of each."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 20, points)
    ways, centres = draw.normal(size=(20, 5, dimensions)), draw.normal(size=(20, dimensions))
    places = np.einsum("ij,ijk->ik", draw.uniform(-1, 1, (points, 5)), ways[labels])
    return np.tanh(places) + 1.5 * centres[labels] + draw.normal(0, 0.02, (points, dimensions)), labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--neighbours", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    points, labels = surfaces(options.points, options.dimensions)
    before, started = peak_bytes(), time.perf_counter()
    seconds: dict[str, float] = {}

    def timed(what: str, work: Callable[[], T]) -> T:
        begin = time.perf_counter()
        result = work()
        seconds[what] = time.perf_counter() - begin
        return result

    kept, _ = timed("repetitions", lambda: distinct(points))
    found = timed("neighbours", lambda: nearest_neighbours(kept, options.neighbours))
    scales = timed("dimension", lambda: dimension_by_scale(found))
    clusters = timed("density peaks", lambda: density_peaks(found, scales[16]))
    groups = labels.tolist()
    index = timed("adjusted Rand index", lambda: adjusted_rand_index(clusters.tolist(), groups))
    timed("consistency", lambda: neighbour_consistency(found, groups, min(300, found.k)))
    share = timed("nearest share", lambda: nearest_share(found, groups))
    width = timed("silhouette", lambda: silhouette(points, groups))
    figures = {
        "seconds": time.perf_counter() - started,
        "peak_gib": peak_bytes() / 2**30,
        "peak_gib_before": before / 2**30,
        "dimension_at_16": scales[16],
        "clusters": int(clusters.max()) + 1,
        "adjusted_rand_index": index,
        "nearest_share": share.share,
        "silhouette": width,
    }
    print(f"{options.points:,} points x {options.dimensions} dimensions, {options.neighbours} neighbours")
    print(", ".join(f"{what} {spent:.1f} s" for what, spent in seconds.items()))
    print(
        f"together {figures['seconds']:.1f} s (target: under 20), peak memory {figures['peak_gib']:.2f} GiB "
        "(target: under 2)"
    )
    print(
        f"dimension {scales[16]:.2f} at n = 16, {figures['clusters']} clusters, adjusted Rand index {index:.3f} with "
        f"the surfaces, nearest neighbour of the same surface {share.share:.1%}, silhouette {width:.2f}"
    )
    if options.json:
        options.json.write_text(json.dumps(figures | {"steps": seconds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
