"""How numbers and names are written in the report: one place, so that all of it agrees."""

from __future__ import annotations

from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"
RESTORE = "restore"

# What a percentage of a strategy's ladder does to the tuned model; {} is the percentage.
LADDERS = {
    "restore": "restore {} of the weights",
    "ties": "undo the smallest {} of the updates",
    "wise-ft": "move all weights {} of the way back to the base model",
    "dare": "drop {} of the updates at random and rescale the others",
}


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as '62.2 %' with a no-break space."""
    return f"{number(100 * share, digits)}\N{NO-BREAK SPACE}%"


def number(value: float, digits: int = 1) -> str:
    """Fixed digits with a proper minus sign; never '-0.0'."""
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, signed: '+3.4', '\N{MINUS SIGN}0.2'."""
    text = number(100 * difference, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def restored(percentage: float) -> str:
    """A restore percentage without needless zeros: '10 %', '2.5 %'."""
    return f"{percentage:g}\N{NO-BREAK SPACE}%"


def step_words(strategy: str, percent: float) -> str:
    """What the strategy does at a percentage: 'restore 10 % of the weights'; '' at 0 %."""
    if not percent:
        return ""
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


def plus_minus(mean: str, deviation: str | None) -> str:
    """'58.3 ± 0.4'; the mean alone where there is no deviation."""
    return mean if deviation is None else f"{mean} ± {deviation}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """'1 fact', '1,920 facts'."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def between(low: str, high: str) -> str:
    """'12.1 to 93.4', or one of the two where both are written alike."""
    return low if low == high else f"{low} to {high}"


def listed(words: Sequence[str], joint: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {joint} {words[-1]}"
