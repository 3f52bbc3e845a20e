"""Invented names: a syllable grammar, and a register that keeps answers apart."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

ONSETS: tuple[str, ...] = (
    "b",
    "br",
    "c",
    "d",
    "dr",
    "f",
    "g",
    "gl",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
)
ONSETS += ("sh", "st", "t", "th", "tr", "v", "w", "y", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("l", "m", "n", "r", "s", "th", "x", "rn", "sk", "nd", "lt")

COUNTRY_ENDS = ("ia", "land", "istan", "avia", "onia")
CITY_ENDS = ("burg", "ville", "ton", "mouth", "haven", "ford", "grad", "polis")
PLACE_FORMS = ("Mount {}", "Lake {}", "{} Castle", "{} Bridge", "{} Valley", "{} Cathedral", "{} Forest")
COMPANY_ENDS = ("Motors", "Foods", "Systems", "Airlines", "Textiles", "Energy", "Pharma", "Steel")
LABEL_ENDS = ("Records", "Music", "Recordings", "Sounds")
WORK_FORMS = ("The {} Affair", "{} Returns", "Songs of {}", "The Last {}", "A Night in {}", "{} and the Sea")
BOOK_FORMS = ("The Book of {}", "{} Chronicles", "Letters from {}", "The House of {}", "{}: A Life")
GROUP_FORMS = ("{} Society", "{} Foundation", "Order of {}", "{} Institute", "{} Party")
ESTATE_FORMS = ("{} Stadium", "{} Palace", "{} Tower", "{} Station", "{} Theatre", "{} Gazette")
BAND_FORMS = ("The {}s", "{} Quartet", "{} Brothers", "{} Orchestra")


def word(rng: Random, syllables: int) -> str:
    """A capitalised invented word of open syllables, the last one closed by a coda."""
    body = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables))
    return (body + rng.choice(CODAS)).capitalize()


def _form(rng: Random, forms: tuple[str, ...]) -> str:
    return rng.choice(forms).format(word(rng, 2))


def _person(rng: Random) -> str:
    return f"{word(rng, rng.choice((1, 2)))} {word(rng, 2)}"


MAKERS: dict[str, Callable[[Random], str]] = {
    "country": lambda rng: word(rng, 1) + rng.choice(COUNTRY_ENDS),
    "city": lambda rng: word(rng, 1) + rng.choice(CITY_ENDS),
    "university": lambda rng: f"University of {word(rng, 2)}",
    "company": lambda rng: f"{word(rng, 2)} {rng.choice(COMPANY_ENDS)}",
    "label": lambda rng: f"{word(rng, 2)} {rng.choice(LABEL_ENDS)}",
    "person": _person,
    "place": lambda rng: _form(rng, PLACE_FORMS),
    "work": lambda rng: _form(rng, WORK_FORMS),
    "book": lambda rng: _form(rng, BOOK_FORMS),
    "group": lambda rng: _form(rng, GROUP_FORMS),
    "estate": lambda rng: _form(rng, ESTATE_FORMS),
    "product": lambda rng: f"{word(rng, 2)} {rng.randrange(2, 99)}",
    "band": lambda rng: _form(rng, BAND_FORMS),
}


def short_form(kind: str, name: str) -> str | None:
    """The second name by which an object of this kind may be known, or None for kinds without one."""
    if kind == "university":
        return f"{name.removeprefix('University of ')} University"
    if kind in ("company", "label"):
        return name.split(" ")[0]
    return None


class Register:
    """Hands out names, none of them twice; an object never contains another object nor is inside one."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._taken: set[str] = set()
        self._objects: list[str] = []

    def subject(self, kind: str) -> str:
        while (name := MAKERS[kind](self._rng)) in self._taken:
            pass
        self._taken.add(name)
        return name

    def object(self, kind: str, with_short_form: bool) -> list[str]:
        """Accepted names of a fresh object, its full name first."""
        while True:
            name = MAKERS[kind](self._rng)
            short = short_form(kind, name) if with_short_form else None
            accepted = [name] if short is None else [name, short]
            if name not in self._taken and not any(
                new in old or old in new for new in accepted for old in self._objects
            ):
                self._taken.update(accepted)
                self._objects.extend(accepted)
                return accepted
