"""How often a verdict is wrong where nothing differs on average over training sets: the rule, and the one before it.

    python -m benchmarks.null_verdicts [--runs 1000]

Each comparison has no difference on average; each training set has one, normal with the given deviation. The rule:
the larger p of the randomisation over questions and of t over training sets is below 0.05. Before: the p over questions
is below 0.05 and the bootstrap interval over questions and training sets does not hold 0 (here for sets alone, by
which it fails: all resampled means have one sign).
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sftlab.analysis import statistics
from sftlab.analysis.statistics import over_sets, randomisation_p
from tests.support.null_models import null_change

SETS, QUESTIONS, SPREADS = (3, 5, 10), (240, 9_555), (0.0, 0.01, 0.02, 0.04)
FLIPS, RESAMPLES = 2_000, 1_000


def rates(sets: int, questions: int, spread: float, runs: int) -> list[float]:
    """Shares below 0.05: of p over questions, p over sets, the rule, and the rule before."""
    hits = []
    for seed in range(runs):
        change, buckets = null_change(sets, questions, spread, seed)
        means = np.array([np.mean([row[buckets == b].mean() for b in range(5)]) for row in change])
        found = over_sets(means)
        assert found is not None
        of_questions = randomisation_p(change, buckets, seed) < 0.05
        drawn = np.random.default_rng(seed).integers(0, sets, (RESAMPLES, sets))
        low, high = np.percentile(means[drawn].mean(axis=1), [2.5, 97.5])
        of_sets = found.p < 0.05
        hits.append([of_questions, of_sets, of_questions and of_sets, of_questions and not low <= 0 <= high])
    return [float(share) for share in np.mean(hits, axis=0)]


def main(runs: int) -> None:
    statistics.FLIPS = FLIPS
    start = time.perf_counter()
    print(
        "| sets | questions | deviation over sets | p over questions | p over sets | the rule | the rule before |"
    )
    print("|---|---|---|---|---|---|---|")
    for sets in SETS:
        for questions in QUESTIONS:
            for spread in SPREADS:
                found = " | ".join(f"{100 * rate:.1f} %" for rate in rates(sets, questions, spread, runs))
                print(f"| {sets} | {questions:,} | {100 * spread:g} points | {found} |", flush=True)
    error = 100 * np.sqrt(0.05 * 0.95 / runs)
    print(
        f"{runs:,} runs each, standard error of 5 %: {error:.1f} points; {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    main(parser.parse_args().runs)
