"""Names as text: one normal form, no invisible ends, and what makes two names the same."""

from __future__ import annotations

import unicodedata

# Letters and signs that show nothing: fillers of Hangul, the blank of Braille, the joiner and selectors of glyphs.
_BLANK = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0") | frozenset(map(chr, range(0xFE00, 0xFE10)))
_INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # they change how letters are written in Persian, in Indic scripts and in emoji


def is_invisible(character: str) -> bool:
    """Whether a character shows nothing: blanks, controls, marks of direction, fillers, selectors."""
    return character in _BLANK or unicodedata.category(character) in _INVISIBLE


def cleaned(name: str) -> str:
    """A name in composed form (NFC) without invisible characters at its ends; "" where nothing is visible.

    >>> cleaned(" \\ufeffLome\\u0301\\u200b\\n") == "Lom\\u00e9"
    True
    """
    if name.isascii() and name.isprintable():
        return name.strip()
    start, end = 0, len(name)
    while start < end and is_invisible(name[start]):
        start += 1
    while end > start and is_invisible(name[end - 1]) and not unicodedata.combining(name[end - 1]):
        if name[end - 1] in _BLANK and "\ufe00" <= name[end - 1] <= "\ufe0f":
            break  # the selector of the visible character before it
        end -= 1
    return unicodedata.normalize("NFC", name[start:end])


def identity(name: str) -> str:
    """What is equal for two writings of one name: NFC, single blanks, no invisible characters.

    >>> identity("New\\u00a0  York\\u200b") == identity("New York")
    True
    """
    words = "".join(" " if _is_space(c) else "" if _is_dropped(c) else c for c in name).split()
    return unicodedata.normalize("NFC", " ".join(words))


def hidden(name: str) -> str:
    """Invisible characters within a name, which hardly any model writes: their code points, or ""."""
    found = dict.fromkeys(c for c in name if c != " " and _is_hidden(c))
    return ", ".join(f"U+{ord(c):04X}" for c in found)


def _is_space(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("Z")


def _is_dropped(character: str) -> bool:
    return is_invisible(character) and character not in _JOINERS


def _is_hidden(character: str) -> bool:
    selector = "\ufe00" <= character <= "\ufe0f"
    return is_invisible(character) and character not in _JOINERS and not selector
