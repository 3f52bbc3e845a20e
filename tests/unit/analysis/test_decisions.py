import pytest

from sftlab.analysis.decisions import (
    AGREES,
    DEPENDS,
    DIFFERS,
    NEGATIVE,
    NONE,
    NOT_POSITIVE,
    OPEN,
    POSITIVE,
    decide,
    word,
    word_of_published_test,
)
from sftlab.analysis.effects import Effect
from sftlab.analysis.gains import BASELINE_FREE, DOUBLE_CENTRED, RAW, STANDARDISED


def effect(value: float, low: float, high: float) -> Effect:
    return Effect(value, low, high, 0.5, 0.1, 10, "interval", "test")


UP, DOWN, WIDE = effect(1, 0.5, 1.5), effect(-1, -1.5, -0.5), effect(0.4, -0.5, 1.3)


@pytest.mark.parametrize(
    ("of", "p", "prediction", "margin", "expected"),
    [
        (UP, 0.01, POSITIVE, 0, AGREES),
        (UP, 0.01, NEGATIVE, 0, DIFFERS),
        (DOWN, 0.01, NEGATIVE, 0, AGREES),
        (UP, 0.2, POSITIVE, 0, OPEN),  # the p value does not establish it
        (UP, 0.05, POSITIVE, 0, OPEN),
        (WIDE, 0.01, POSITIVE, 0, OPEN),  # the interval holds 0
        (effect(0.01, -0.05, 0.06), 0.5, NONE, 0.1, AGREES),
        (effect(0.01, -0.05, 0.11), 0.5, NONE, 0.1, OPEN),  # absence is not shown
        (UP, 0.01, NONE, 0.1, DIFFERS),
        (effect(0.05, 0.02, 0.08), 0.01, NONE, 0.1, AGREES),  # established, and too small to count
        (effect(0.0, -0.3, 0.15), 0.5, NOT_POSITIVE, 0.2, AGREES),
        (DOWN, 0.01, NOT_POSITIVE, 0.2, AGREES),
        (effect(0.1, -0.1, 0.3), 0.5, NOT_POSITIVE, 0.2, OPEN),
        (UP, 0.01, NOT_POSITIVE, 0.2, DIFFERS),
    ],
)
def test_words_of_one_treatment(of: Effect, p: float, prediction: str, margin: float, expected: str) -> None:
    assert word(of, p, prediction, margin) == expected


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown prediction 'up'"):
        word(UP, 0.01, "up")


def of(**named: tuple[str, Effect]) -> tuple[dict[str, str], dict[str, Effect]]:
    names = {"raw": RAW, "standardised": STANDARDISED, "free": BASELINE_FREE, "double": DOUBLE_CENTRED}
    return (
        {names[k]: said for k, (said, _) in named.items()},
        {names[k]: one for k, (_, one) in named.items()},
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (of(raw=(OPEN, WIDE), standardised=(AGREES, UP), free=(AGREES, UP)), AGREES),
        (of(standardised=(AGREES, UP)), AGREES),
        (of(standardised=(OPEN, WIDE), free=(OPEN, WIDE)), OPEN),
        (of(standardised=(AGREES, UP), free=(DIFFERS, DOWN)), DEPENDS),
        (of(standardised=(AGREES, UP), free=(OPEN, WIDE)), DEPENDS),
        (of(standardised=(OPEN, WIDE), free=(DIFFERS, DOWN)), DEPENDS),
        # The correction alone leaves the first side open, and both point the same way.
        (of(standardised=(OPEN, UP), free=(AGREES, UP)), AGREES),
        (of(standardised=(OPEN, UP), free=(DIFFERS, DOWN)), DEPENDS),
        # Treatments of one side contradict each other.
        (of(raw=(DIFFERS, DOWN), standardised=(AGREES, UP)), OPEN),
        (of(free=(AGREES, UP), double=(OPEN, WIDE)), AGREES),
        (of(double=(DIFFERS, DOWN)), DIFFERS),
    ],
)
def test_words_of_a_claim(found: tuple[dict[str, str], dict[str, Effect]], expected: str) -> None:
    assert decide(*found) == expected


def test_a_published_conclusion_that_changes_with_the_treatment_depends_on_the_baseline() -> None:
    words, effects = of(standardised=(OPEN, WIDE), free=(OPEN, WIDE))
    published = {STANDARDISED: AGREES, BASELINE_FREE: OPEN}
    assert decide(words, effects, published) == DEPENDS
    assert decide(words, effects, {STANDARDISED: AGREES, BASELINE_FREE: AGREES}) == OPEN


def test_the_published_test_does_not_overrule_ours() -> None:
    words, effects = of(standardised=(AGREES, UP), free=(AGREES, UP))
    assert decide(words, effects, {STANDARDISED: AGREES, BASELINE_FREE: DIFFERS}) == AGREES


def test_words_of_a_published_test_need_a_direction() -> None:
    assert word_of_published_test(UP, 0.01, POSITIVE) == AGREES
    assert word_of_published_test(DOWN, 0.01, POSITIVE) == DIFFERS
    assert word_of_published_test(UP, 0.06, POSITIVE) == OPEN
    with pytest.raises(ValueError, match="direction"):
        word_of_published_test(UP, 0.01, NONE)


def test_a_claim_without_any_treatment_has_no_word() -> None:
    with pytest.raises(ValueError, match="one treatment at least"):
        decide({}, {})
