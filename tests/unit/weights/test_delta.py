"""Records of lossless deltas: every bit pattern comes back, and nothing damaged does."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.weights.bits import Raw, raw_type
from sftlab.weights.delta import DELTA, DELTA_CHUNK, SAME, WHOLE, DeltaError, decode, encode, runs
from sftlab.weights.stream import CHUNK

FLOATS = ("BF16", "F16", "F32")
CODES = (*FLOATS, "F64", "F8_E4M3", "F8_E5M2", "BOOL", "U8", "I8", "I16", "I32", "I64")
ALL = np.arange(65536, dtype=np.uint16)


def round_trip(tuned: Raw, base: Raw | None, code: str) -> bytes:
    record = encode(tuned, base, code)
    out = np.empty_like(tuned)
    decode(record, base, code, out)
    assert out.tobytes() == tuned.tobytes()
    return record


def pair(code: str, size: int, change: float, seed: int = 0) -> tuple[Raw, Raw]:
    """Normal weights of deviation 0.02, and the same after normal changes of the given deviation."""
    draw = np.random.default_rng(seed)
    base = draw.normal(0, 0.02, size).astype(np.float32)
    if code == "BF16":
        base = (base.view(np.uint32) & 0xFFFF0000).view(np.float32)
    tuned = base + draw.normal(0, change, size).astype(np.float32)
    if code == "BF16":
        return tuple((x.view(np.uint32) >> 16).astype(np.uint16) for x in (base, tuned))  # type: ignore[return-value]
    kind = np.float16 if code == "F16" else np.float32
    return tuple(x.astype(kind).view(raw_type(code)) for x in (base, tuned))  # type: ignore[return-value]


@pytest.mark.parametrize("code", ["BF16", "F16"])
def test_all_patterns_come_back_from_shifted_flipped_and_permuted_ones(code: str) -> None:
    draw = np.random.default_rng(0)
    others = [
        *(np.roll(ALL, shift) for shift in (0, 1, -1, 127, 128, 32767, 32768)),
        *(ALL ^ mask for mask in (0x8000, 0x7FFF, 0xFFFF, 0x007F, 0x7F80)),
        *(draw.permutation(ALL) for _ in range(8)),
        np.zeros_like(ALL),
        np.full_like(ALL, 0x7FC1),
    ]
    for other in others:
        round_trip(other, ALL, code)
        round_trip(ALL, other, code)


def test_float32_patterns_of_every_sign_and_exponent_come_back() -> None:
    mantissas = np.array([0, 1, 2**22, 2**22 + 1, 2**23 - 1], dtype=np.uint32)
    patterns = ((np.arange(512, dtype=np.uint32) << 23)[:, None] | mantissas).ravel()
    draw = np.random.default_rng(0)
    for other in (np.roll(patterns, 1), patterns[::-1].copy(), ~patterns, draw.permutation(patterns)):
        round_trip(other, patterns, "F32")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bits_of_any_type_come_back(data: st.DataObject) -> None:
    code = data.draw(st.sampled_from(CODES))
    width = np.dtype(raw_type(code)).itemsize
    size = data.draw(st.integers(1, 70))
    bits = st.binary(min_size=size * width, max_size=size * width)
    tuned = np.frombuffer(data.draw(bits), raw_type(code))
    base = data.draw(st.none() | bits | st.just(tuned.tobytes()))
    round_trip(tuned, None if base is None else np.frombuffer(base, raw_type(code)), code)


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 8191, 8192, 8193, 16385, DELTA_CHUNK - 1, DELTA_CHUNK])
def test_sizes_around_the_borders_of_runs_and_records_come_back(code: str, size: int) -> None:
    base, tuned = pair(code, size, 1e-4)
    assert round_trip(tuned, base, code)[0] == (SAME if np.array_equal(base, tuned) else DELTA)
    assert round_trip(tuned, None, code)[0] == WHOLE


def test_a_record_by_hand() -> None:
    # 1.0 -> the next above, -1.0 -> the next above, 0.0 -> -0.0: differences 1, 1, -1, folded 2, 2, 1. The exponents
    # 127, 127, 0 put the last one first. Low bytes 1 2 2, high bytes 0 0 0; zstd would be longer.
    base = np.array([0x3F80, 0xBF80, 0x0000], dtype=np.uint16)
    tuned = np.array([0x3F81, 0xBF7F, 0x8000], dtype=np.uint16)
    checksum = zlib.crc32(bytes.fromhex("813f7fbf0080")).to_bytes(4, "little")
    expected = b"\x01" + checksum + bytes.fromhex("03000000 03000000 010202 000000")
    assert encode(tuned, base, "BF16") == expected
    assert encode(base, base, "BF16") == b"\x00" + zlib.crc32(base.tobytes()).to_bytes(4, "little")
    whole = b"\x02" + checksum + bytes.fromhex("03000000 03000000 817f00 3fbf80")
    assert encode(tuned, None, "BF16") == whole


def test_equal_weights_take_five_bytes_and_other_types_are_kept_whole() -> None:
    base, tuned = pair("BF16", DELTA_CHUNK, 1e-4)
    assert len(encode(base, base, "BF16")) == 5
    assert encode(tuned, base, "I16")[0] == WHOLE
    assert encode(base, base, "I16")[0] == SAME


def test_runs_end_where_the_exponent_changes_and_short_ones_are_joined() -> None:
    lengths = {3: 5000, 4: 5000, 7: 8192, 9: 20000, 200: 3, 255: 100}
    exponents = np.repeat(np.array([*lengths], np.uint8), [*lengths.values()])
    assert runs(exponents) == [10000, 18192, 38295]
    assert runs(exponents[:10000]) == [10000]
    assert runs(np.array([7], np.uint8)) == [1]
    assert runs(np.repeat(np.uint8(255), 9000)) == [9000]


def test_a_record_holds_a_chunk_of_a_walk_over_two_models() -> None:
    assert DELTA_CHUNK == CHUNK


@pytest.mark.parametrize(("code", "change"), [("BF16", 1e-5), ("BF16", 1e-4), ("F16", 1e-5), ("F32", 1e-6)])
def test_records_are_smaller_than_the_xor_of_both_by_byte_planes(code: str, change: float) -> None:
    base, tuned = pair(code, DELTA_CHUNK, change)
    codec = pa.Codec("zstd", compression_level=3)
    planes = (base ^ tuned).view(np.uint8).reshape(base.size, -1).T
    peer = sum(len(codec.compress(np.ascontiguousarray(plane), asbytes=True)) for plane in planes)
    assert len(encode(tuned, base, code)) < (0.92 if code == "F32" else 0.85) * peer


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("with_base", [True, False])
def test_a_flipped_bit_or_a_cut_is_refused_or_changes_nothing(code: str, with_base: bool) -> None:
    base, tuned = pair(code, 200, 1e-3)
    given = base if with_base else None
    record = encode(tuned, given, code)
    out = np.empty_like(tuned)
    for length in range(len(record)):
        with pytest.raises(DeltaError):
            decode(record[:length], given, code, out)
    with pytest.raises(DeltaError):
        decode(record + b"\0", given, code, out)
    refused = 0
    for place in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[place // 8] ^= 1 << place % 8
        try:
            decode(bytes(damaged), given, code, out)
            assert out.tobytes() == tuned.tobytes()
        except DeltaError:
            refused += 1
    assert refused > 0.97 * 8 * len(record)


def test_another_base_is_refused() -> None:
    base, tuned = pair("BF16", 600, 1e-3)
    other = base.copy()
    other[599] ^= 1
    for record in (encode(tuned, base, "BF16"), encode(base, base, "BF16")):
        with pytest.raises(DeltaError, match="checksum"):
            decode(record, other, "BF16", np.empty_like(base))
        with pytest.raises(DeltaError, match="needs a tensor of the base model"):
            decode(record, None, "BF16", np.empty_like(base))


def head(kind: int, *lengths: int) -> bytes:
    return bytes([kind]) + bytes(4) + b"".join(length.to_bytes(4, "little") for length in lengths)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (b"", "0 bytes; expected at least 5"),
        (head(3), "kind is 3; expected 0, 1 or 2"),
        (head(SAME) + b"x", "6 bytes; expected 5"),
        (head(WHOLE), "5 bytes; expected at least 13 for 2 frames"),
        (head(WHOLE, 2**32 - 1, 4) + bytes(4), "frames have 4294967299 bytes; 4 are there"),
        (head(WHOLE, 5, 4) + bytes(9), "frame of 5 bytes is longer than the 4"),
        (head(WHOLE, 3, 4) + bytes(7), "no zstd of 4 bytes"),
    ],
)
def test_what_a_record_claims_is_checked(record: bytes, says: str) -> None:
    out = np.empty(4, np.uint16)
    with pytest.raises(DeltaError, match=says):
        decode(record, np.zeros_like(out), "BF16", out)


def test_a_frame_that_holds_more_than_it_should_is_refused() -> None:
    bomb = pa.Codec("zstd", compression_level=1).compress(bytes(1 << 24), asbytes=True)
    for size in (4000, 1 << 16):
        out = np.empty(size, np.uint8)
        assert len(bomb) < size
        with pytest.raises(DeltaError, match=f"no zstd of {size} bytes"):
            decode(head(WHOLE, len(bomb)) + bomb, None, "U8", out)


def test_a_delta_of_a_type_that_has_none_is_refused() -> None:
    record = bytes([DELTA]) + bytes(4)
    with pytest.raises(DeltaError, match="not for I16"):
        decode(record, np.zeros(4, np.uint16), "I16", np.empty(4, np.uint16))
