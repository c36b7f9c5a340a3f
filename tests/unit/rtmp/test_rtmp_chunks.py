"""The chunk stream: what is written is read again, however it is cut, and no bytes do harm."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.media.rtmp import chunks
from streamfx.media.rtmp.chunks import ChunkLimits, ChunkReader, ChunkWriter, Message
from streamfx.media.rtmp.errors import RtmpProtocolError

messages = st.builds(
    Message,
    st.sampled_from([3, 4, 8, 9, 18, 20]),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF) | st.integers(0, 100) | st.integers(0xFFFFF0, 0x1000010),
    st.binary(max_size=400),
    st.sampled_from([2, 3, 4, 63, 64, 319, 320, 65599]),
)


def read(data: bytes, sizes: list[int] | None = None, limits: ChunkLimits | None = None) -> list[Message]:
    reader, found, at = ChunkReader(limits or ChunkLimits()), [], 0
    for size in [*(sizes or []), len(data)]:
        reader.feed(data[at : at + size])
        at += size
        while (message := reader.pop()) is not None:
            found.append(message)
    return found


@given(st.lists(messages, max_size=12), st.integers(1, 500), st.lists(st.integers(1, 200), max_size=30))
def test_round_trip(sent: list[Message], chunk_size: int, cuts: list[int]) -> None:
    writer = ChunkWriter()
    data = writer.set_chunk_size(chunk_size) + b"".join(writer.write(message) for message in sent)
    assert read(data, cuts) == sent


@given(st.lists(st.tuples(st.integers(0, 0x1FFFFFF), st.integers(0, 2)), min_size=1, max_size=20))
def test_growing_timestamps_use_every_header_type(steps: list[tuple[int, int]]) -> None:
    writer, timestamp, sent, data = ChunkWriter(), 0, [], b""
    for step, kind in steps:
        timestamp += step if kind else 20
        sent.append(Message(8, 1, timestamp, bytes(5 + (kind == 2)), 4))
        data += writer.write(sent[-1])
    assert read(data, [1] * len(data)) == sent


def test_the_four_headers_are_used() -> None:
    writer = ChunkWriter()
    first_bytes = [
        writer.write(Message(8, 1, timestamp, bytes(size), 4))[0] >> 6
        for timestamp, size in [(0, 5), (20, 6), (41, 6), (62, 6), (10, 6)]
    ]
    assert first_bytes == [0, 1, 2, 3, 0]


def header0(timestamp: int, length: int, type_id: int = 9, csid: int = 4) -> bytes:
    return bytes((csid,)) + timestamp.to_bytes(3, "big") + length.to_bytes(3, "big") + bytes((type_id, 1, 0, 0, 0))


def test_type_3_after_type_0_adds_its_timestamp() -> None:
    data = header0(40, 1) + b"a" + b"\xc4b" + b"\xc4c"
    assert [m.timestamp for m in read(data)] == [40, 80, 120]


@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("length", [129, 130, 131, 132, 300])
def test_extended_timestamps_repeated_or_not(repeated: bool, length: int) -> None:
    extended = struct.pack(">I", 0x01020304)
    body = bytes(range(256)) * 2
    data = header0(0xFFFFFF, length) + extended
    for start in range(0, length, 128):
        data += (b"\xc4" + (extended if repeated else b"") if start else b"") + body[start : min(start + 128, length)]
    for cuts in ([], [1] * len(data)):
        assert read(data, cuts) == [Message(9, 1, 0x01020304, body[:length], 4)]


def test_timestamps_wrap_around() -> None:
    data = header0(0xFFFFFF, 1) + b"\xff\xff\xff\xf0a" + b"\x84\x00\x00\x20b" + b"\xc4c"
    assert [m.timestamp for m in read(data)] == [0xFFFFFFF0, 0x10, 0x30]


def test_interleaved_streams_and_abort() -> None:
    data = header0(0, 200, 9, 6) + b"v" * 128 + header0(5, 150, 8, 4) + b"a" * 128
    data += ChunkWriter().write(Message(chunks.ABORT, 0, 0, struct.pack(">I", 6)))
    data += b"\xc4" + b"a" * 22 + b"\xc6" + b"w" * 128 + b"\xc6" + b"w" * 72
    assert [(m.type_id, m.payload) for m in read(data)] == [(8, b"a" * 150), (9, b"w" * 200)]


def test_empty_messages() -> None:
    assert [m.payload for m in read(header0(0, 0) + b"\xc4\xc4")] == [b"", b"", b""]


def test_set_chunk_size_acts_between_messages_of_one_read() -> None:
    writer = ChunkWriter()
    big = Message(9, 1, 0, bytes(1000), 6)
    assert read(writer.write(big) + writer.set_chunk_size(0x7FFFFFFF) + writer.write(big)) == [big, big]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xc4", "never began"),
        (b"\x84\x00\x00\x00", "never began"),
        (header0(0, 200) + bytes(128) + header0(0, 200), "inside another"),
        (header0(0, 0xFFFFFF), "over the limit"),
        (header0(0, 4, 1, 2) + b"\0\0\0\0", "chunk size"),
        (header0(0, 4, 1, 2) + b"\xff\xff\xff\xff", "chunk size"),
        (header0(0, 0, 1, 2), "chunk size"),
        (header0(0, 2, 2, 2) + b"\0\0", "Abort"),
        (b"".join(header0(0, 1, 8, csid) + b"x" for csid in range(2, 20)), "chunk streams"),
    ],
)
def test_refusals_say_why_and_stay(data: bytes, words: str) -> None:
    reader = ChunkReader(ChunkLimits(max_message=1 << 16, max_chunk_streams=16))
    reader.feed(data)
    with pytest.raises(RtmpProtocolError, match=words):
        list(iter(reader.pop, None))
    reader.feed(header0(0, 0))
    with pytest.raises(RtmpProtocolError, match=words):
        reader.pop()
    assert reader.buffered < 100


def test_many_unfinished_messages_are_bounded() -> None:
    limits = ChunkLimits(max_message=100_000, max_partial=150_000)
    writer = ChunkWriter()
    data = writer.set_chunk_size(90_000)
    for csid in (3, 4, 5):
        data += header0(0, 95_000, 9, csid) + bytes(90_000)
    with pytest.raises(RtmpProtocolError, match="unfinished"):
        read(data, limits=limits)


def test_a_claimed_length_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        reader = ChunkReader()
        for csid in range(2, 64):
            reader.feed(header0(0, 8 << 20, 9, csid) + bytes(128))
            assert reader.pop() is None
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=2000), st.lists(st.integers(1, 50), max_size=20))
def test_garbage_does_no_harm(data: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(RtmpProtocolError):
        read(data, cuts, ChunkLimits(max_message=1000, max_partial=2000, max_chunk_streams=8))


@pytest.mark.parametrize("csid", [0, 1, 65600])
def test_writer_refuses_bad_chunk_stream_ids(csid: int) -> None:
    with pytest.raises(ValueError, match="chunk stream id"):
        ChunkWriter().write(Message(8, 1, 0, b"", csid))


def test_writer_refuses_what_does_not_fit() -> None:
    with pytest.raises(RtmpProtocolError, match="16 MiB"):
        ChunkWriter().write(Message(8, 1, 0, bytes(1 << 24)))
    with pytest.raises(ValueError, match="chunk size"):
        ChunkWriter().set_chunk_size(0)
