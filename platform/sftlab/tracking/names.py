"""Names and values in the form that MLflow accepts and its user interface shows well."""

from __future__ import annotations

import re

# MLflow's limits (utils/validation.py): 250 characters a key, 6,000 a parameter, 8,000 a tag.
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
MODEL_NAME_LENGTH = 200


def key(name: str) -> str:
    """A parameter, metric or tag key: letters, digits and `_ . - / space`, and no empty path parts.

    >>> key("kl (first token): 50%//a")
    'kl _first token__ 50_/a'
    """
    parts = [re.sub(r"[^\w.\- ]", "_", part).strip() for part in name.split("/")]
    kept = "/".join(part for part in parts if part.strip("."))
    return shortened(kept or "_", KEY_LENGTH)


def model_name(name: str) -> str:
    """Name of a logged model, in which MLflow forbids `/ : . % ' "`.

    >>> model_name("bucket2 · restored 2.5%")
    'bucket2 · restored 2_5 percent'
    """
    plain = re.sub(r"[/:.'\"]", "_", re.sub(r" ?%", " percent", name))
    return shortened(plain.strip() or "model", MODEL_NAME_LENGTH)


def shortened(text: str, limit: int) -> str:
    """`text`, cut to `limit` characters with a visible mark of how many are missing.

    >>> shortened("a" * 50, 30)
    'aaaaaaaaaaa_ 39 characters cut'
    """
    if len(text) <= limit:
        return text
    mark = f"_ {len(text)} characters cut"
    kept = limit - len(mark)
    return text[:kept] + f"_ {len(text) - kept} characters cut"


def percent_text(percent: float) -> str:
    """Percentage without needless zeros: 10.0 is '10', 2.5 is '2.5'."""
    return f"{percent:g}"
