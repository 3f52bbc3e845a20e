"""How numbers and names are written in the report: one place, so that all of it agrees."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

MINUS = "\N{MINUS SIGN}"
UNDEFINED = "\N{EN DASH}"


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as '62.2 %' with a no-break space."""
    return f"{number(100 * share, digits)}\N{NO-BREAK SPACE}%"


def number(value: float, digits: int = 1) -> str:
    """Fixed digits with a proper minus sign; never '-0.0'. A dash for what is not defined (NaN)."""
    if isnan(value):
        return UNDEFINED
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, signed: '+3.4', '\N{MINUS SIGN}0.2'."""
    text = number(100 * difference, digits)
    if text == UNDEFINED:
        return text
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def restored(percentage: float) -> str:
    """A restore percentage without needless zeros: '10 %', '2.5 %'."""
    return f"{percentage:g}\N{NO-BREAK SPACE}%"


def plus_minus(mean: str, deviation: str | None) -> str:
    """'58.3 ± 0.4'; the mean alone where there is no deviation."""
    return mean if deviation is None else f"{mean} ± {deviation}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """'1 fact', '1,920 facts'."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def short_count(value: float) -> str:
    """'950', '24.8 k', '1.8 G': a large number to three digits."""
    for unit in ("", " k", " M", " G"):
        if value < 1000 or unit == " G":
            break
        value /= 1000
    return f"{value:,.0f}{unit}" if value >= 100 or not unit else f"{value:,.1f}{unit}"


def between(low: str, high: str) -> str:
    """'12.1 to 93.4', or one of the two where both are written alike."""
    return low if low == high else f"{low} to {high}"


def listed(words: Sequence[str], joint: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {joint} {words[-1]}"
