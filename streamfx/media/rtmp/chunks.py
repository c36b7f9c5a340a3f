"""The chunk stream: how RTMP messages are cut into chunks and put together again (RTMP 1.0, sections 5.3 and 5.4).

No I/O in here: bytes go in, messages come out, and the other way round.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from streamfx.media.rtmp.errors import RtmpProtocolError

SET_CHUNK_SIZE = 1
ABORT = 2
ACKNOWLEDGEMENT = 3
USER_CONTROL = 4
WINDOW_ACK_SIZE = 5
SET_PEER_BANDWIDTH = 6
AUDIO = 8
VIDEO = 9
DATA_AMF3 = 15
COMMAND_AMF3 = 17
DATA_AMF0 = 18
COMMAND_AMF0 = 20
AGGREGATE = 22

CONTROL_CSID = 2
DEFAULT_CHUNK_SIZE = 128
MAX_CSID = 65599

_EXTENDED = 0xFFFFFF
_HEADER_SIZES = (11, 7, 3, 0)
_U32 = struct.Struct(">I")


class Message(NamedTuple):
    """One whole message. ``timestamp`` is in milliseconds, modulo 2**32, and absolute whatever the header said."""

    type_id: int
    stream_id: int
    timestamp: int
    payload: bytes
    csid: int = CONTROL_CSID


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """What a reader accepts, in bytes.

    ``max_partial`` bounds all unfinished messages together; memory grows with bytes received, never with the length
    a header claims. A chunk's size costs no memory, so its limit is the format's own unless set lower.
    """

    max_message: int = 8 << 20
    max_partial: int = 16 << 20
    max_chunk_size: int = 0x7FFFFFFF
    max_chunk_streams: int = 64


_DEFAULT_LIMITS = ChunkLimits()


class _Stream:
    """What a reader remembers of one chunk stream, so that later headers can leave it out."""

    __slots__ = ("csid", "delta", "extended", "left", "length", "partial", "stream_id", "timestamp", "type_id")

    def __init__(self, csid: int) -> None:
        self.csid = csid
        self.timestamp = self.delta = self.length = self.type_id = self.stream_id = 0
        self.extended: bytes | None = None
        self.left = 0
        self.partial = bytearray()


class ChunkReader:
    """Puts messages together: ``feed`` bytes as they come, then ``pop`` until it gives None.

    Set Chunk Size and Abort act inside and are not given out. Parsing happens in ``pop``, so no list of messages
    builds up. After an error every ``pop`` raises it again: the connection is of no more use.
    """

    def __init__(self, limits: ChunkLimits = _DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.chunk_size = DEFAULT_CHUNK_SIZE
        self._streams: dict[int, _Stream] = {}
        self._data = b""
        self._at = 0
        self._current: _Stream | None = None
        self._chunk_left = 0
        self._partial_bytes = 0
        self._broken: str | None = None

    @property
    def buffered(self) -> int:
        """Bytes held: not yet parsed, and of unfinished messages."""
        return len(self._data) - self._at + self._partial_bytes

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream, cut anywhere."""
        if self._at < len(self._data):
            data = self._data[self._at :] + data
        self._data = data
        self._at = 0

    def pop(self) -> Message | None:
        """Gives the next whole message, or None until more bytes are fed.

        Raises:
            RtmpProtocolError: the bytes are not a chunk stream, or over a limit.
        """
        if self._broken is not None:
            raise RtmpProtocolError(self._broken)
        try:
            while True:
                stream = self._current or self._read_header()
                if stream is None:
                    return None
                message = self._read_payload(stream)
                if message is None:
                    if self._current is not None:
                        return None
                elif message.type_id == SET_CHUNK_SIZE:
                    self._set_chunk_size(message.payload)
                elif message.type_id == ABORT:
                    self._abort(message.payload)
                else:
                    return message
        except RtmpProtocolError as error:
            self._broken = str(error)
            self._data, self._current, self._partial_bytes = b"", None, 0
            self._streams.clear()
            raise

    def _read_header(self) -> _Stream | None:
        """Reads a chunk's header (section 5.3.1), gives its stream; None, with nothing taken, if part is missing."""
        data, at, end = self._data, self._at, len(self._data)
        if at >= end:
            return None
        fmt, csid = data[at] >> 6, data[at] & 63
        at += 1
        if csid < 2:
            extra = csid + 1
            if end - at < extra:
                return None
            csid = 64 + int.from_bytes(data[at : at + extra], "little")
            at += extra
        size = _HEADER_SIZES[fmt]
        if end - at < size:
            return None
        if fmt == 3:
            return self._continue(csid, at)
        return self._begin(fmt, csid, data[at : at + size], at + size)

    def _begin(self, fmt: int, csid: int, header: bytes, at: int) -> _Stream | None:
        """Begins a message with a type 0, 1 or 2 header; ``at`` is where the header proper ends."""
        field = int.from_bytes(header[:3], "big")
        extended = None
        if field == _EXTENDED:
            extended = self._data[at : at + 4]
            if len(extended) < 4:
                return None
            at += 4
            field = int.from_bytes(extended, "big")
        stream = self._stream(fmt, csid)
        if stream.left:
            raise RtmpProtocolError("a message begins inside another of its chunk stream")
        if fmt < 2:
            stream.length = int.from_bytes(header[3:6], "big")
            stream.type_id = header[6]
        if fmt == 0:
            stream.stream_id = int.from_bytes(header[7:11], "little")
            stream.timestamp = 0
        stream.extended = extended
        # A type 3 header that begins a message repeats this as its delta, after type 0 too (section 5.3.1.2.4).
        stream.delta = field
        return self._begin_payload(stream, at)

    def _continue(self, csid: int, at: int) -> _Stream | None:
        """Reads the rest of a type 3 header: nothing, or an extended timestamp sent again."""
        stream = self._streams.get(csid)
        if stream is None:
            raise RtmpProtocolError("a chunk continues a chunk stream that never began")
        if stream.extended is not None:
            # The timestamp is repeated here (section 5.3.1.3), but some publishers leave it out.
            seen = self._data[at : at + 4]
            if seen == stream.extended:
                at += 4
            elif stream.extended.startswith(seen):
                return None
        if not stream.left:
            return self._begin_payload(stream, at)
        return self._take_up(stream, at)

    def _begin_payload(self, stream: _Stream, at: int) -> _Stream:
        if stream.length > self.limits.max_message:
            raise RtmpProtocolError(
                f"a message of {stream.length} bytes is over the limit of {self.limits.max_message} bytes"
            )
        stream.timestamp = (stream.timestamp + stream.delta) & 0xFFFFFFFF
        stream.left = stream.length
        return self._take_up(stream, at)

    def _take_up(self, stream: _Stream, at: int) -> _Stream:
        self._at = at
        self._chunk_left = min(stream.left, self.chunk_size)
        self._current = stream
        return stream

    def _read_payload(self, stream: _Stream) -> Message | None:
        """Takes what is here of the current chunk; gives the message if that ends it."""
        data, at = self._data, self._at
        take = min(self._chunk_left, len(data) - at)
        self._at = at + take
        if take == stream.length:  # the whole message in one piece: the usual case with large chunks
            payload = data[at : at + take]
        else:
            with memoryview(data) as view:
                stream.partial += view[at : at + take]
            self._partial_bytes += take
            if self._partial_bytes > self.limits.max_partial:
                raise RtmpProtocolError(f"unfinished messages are over the limit of {self.limits.max_partial} bytes")
            payload = b""
        self._chunk_left -= take
        stream.left -= take
        if self._chunk_left == 0:
            self._current = None
        if stream.left:
            return None
        if stream.partial:
            payload = bytes(stream.partial)
            self._drop_partial(stream)
        return Message(stream.type_id, stream.stream_id, stream.timestamp, payload, stream.csid)

    def _stream(self, fmt: int, csid: int) -> _Stream:
        stream = self._streams.get(csid)
        if stream is None:
            # A type 1 header lacks only the message stream id: some publishers begin with one, and mean 0.
            if fmt >= 2:
                raise RtmpProtocolError("a chunk continues a chunk stream that never began")
            if len(self._streams) >= self.limits.max_chunk_streams:
                raise RtmpProtocolError(f"more than {self.limits.max_chunk_streams} chunk streams are in use")
            stream = self._streams[csid] = _Stream(csid)
        return stream

    def _drop_partial(self, stream: _Stream) -> None:
        self._partial_bytes -= len(stream.partial)
        stream.partial = bytearray()
        stream.left = 0

    def _set_chunk_size(self, payload: bytes) -> None:
        size = int.from_bytes(payload[:4], "big") if len(payload) >= 4 else 0
        if not 1 <= size <= self.limits.max_chunk_size:
            raise RtmpProtocolError(f"a chunk size of {size} bytes is not between 1 and {self.limits.max_chunk_size}")
        self.chunk_size = size

    def _abort(self, payload: bytes) -> None:
        if len(payload) < 4:
            raise RtmpProtocolError("an Abort message is too short")
        stream = self._streams.get(int.from_bytes(payload[:4], "big"))
        if stream is not None:
            self._drop_partial(stream)


class _Sent:
    """The last header a writer sent on one chunk stream. ``delta`` is None after a type 0 header."""

    __slots__ = ("delta", "length", "stream_id", "timestamp", "type_id")

    def __init__(self, message: Message, delta: int | None) -> None:
        self.timestamp = message.timestamp
        self.delta = delta
        self.length = len(message.payload)
        self.type_id = message.type_id
        self.stream_id = message.stream_id


class ChunkWriter:
    """Cuts messages into chunks, with the shortest header each allows."""

    def __init__(self) -> None:
        self.chunk_size = DEFAULT_CHUNK_SIZE
        self._sent: dict[int, _Sent] = {}

    def write(self, message: Message) -> bytes:
        """Gives the bytes to send for ``message``; its timestamp is taken modulo 2**32."""
        message = message._replace(timestamp=message.timestamp & 0xFFFFFFFF)
        if len(message.payload) > 0xFFFFFF:
            raise RtmpProtocolError(f"a message of {len(message.payload)} bytes does not fit into RTMP (16 MiB)")
        head, extended = self._header(message)
        payload, size = message.payload, self.chunk_size
        parts = [head, payload[:size]]
        if len(payload) > size:
            again = _basic_header(3, message.csid) + extended
            for start in range(size, len(payload), size):
                parts.append(again)
                parts.append(payload[start : start + size])
        return b"".join(parts)

    def set_chunk_size(self, size: int) -> bytes:
        """Gives a Set Chunk Size message; what is written after it uses ``size`` bytes per chunk."""
        if not 1 <= size <= 0x7FFFFFFF:
            raise ValueError(f"chunk size {size} is not between 1 and 2147483647")
        data = self.write(Message(SET_CHUNK_SIZE, 0, 0, _U32.pack(size)))
        self.chunk_size = size
        return data

    def _header(self, message: Message) -> tuple[bytes, bytes]:
        """Gives the first chunk's header, and the extended timestamp that all chunks of the message carry."""
        last = self._sent.get(message.csid)
        length = len(message.payload)
        delta: int | None = None
        if last is not None and last.stream_id == message.stream_id and message.timestamp >= last.timestamp:
            delta = message.timestamp - last.timestamp
        self._sent[message.csid] = _Sent(message, delta)
        if last is None or delta is None:
            fmt = 0
        elif (last.length, last.type_id) != (length, message.type_id):
            fmt = 1
        else:
            # Peers disagree on what type 3 means right after type 0, so it only follows a delta.
            fmt = 3 if last.delta == delta else 2
        field = message.timestamp if delta is None else delta
        extended = _U32.pack(field) if field >= _EXTENDED else b""
        head = _basic_header(fmt, message.csid)
        if fmt < 3:
            head += min(field, _EXTENDED).to_bytes(3, "big")
        if fmt < 2:
            head += length.to_bytes(3, "big") + bytes((message.type_id,))
        if fmt == 0:
            head += message.stream_id.to_bytes(4, "little")
        return head + extended, extended


def _basic_header(fmt: int, csid: int) -> bytes:
    """A chunk basic header (section 5.3.1.1); chunk stream ids run from 2 to 65599."""
    if not 2 <= csid <= MAX_CSID:
        raise ValueError(f"chunk stream id {csid} is not between 2 and {MAX_CSID}")
    if csid < 64:
        return bytes((fmt << 6 | csid,))
    if csid < 320:
        return bytes((fmt << 6, csid - 64))
    return bytes((fmt << 6 | 1,)) + (csid - 64).to_bytes(2, "little")
