"""Ranks training sets for a base model before anything is trained (`sftlab rank`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftlab.analysis.ranking import Prediction, mean_draws, places, predict
from sftlab.analysis.similarity import tfidf_similarity
from sftlab.analysis.statistics import seed_of
from sftlab.datasets.conversations import Conversation
from sftlab.datasets.draw import draw
from sftlab.datasets.encode import Encoder
from sftlab.datasets.overlap import Overlap, read_questions, words
from sftlab.datasets.source import open_data
from sftlab.datasets.spec import DataFileSpec
from sftlab.errors import UserError
from sftlab.measurements.rendered_likelihood import RESPONSE, perplexity_rows
from sftlab.measurements.spec import LikelihoodSpec
from sftlab.studies.survey.known_gains import PREDICTORS, KnownGains
from sftlab.studies.survey.stages.results import perplexities

if TYPE_CHECKING:
    import pyarrow as pa

    from sftlab.measurements.likelihood import LogLikelihoods

NGRAM = 13  # words that a question and an example share, as common for contamination


@dataclass(frozen=True)
class Candidate:
    """A training set as it is before it is trained on.

    Attributes:
        distinct, repeated: examples of the whole file.
        examples: drawn ones that are measured; too_long: drawn ones that the limit leaves out.
        tokens: of the measured examples, prompts included.
        overlap: by benchmark, how many of its questions occur in the measured examples, and of how many.
        similarity: by benchmark, in [0, 1]; None without words.
    """

    name: str
    source: str
    distinct: int
    repeated: int
    examples: int
    too_long: int
    tokens: int
    conversations: tuple[Conversation, ...]
    overlap: dict[str, tuple[int, int]]
    similarity: dict[str, float | None]

    @property
    def share_too_long(self) -> float:
        return self.too_long / (self.examples + self.too_long)


@dataclass(frozen=True)
class Ranked:
    """A candidate with its perplexity, its predicted gain, and the places that it may have (1 the best)."""

    candidate: Candidate
    perplexity: dict[str, Any]
    response_interval: tuple[float, float]
    gain: tuple[float, float, float] | None
    places: tuple[int, int]


@dataclass(frozen=True)
class Ranking:
    """Candidates in their order, and what the order is by."""

    ranked: Sequence[Ranked]
    known: KnownGains
    prediction: Prediction | None

    @property
    def by(self) -> str:
        return "predicted gain" if self.prediction is not None else "perplexity of the responses"


@dataclass(frozen=True)
class Reading:
    """How candidates are read: examples of each, seed of the draw, and longest example in tokens (None: any)."""

    examples: int = 1000
    seed: int = 0
    max_tokens: int | None = None


def read_candidates(
    files: Sequence[Path], encoder: Encoder, reading: Reading, benchmarks: Sequence[Path] = ()
) -> list[Candidate]:
    """Read every file. Raises UserError naming the file and row for what cannot be trained on."""
    questions = {str(path): read_questions(path) for path in benchmarks}
    names = names_of(files)
    return [
        _candidate(name, path, encoder, reading, questions) for name, path in zip(names, files, strict=True)
    ]


def names_of(files: Sequence[Path]) -> list[str]:
    """What candidates are called: the names of the files, or their paths where two names are equal."""
    if len({file.resolve() for file in files}) < len(files):
        raise UserError("a file is given twice", place="--data", advice="give each candidate once.")
    short = [file.name.split(".")[0] for file in files]
    return [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]


def _candidate(
    name: str, path: Path, encoder: Encoder, reading: Reading, questions: dict[str, list[str]]
) -> Candidate:
    conversations = open_data(DataFileSpec(source=str(path))).conversations()
    every = draw(conversations, reading.examples, reading.seed, name=str(path), fewer=True)
    drawn = every.examples
    lengths = [len(found.ids) for found in encoder.encode_all(drawn)]
    limit = reading.max_tokens
    kept = [n for n, length in enumerate(lengths) if limit is None or length <= limit]
    if not kept:
        raise UserError(
            f"all {len(drawn):,} examples are longer than {limit} tokens",
            place=str(path),
            advice="raise --max-tokens.",
        )
    examples = tuple(drawn[n] for n in kept)
    overlap, similarity = {}, {}
    texts = [words(" ".join(turn.text for turn in example.turns)) for example in examples]
    for benchmark, asked in questions.items():
        found = Overlap(benchmark, asked, NGRAM)
        for example in examples:
            found.add(example)
        overlap[benchmark] = (len(found.found), found.questions)
        similarity[benchmark] = tfidf_similarity(texts, [words(text) for text in asked])
    return Candidate(
        name=name,
        source=str(path),
        distinct=every.distinct,
        repeated=every.repeated,
        examples=len(examples),
        too_long=len(drawn) - len(examples),
        tokens=sum(lengths[n] for n in kept),
        conversations=examples,
        overlap=overlap,
        similarity=similarity,
    )


def likelihoods_of(candidate: Candidate, encoder: Encoder) -> LogLikelihoods:
    """What an engine measures of a candidate."""
    from sftlab.measurements.likelihood import LogLikelihoods

    return LogLikelihoods(tuple(perplexity_rows(encoder.template, candidate.conversations)), LikelihoodSpec())


def rank(
    candidates: Sequence[Candidate], tables: Sequence[pa.Table], known: KnownGains, seed: int = 0
) -> Ranking:
    """Order candidates by predicted gain, or by perplexity where the store has too few surveys to predict from.

    tables: of each candidate its log-likelihoods. Raises UserError where nothing of a candidate could be scored.
    """
    rows = [table.to_pylist() for table in tables]
    found = [perplexities(one) for one in rows]
    for candidate, one, values in zip(candidates, rows, found, strict=True):
        if values["response"] is None:
            raise UserError(
                f"no example could be scored ({one[0]['error']})", place=candidate.source,
                advice="give shorter examples, or a model with a longer context.",
            )  # fmt: skip
    losses = np.stack(
        [_loss_draws(one, seed_of("rank", seed, c.source)) for c, one in zip(candidates, rows, strict=True)],
        axis=1,
    )
    prediction = None
    if known.known.enough:
        wanted = np.log([[values[name] for name in PREDICTORS] for values in found])
        prediction = predict(known.known, wanted, seed_of("rank", seed))
    compared = -losses if prediction is None else prediction.draws
    score = -np.log([values["response"] for values in found]) if prediction is None else prediction.gain
    spots = places(compared)
    low, high = np.exp(np.quantile(losses, [0.025, 0.975], axis=0))
    ranked = [
        Ranked(
            candidate,
            found[n],
            (float(low[n]), float(high[n])),
            None
            if prediction is None
            else (float(prediction.gain[n]), float(prediction.low[n]), float(prediction.high[n])),
            spots[n],
        )
        for n, candidate in enumerate(candidates)
    ]
    order = sorted(range(len(ranked)), key=lambda n: (-float(score[n]), n))
    return Ranking([ranked[n] for n in order], known, prediction)


def _loss_draws(rows: Sequence[dict[str, Any]], seed: int) -> Any:
    """Bootstrap draws over examples of the mean loss of a response token, in nats."""
    kept = [row for row in rows if row["error"] is None and row["key"].startswith(f"{RESPONSE}/")]
    return mean_draws([-row["log_likelihood"] for row in kept], [row["tokens"] for row in kept], seed)


def ties(ranking: Ranking) -> str:
    """Which candidates may be the first, in words: 'not distinguishable: 1-3'."""
    first = [number for number, one in enumerate(ranking.ranked, start=1) if one.places[0] == 1]
    if len(ranking.ranked) == 1:
        return "one candidate: nothing to compare"
    if first == [1]:
        return f"distinguishable: {ranking.ranked[0].candidate.name} is the first"
    together = first == list(range(1, len(first) + 1))
    return f"not distinguishable: {f'1-{len(first)}' if together else ', '.join(map(str, first))}"


def ranking_json(ranking: Ranking, model: str, gpu_hours: Sequence[float | None]) -> dict[str, Any]:
    """A ranking as JSON values; gpu_hours: of one epoch on the examples of each, in the order of the ranking."""
    prediction, known = ranking.prediction, ranking.known
    rows = []
    for number, (one, hours) in enumerate(zip(ranking.ranked, gpu_hours, strict=True), start=1):
        values = asdict(one.candidate)
        values.pop("conversations")
        values["overlap"] = {
            name: {"found": found, "questions": of} for name, (found, of) in one.candidate.overlap.items()
        }
        gain = None if one.gain is None else dict(zip(("gain", "low", "high"), one.gain, strict=True))
        rows.append(
            {
                "rank": number,
                "places": list(one.places),
                **values,
                "share_too_long": one.candidate.share_too_long,
                "perplexity": {**one.perplexity, "response_interval": list(one.response_interval)},
                "predicted_gain": gain,
                "gpu_hours_per_epoch": hours,
            }
        )
    return {
        "model": model,
        "by": ranking.by,
        "ties": ties(ranking),
        "candidates": rows,
        "prediction": None
        if prediction is None
        else {
            "predictors": [f"log {name}" for name in PREDICTORS],
            "coefficients": prediction.coefficients.tolist(),
            "r2_leave_one_model_out": None if np.isnan(prediction.r2) else prediction.r2,
        },
        "surveys": list(known.surveys),
        "surveys_left_out": list(known.left_out),
    }
