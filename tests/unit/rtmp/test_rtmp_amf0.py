"""AMF0: what is encoded comes back, and no bytes do harm."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.media.rtmp import amf0
from streamfx.media.rtmp.errors import RtmpProtocolError

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
leaves = (
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
    | st.just(amf0.UNDEFINED)
    | st.builds(amf0.AmfDate, st.floats(allow_nan=False), st.integers(-720, 720))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(names, inner, max_size=4)
        | st.dictionaries(names, inner, max_size=4).map(amf0.EcmaArray)
    ),
    max_leaves=12,
)


@given(st.lists(values, max_size=4))
def test_round_trip(items: list[object]) -> None:
    limits = amf0.AmfLimits(max_depth=64)
    assert amf0.decode(amf0.encode(*items), limits) == items
    again = amf0.decode(amf0.encode(*items), limits)
    assert [type(item) for item in again] == [type(item) for item in items]


@given(st.binary(max_size=300))
def test_garbage_is_a_protocol_error_or_values(data: bytes) -> None:
    with contextlib.suppress(RtmpProtocolError):
        amf0.decode(data)


@given(st.lists(values, min_size=1, max_size=3), st.data())
def test_damage_is_a_protocol_error_or_values(items: list[object], data: st.DataObject) -> None:
    encoded = bytearray(amf0.encode(*items))
    for _ in range(3):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    for damaged in (bytes(encoded), bytes(encoded[:cut])):
        with contextlib.suppress(RtmpProtocolError):
            amf0.decode(damaged)


def test_known_bytes() -> None:
    assert amf0.encode("connect", 1) == b"\x02\x00\x07connect\x00\x3f\xf0\0\0\0\0\0\0"
    assert amf0.decode(b"\x03\x00\x01a\x01\x01\x00\x00\x09") == [{"a": True}]
    assert amf0.decode(b"\x10\x00\x01T\x00\x01a\x05\x00\x00\x09") == [{"a": None}]  # a typed object
    assert amf0.decode(b"\x08\xff\xff\xff\xff\x00\x01a\x05\x00\x00\x09") == [{"a": None}]  # a wrong count
    assert math.isnan(amf0.decode(amf0.encode(math.nan))[0])


def test_a_long_string_has_its_own_marker() -> None:
    text = "x" * 70_000
    assert amf0.encode(text)[0] == 0x0C
    assert amf0.decode(amf0.encode(text)) == [text]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x07\x00\x01", "references"),
        (b"\x11\x04\x01", "AMF3"),
        (b"\x09", "object end"),
        (b"\x04", "movie clips"),
        (b"\x77", "0x77"),
        (b"\x02\x00\x05ab", "too early"),
        (b"\x02\x00\x01\xff", "UTF-8"),
        (b"\x0a\xff\xff\xff\xff", "more values"),
        (b"\x0a\x00\x00\x00\x01" * 40, "deeper"),
        (b"\x03\x00\x01a" * 5000, "deeper"),
        (b"\x05" * 20_000, "more than"),
        (bytes(2 << 20), "over the limit"),
    ],
)
def test_refusals_say_why(data: bytes, words: str) -> None:
    with pytest.raises(RtmpProtocolError, match=words):
        amf0.decode(data)


@pytest.mark.parametrize("value", [object(), 1j, 10**400, "\ud800", {"x" * 70_000: 1}])
def test_what_amf0_cannot_hold(value: object) -> None:
    with pytest.raises(RtmpProtocolError):
        amf0.encode(value)


def test_encoding_a_loop_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(RtmpProtocolError, match="deeper"):
        amf0.encode(loop)
