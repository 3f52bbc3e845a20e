"""Colours, markers and names of buckets and of strategies."""

from __future__ import annotations

from collections.abc import Sequence

from sftlab.reporting.legend import Legend, LegendItem, Shape
from sftlab.reporting.text import listed, restored

# Okabe and Ito's palette, distinguishable under every common colour-blindness, from warm (a fact the base model
# does not know) to cool (one that it knows well). Markers repeat what colours say.
BUCKET_COLOURS = {
    "0": "#D55E00",
    "1": "#E69F00",
    "2": "#009E73",
    "3": "#56B4E9",
    "4": "#0072B2",
    "mixed": "#555555",
}
BUCKET_MARKERS = {"0": "o", "1": "s", "2": "^", "3": "D", "4": "v", "mixed": "P"}
MIXTURE_MARKER = "X"
BUCKET_SHAPES: dict[str, Shape] = {
    "0": "circle",
    "1": "square",
    "2": "triangle",
    "3": "diamond",
    "4": "triangle-down",
}
BASE_MODEL = LegendItem("base model", "#66727f", "dashes")
PAPER = LegendItem("paper", "#b8c2cc")


def bucket_colour(train_bucket: str) -> str:
    """The colour of a train bucket; of a mixture, its buckets' colours mixed by their shares."""
    shares = mixture(train_bucket)
    if not shares:
        return BUCKET_COLOURS[train_bucket]
    total = sum(shares.values())
    channels = [
        sum(int(BUCKET_COLOURS[b][at : at + 2], 16) * share for b, share in shares.items()) / total
        for at in (1, 3, 5)
    ]
    return "#" + "".join(f"{round(channel):02X}" for channel in channels)


def bucket_marker(train_bucket: str) -> str:
    return BUCKET_MARKERS.get(train_bucket, MIXTURE_MARKER)


def legends(train_buckets: Sequence[str]) -> dict[str, Legend]:
    """The legends of a page by section; that of "" is for all others."""
    trained = [
        LegendItem(column_name(bucket), bucket_colour(bucket), BUCKET_SHAPES.get(bucket, "cross"))
        for bucket in train_buckets
    ]
    mastery = [LegendItem(bucket, bucket_colour(bucket)) for bucket in BUCKET_COLOURS if bucket != "mixed"]
    title = "Trained on bucket"
    with_base = Legend(title, [*trained, BASE_MODEL])
    return {
        "": Legend(title, trained),
        "gradients": Legend("Facts of bucket", mastery, "in the right figure, trained on bucket"),
        "mastery": Legend("Mastery bucket", mastery, "0: never right · 4: right more than 3 times in 4"),
        "accuracy": with_base,
        "ladder": with_base,
        "concentration": Legend(title, [*trained, PAPER]),
    }


RESTORE = "restore"

# What a percentage of a strategy's ladder does to the tuned model; {} is the percentage.
LADDERS = {
    "restore": "restore {} of the weights",
    "ties": "undo the smallest {} of the updates",
    "wise-ft": "move all weights {} of the way back to the base model",
    "dare": "drop {} of the updates at random and rescale the others",
}


# What restoring does where a percentage is a share of the change.
SHARES = {"l1": "undo {} of the absolute change", "l2": "undo {} of the squared change"}


def step_words(strategy: str, percent: float, share_of: str = "weights") -> str:
    """What the strategy does at a percentage: 'restore 10 % of the weights'; '' at 0 %."""
    if not percent:
        return ""
    if strategy == RESTORE and share_of in SHARES:
        return SHARES[share_of].format(restored(percent))
    return LADDERS.get(strategy, f"apply {strategy} at {{}}").format(restored(percent))


def state_words(strategy: str, percentage: float) -> str:
    """A model of a ladder: '10 % restored', 'wise-ft at 10 %', 'tuned' at 0 %."""
    if not percentage:
        return "tuned"
    at = restored(percentage)
    return f"{at} restored" if strategy == RESTORE else f"{strategy} at {at}"


def doing(strategy: str) -> str:
    """What is done along a ladder, to begin a clause with: 'restoring', 'wise-ft'."""
    return "restoring" if strategy == RESTORE else strategy


def bucket_name(train_bucket: str) -> str:
    """'bucket 2', 'mixed buckets', or '50 % bucket 0 and 50 % bucket 4' of the mixture '0:0.5+4:0.5'."""
    if train_bucket == "mixed":
        return "mixed buckets"
    shares = mixture(train_bucket)
    if not shares:
        return f"bucket {train_bucket}"
    return listed([f"{restored(100 * share)} bucket {bucket}" for bucket, share in shares.items()])


def column_name(train_bucket: str) -> str:
    """The same, short: '2', 'mixed', '50 % 0 + 50 % 4'."""
    shares = mixture(train_bucket)
    return " + ".join(f"{restored(100 * share)} {bucket}" for bucket, share in shares.items()) or train_bucket


def mixture(train_bucket: str) -> dict[str, float]:
    """Shares in [0, 1] by bucket of a mixture such as '0:0.5+4:0.5'; empty for anything else."""
    parts = [part.partition(":") for part in train_bucket.split("+")]
    return {bucket: float(share) for bucket, colon, share in parts if colon}
