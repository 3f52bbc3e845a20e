"""The numbers behind a map of models: whether models with the same label are near each other, beyond chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftlab.analysis.effects import permutation_p
from sftlab.analysis.geometry.labels import (
    Groups,
    SquareDistances,
    label_codes,
    silhouettes,
    square_distances_by_label,
)
from sftlab.analysis.geometry.neighbours import Floats, Indices, square_distances

SHUFFLES = 999
SMALLEST = 4  # points of which t-SNE makes a picture
EXACT_UP_TO = 2000  # points; beyond, t-SNE approximates (Barnes-Hut)


@dataclass(frozen=True)
class Grouping:
    """How near to each other points with one label are.

    silhouette, nearest: the mean silhouette, and the share of points whose nearest neighbour has the same label. Each
    has its mean under shuffled labels and a one-sided p. squares: mean squared distances within and between labels.
    """

    groups: int
    silhouette: float
    silhouette_chance: float
    silhouette_p: float
    nearest: float
    nearest_chance: float
    nearest_p: float
    squares: SquareDistances


def grouping(
    points: npt.ArrayLike, labels: Groups, blocks: Groups, seed: int, shuffles: int = SHUFFLES
) -> Grouping | None:
    """The numbers for one label, with a null of labels that are shuffled as `shuffled` does.

    None where there is one label alone, or where no shuffle changes anything.
    """
    given = np.asarray(points, dtype=np.float64)
    codes, block_codes = label_codes(labels), label_codes(blocks)
    if codes.max(initial=0) == 0 or not _can_shuffle(codes, block_codes):
        return None
    distances = _distances(given)
    nearest = np.where(np.eye(len(given), dtype=bool), np.inf, distances).argmin(axis=1)
    rng = np.random.default_rng(seed)
    drawn = [shuffled(codes, block_codes, rng) for _ in range(shuffles)]
    found, alike = silhouettes(distances, codes) / len(codes), _same(codes, nearest)
    null = [silhouettes(distances, one) / len(codes) for one in drawn]
    alike_null = [_same(one, nearest) for one in drawn]
    return Grouping(
        int(codes.max()) + 1,
        found,
        float(np.mean(null)),
        permutation_p(null, found, two_sided=False),
        alike,
        float(np.mean(alike_null)),
        permutation_p(alike_null, alike, two_sided=False),
        square_distances_by_label(given, labels),
    )


def shuffled(codes: Indices, blocks: Indices, rng: np.random.Generator) -> Indices:
    """Labels in another order: where each block has one label, blocks exchange theirs; else labels move within blocks.

    Models of one base are a block. They are no independent observations, so the families of bases are shuffled over
    whole bases, and the training sets of models within each base.
    """
    of_block = _of_block(codes, blocks)
    if of_block is not None:
        exchanged: Indices = rng.permutation(of_block)[blocks]
        return exchanged
    moved = codes.copy()
    for block in range(int(blocks.max()) + 1):
        here = np.flatnonzero(blocks == block)
        moved[here] = codes[rng.permutation(here)]
    return moved


def coordinates(points: npt.ArrayLike, seed: int = 0) -> Floats | None:
    """t-SNE of points to the plane, [points, 2], from a start by PCA; None for fewer points than SMALLEST.

    The perplexity is 30, and less for fewer than 91 points. The same points and seed give the same picture.
    """
    from sklearn.manifold import TSNE

    given = np.asarray(points, dtype=np.float64)
    if len(given) < SMALLEST:
        return None
    method = "exact" if len(given) <= EXACT_UP_TO else "barnes_hut"
    made = TSNE(
        n_components=2,
        init="pca",
        perplexity=min(30.0, (len(given) - 1) / 3),
        method=method,
        random_state=seed,
    )
    found: Floats = made.fit_transform(given).astype(np.float64)
    return found


def _of_block(codes: Indices, blocks: Indices) -> Indices | None:
    """The label of each block; None where a block has several."""
    found = np.array([codes[blocks == block][0] for block in range(int(blocks.max()) + 1)], dtype=np.int64)
    return found if (found[blocks] == codes).all() else None


def _can_shuffle(codes: Indices, blocks: Indices) -> bool:
    """Whether a shuffle gives other groups of points: more than one block has, or one block has more than one label."""
    of_block = _of_block(codes, blocks)
    return of_block is None or np.bincount(of_block).max() > 1


def _same(codes: Indices, nearest: Indices) -> float:
    return float((codes[nearest] == codes).mean())


def _distances(points: Floats) -> Floats:
    squares = np.concatenate([block for _, block in square_distances(points - points.mean(axis=0))])
    np.fill_diagonal(squares, 0.0)
    found: Floats = np.sqrt(squares)
    return found
