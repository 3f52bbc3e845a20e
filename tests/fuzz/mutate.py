"""Inputs that nobody meant: valid bytes and valid documents, damaged at random by a seeded generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

LARGEST = 1 << 16  # bytes of a mutated input; a reader's own seeds may be larger

TOKENS: tuple[bytes, ...] = (
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0x7fffffffffffffff", b"1:59:59.5"),
    *(str(2**power).encode() for power in (31, 32, 53, 60, 63, 64, 200)),
    *(b"9" * 5000, b"1:" * 300 + b"1", b"0x" + b"f" * 400, b"2020-13-01", b"2001-12-14t21:59:43.10-05:00"),
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", "\u202e".encode(), b"\\ud800", b"\\u0000"),
    *(b"../../etc/passwd", b"/dev/zero", b"C:\\", b"=cmd|' /C calc'!A0", b"<script>alert(1)</script>"),
    *(b"[", b"{", b"]", b"}", b'"', b"'", b":", b",", b"\n", b"\t", b"? ", b"- ", b"|\n", b">\n", b"{subject}"),
    *(b"&a ", b"*a", b"<<: *a", b"%YAML 9.9\n---\n", b"!!python/name:os.system "),
    *(b"!!binary ", b"!!set ", b"!!omap ", b"!!timestamp ", b"!!int ", b"!!bool ", b"!!float ", b"!!pairs "),
)  # fmt: skip

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**60, 2**63, 2**64, -(2**70), 10**400),
    *(0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "\x00",
        "\u202e",
        "é" * 300,
        "../../x",
        "/dev/zero",
        "a" * 5000,
        "=1+1",
        "<b>",
        "1",
        "nan",
        "{subject}",
    ),
    *([], {}, [[]], [None], {"": None}, [1, "1"], ["x"] * 300),
)


def mutated(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    """`data` after one to eight damages; `others` give the pieces that are spliced in."""
    for _ in range(1 + min(int(draw.expovariate(0.7)), 7)):
        data = draw.choice(_DAMAGES)(data, others, draw)[:LARGEST]
    return data


def _flip(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    at, out = draw.randrange(len(data) or 1), bytearray(data or b"\0")
    out[at] ^= 1 << draw.randrange(8)
    return bytes(out)


def _byte(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    at, out = draw.randrange(len(data) or 1), bytearray(data or b"\0")
    out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return bytes(out)


def _truncate(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _cut(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + data[start + draw.randint(1, 40) :]


def _repeat(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.randint(1, 40)]
    return data[:start] + piece * draw.choice((2, 3, 10, 300)) + data[start:]


def _splice(data: bytes, others: Sequence[bytes], draw: Random) -> bytes:
    other = draw.choice(others)
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def _token(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    at, token = draw.randrange(len(data) + 1), draw.choice(TOKENS)
    return data[:at] + token + data[at + draw.choice((0, 0, len(token))) :]


def _nest(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return (
        data[:at]
        + draw.choice((b"[", b"{", b'{"a":', b"- ", b"[[", b"? ")) * draw.choice((5, 90, 3000))
        + data[at:]
    )


def _integer(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    """A binary number of 2, 4 or 8 bytes at some place, such as a length or an offset."""
    width = draw.choice((2, 4, 8))
    value = draw.choice(
        (0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1, draw.randrange(2**16))
    )
    at = draw.randrange(max(len(data) - width, 0) + 1)
    return data[:at] + (value % 256**width).to_bytes(width, "little") + data[at + width :]


def _number(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    """A decimal number of the text replaced by an odd one."""
    digits = [at for at, byte in enumerate(data[:LARGEST]) if 48 <= byte <= 57]
    if not digits:
        return _byte(data, _others, draw)
    start = end = draw.choice(digits)
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    value = draw.choice(
        (b"-1", b"0", b"1e400", b"0.5", b"9" * 30, b"9" * 5000, b"NaN", b"true", b'"1"', b"1.0", b"2")
    )
    return data[:start] + value + data[end:]


def _swap(data: bytes, _others: Sequence[bytes], draw: Random) -> bytes:
    """Two pieces of the input in each other's place."""
    places = sorted(draw.randrange(len(data) + 1) for _ in range(4))
    a, b, c, d = places
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


_DAMAGES: tuple[Callable[[bytes, Sequence[bytes], Random], bytes], ...] = (
    *(_flip, _byte, _truncate, _cut, _repeat, _splice, _token, _token, _nest, _integer, _number, _swap),
)


def altered(value: Any, draw: Random) -> Any:
    """A document in which one to four entries are replaced, dropped, doubled, renamed or wrapped."""
    for _ in range(1 + min(int(draw.expovariate(0.9)), 3)):
        value = _alter(value, draw)
    return value


def _alter(value: Any, draw: Random) -> Any:
    descend = draw.random() < 0.8
    if isinstance(value, dict) and value and descend:
        key = draw.choice(list(value))
        return _alter_entry(value, key, draw)
    if isinstance(value, list) and value and descend:
        at = draw.randrange(len(value))
        kind = draw.random()
        if kind < 0.15:
            return value[:at] + value[at + 1 :]
        if kind < 0.3:
            return value[:at] + [value[at]] * draw.choice((2, 50)) + value[at:]
        return [*value[:at], _alter(value[at], draw), *value[at + 1 :]]
    return _odd(value, draw)


def _alter_entry(value: dict[Any, Any], key: Any, draw: Random) -> dict[Any, Any]:
    kind = draw.random()
    if kind < 0.12:
        return {k: v for k, v in value.items() if k != key}
    if kind < 0.22:
        name = draw.choice(("", "x", str(key)[:-1], str(key).upper(), "../" + str(key), "<i>", "a" * 300))
        return {name if k == key else k: v for k, v in value.items()}
    if kind < 0.3:
        return {**value, draw.choice(("x", str(key) + "s", "__class__", "")): value[key]}
    return {**value, key: _alter(value[key], draw)}


def _odd(value: Any, draw: Random) -> Any:
    kind = draw.random()
    if kind < 0.1:
        return [value]
    if kind < 0.2:
        return {"a": value}
    if kind < 0.25:
        return str(value)
    if kind < 0.35 and isinstance(value, int | float) and not isinstance(value, bool):
        return draw.choice((-value, value + 1, value * 1000, float(value), str(value)))
    if kind < 0.45 and isinstance(value, str):
        return draw.choice(
            (value * 2, value[:-1], value + "\x00", value.upper(), "../" + value, value + "<'&\">")
        )
    if kind < 0.5:
        for _ in range(draw.choice((3, 60, 400))):
            value = [value]
        return value
    return draw.choice(ODD_VALUES)
