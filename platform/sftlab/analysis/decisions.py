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
3. Treatments that use the baseline form one side, treatments that do not the other. A side has the word of its
   main treatment, standardised or baseline-free, and where the claim has none the other's (raw, double-centred).
   It is *open* where the other treatment establishes the opposite.
4. Both sides alike, or only one side defined: that word. Where one side is open and the other is not: the other's
   word if the open side's effect has the same sign and its interval does not contain 0, so that the correction
   alone leaves it open. In all other cases: *depends on the baseline*.
5. A claim that was published with a test is decided a second time by that test, uncorrected. Where rule 4 leaves the
   claim open and the published test makes it depend on the baseline, so it is worded: the published conclusion
   changes with the treatment, and the stricter test does not decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sftlab.analysis.effects import LEVEL, Effect
from sftlab.analysis.gains import BASELINE_FREE, DOUBLE_CENTRED, RAW, STANDARDISED

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
        return _directed(effect.value, established, prediction)
    if prediction == NONE:
        if -margin < effect.low and effect.high < margin:
            return AGREES
        return DIFFERS if established else OPEN
    if effect.high < margin:
        return AGREES
    return DIFFERS if established and effect.value >= margin else OPEN


def word_of_published_test(effect: Effect, p: float, prediction: str) -> str:
    """The word of one treatment by the published test alone (rule 5): a direction, and p < 0.05."""
    if prediction not in (POSITIVE, NEGATIVE):
        raise ValueError("a published test needs a predicted direction")
    return _directed(effect.value, p < LEVEL, prediction)


def decide(
    words: Mapping[str, str], effects: Mapping[str, Effect], published: Mapping[str, str] | None = None
) -> str:
    """The word of a claim from those of its treatments (rules 3 to 5); at least one, by treatment.

    Args:
        words: by our test.
        effects: of the same treatments.
        published: words by the published test, where there is one.
    """
    found = _of_sides(words, effects)
    if found == OPEN and published and _of_sides(published, effects) == DEPENDS:
        return DEPENDS
    return found


def _of_sides(words: Mapping[str, str], effects: Mapping[str, Effect]) -> str:
    sides = [
        (main if main in words else other, _side(words, main, other))
        for main, other in ((STANDARDISED, RAW), (BASELINE_FREE, DOUBLE_CENTRED))
        if main in words or other in words
    ]
    if not sides:
        raise ValueError("a claim needs the word of one treatment at least")
    if len({said for _, said in sides}) == 1:
        return sides[0][1]
    unsettled = [effects[name] for name, said in sides if said == OPEN]
    settled = [(effects[name], said) for name, said in sides if said != OPEN]
    if unsettled and _alike(unsettled[0], settled[0][0]):
        return settled[0][1]
    return DEPENDS


def _alike(unsettled: Effect, settled: Effect) -> bool:
    same_sign = (unsettled.value > 0) == (settled.value > 0)
    return same_sign and not unsettled.low <= 0 <= unsettled.high


def _side(words: Mapping[str, str], main: str, other: str) -> str:
    if main not in words:
        return words[other]
    return OPEN if {words[main], words.get(other)} == {AGREES, DIFFERS} else words[main]


def _directed(value: float, established: bool, prediction: str) -> str:
    if not established:
        return OPEN
    return AGREES if (value > 0) == (prediction == POSITIVE) else DIFFERS
