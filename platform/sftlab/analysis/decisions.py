"""How a claim is worded: the only place where numbers become 'agrees', 'differs', 'open' or 'depends ...'.

1. A claim predicts one of: an effect above 0 (`positive`), below 0 (`negative`), an effect no larger than a
   margin in either direction (`none`), or no advantage beyond a margin (`not positive`).
2. Each treatment of the gains has its word. The p value is Holm-corrected over the claims of that treatment.
   - An effect is established where p < 0.05 and the 95 % interval does not contain 0.
   - `positive`, `negative`: an established effect *agrees* in the predicted direction and *differs* in the
     other; anything else is *open*.
   - `none`: *differs* where an effect is established whose interval is not inside the margin; *agrees* where the
     whole interval is inside the margin; otherwise *open*. Absence of evidence is no evidence of absence.
   - `not positive`: *differs* where a positive effect is established that reaches the margin; *agrees* where
     the interval ends below the margin; otherwise *open*.
3. Treatments that use the baseline form one side, treatments that do not the other. A side's word is that of its
   treatments if they agree with each other, otherwise *open*.
4. Both sides alike, or only one side defined: that word. Otherwise: *depends on the baseline*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sftlab.analysis.effects import LEVEL, Effect
from sftlab.analysis.gains import USES_BASELINE

AGREES: Final = "agrees"
DIFFERS: Final = "differs"
OPEN: Final = "open"
DEPENDS: Final = "depends on the baseline"
WORDS: Final = (AGREES, DIFFERS, OPEN, DEPENDS)

POSITIVE: Final = "positive"
NEGATIVE: Final = "negative"
NONE: Final = "none"
NOT_POSITIVE: Final = "not positive"
PREDICTIONS: Final = (POSITIVE, NEGATIVE, NONE, NOT_POSITIVE)


def word(effect: Effect, corrected_p: float, prediction: str, margin: float = 0.0) -> str:
    """The word of one treatment (rule 2 of this file)."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"unknown prediction {prediction!r}; expected one of {', '.join(PREDICTIONS)}")
    established = corrected_p < LEVEL and not effect.low <= 0 <= effect.high
    if prediction in (POSITIVE, NEGATIVE):
        if not established:
            return OPEN
        return AGREES if (effect.value > 0) == (prediction == POSITIVE) else DIFFERS
    if prediction == NONE:
        if -margin < effect.low and effect.high < margin:
            return AGREES
        return DIFFERS if established else OPEN
    if effect.high < margin:
        return AGREES
    return DIFFERS if established and effect.value >= margin else OPEN


def decide(words: Mapping[str, str]) -> str:
    """The word of a claim from those of its treatments (rules 3 and 4); `words` by treatment, at least one."""
    sides = [
        _side(said for name, said in words.items() if USES_BASELINE[name] is uses)
        for uses in (True, False)
        if any(USES_BASELINE[name] is uses for name in words)
    ]
    if not sides:
        raise ValueError("a claim needs the word of one treatment at least")
    return sides[0] if len(set(sides)) == 1 else DEPENDS


def _side(words: Iterable[str]) -> str:
    found = set(words)
    return found.pop() if len(found) == 1 else OPEN
