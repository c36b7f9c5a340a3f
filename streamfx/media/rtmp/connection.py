"""What the server and the player share: one RTMP connection after its handshake, and media messages made FLV tags."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from streamfx.core.clock import Clock
from streamfx.media.rtmp import amf0, chunks, flv
from streamfx.media.rtmp.chunks import ChunkLimits, ChunkReader, ChunkWriter, Message
from streamfx.media.rtmp.errors import RtmpProtocolError

__all__ = ["Command", "FlvTag", "RtmpConnection", "RtmpProtocolError", "TagReader", "parse_command"]

log = logging.getLogger(__name__)

READ_SIZE = 1 << 16
"""Bytes read from a socket at once; also the limit of asyncio's buffer, which holds at most twice that."""
OUR_CHUNK_SIZE = 60_000
OUR_WINDOW = 2_500_000

_COMMAND_CSID, _STATUS_CSID = 3, 5
_STREAM_EOF, _SET_BUFFER_LENGTH, _PING_REQUEST, _PING_RESPONSE = 1, 3, 6, 7
_FAIR_SHARE = 256  # messages handled before other connections get a turn
_ON_META_DATA = amf0.encode("onMetaData")
_CLEAR_DATA_FRAME = amf0.encode("@clearDataFrame")
_TAG_HEADER_SIZE = 11
_MAX_COMMAND = 1 << 16

TagKind = Literal["video", "audio", "data"]
_KINDS: dict[int, TagKind] = {chunks.AUDIO: "audio", chunks.VIDEO: "video", chunks.DATA_AMF0: "data"}


@dataclass(frozen=True, slots=True)
class FlvTag:
    """One FLV tag off the network.

    ``timestamp_ms`` is the decoding time in milliseconds; it counts on where RTMP's 32 bits wrap around. ``body`` is
    what ``flv.parse_video``, ``parse_audio`` or ``parse_metadata`` takes, ``received_at`` a time of the clock (s).
    """

    kind: TagKind
    timestamp_ms: int
    body: bytes
    received_at: float


@dataclass(frozen=True, slots=True)
class Command:
    """A command message (section 7.2): ``arguments`` are what follows the transaction id, command object first."""

    name: str
    transaction: float
    arguments: list[object]
    stream_id: int

    def text(self, index: int) -> str:
        """The argument at ``index`` if it is a string, else ""."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, str) else ""

    def members(self, index: int) -> dict[str, object]:
        """The argument at ``index`` if it is an object, else an empty dict."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, dict) else {}


def parse_command(message: Message) -> Command | None:
    """Gives the command in ``message``, or None if it is another kind of message.

    Raises:
        RtmpProtocolError: the command is malformed, or AMF3.
    """
    payload = message.payload
    if message.type_id == chunks.COMMAND_AMF3:
        payload = payload[1:]  # one format byte, then AMF0 in practice
    elif message.type_id != chunks.COMMAND_AMF0:
        return None
    if len(payload) > _MAX_COMMAND:
        raise RtmpProtocolError(f"a command of {len(payload)} bytes is over the limit of {_MAX_COMMAND}")
    values = amf0.decode(payload)
    name = values[0] if values else None
    transaction = values[1] if len(values) > 1 else 0.0
    if not isinstance(name, str) or not isinstance(transaction, float):
        raise RtmpProtocolError("a command does not begin with a name and a number")
    return Command(name, transaction, values[2:], message.stream_id)


class TagReader:
    """Makes FLV tags of the messages of one published stream, and keeps its metadata."""

    def __init__(self, clock: Clock) -> None:
        self.metadata: dict[str, object] = {}
        self._clock = clock
        self._last: int | None = None

    def tags(self, message: Message) -> Iterator[FlvTag]:
        """Gives the tags in ``message``: none, one, or, for an aggregate (section 7.1.6), several.

        Raises:
            RtmpProtocolError: an aggregate is cut off.
        """
        kind = _KINDS.get(message.type_id)
        if kind == "data":
            yield from self._data(message.timestamp, message.payload)
        elif kind is not None:
            yield self._tag(kind, message.timestamp, message.payload)
        elif message.type_id == chunks.DATA_AMF3:
            yield from self._data(message.timestamp, message.payload[1:])
        elif message.type_id == chunks.AGGREGATE:
            yield from self._aggregate(message)

    def _tag(self, kind: TagKind, timestamp: int, body: bytes) -> FlvTag:
        if self._last is None:
            self._last = timestamp
        else:
            ahead = (timestamp - self._last) & 0xFFFFFFFF
            self._last += ahead if ahead < 0x80000000 else ahead - 0x100000000
        return FlvTag(kind, self._last, body, self._clock.now())

    def _data(self, timestamp: int, body: bytes) -> Iterator[FlvTag]:
        if body.startswith(_CLEAR_DATA_FRAME):
            self.metadata = {}
            return
        body = body.removeprefix(flv.SET_DATA_FRAME)
        if body.startswith(_ON_META_DATA):
            try:
                self.metadata = flv.parse_metadata(body)
            except RtmpProtocolError as error:
                log.warning("metadata ignored reason=%r", str(error))
                return
        yield self._tag("data", timestamp, body)

    def _aggregate(self, message: Message) -> Iterator[FlvTag]:
        payload, at, shift = message.payload, 0, None
        while at < len(payload):
            header = payload[at : at + _TAG_HEADER_SIZE]
            size = int.from_bytes(header[1:4], "big")
            start = at + _TAG_HEADER_SIZE
            body = payload[start : start + size]
            if len(header) < _TAG_HEADER_SIZE or len(body) < size:
                raise RtmpProtocolError("an aggregate message is cut off")
            timestamp = int.from_bytes(header[7:8] + header[4:7], "big")
            if shift is None:
                shift = message.timestamp - timestamp
            timestamp = (timestamp + shift) & 0xFFFFFFFF
            kind = _KINDS.get(header[0])
            if kind == "data":
                yield from self._data(timestamp, body)
            elif kind is not None:
                yield self._tag(kind, timestamp, body)
            at = start + size + 4  # the size of the tag before


class RtmpConnection:
    """Messages in and out of one stream pair; acknowledgements and pings are answered in ``receive``.

    Nothing is read ahead: bytes leave the socket only when ``receive`` is awaited, so a slow consumer slows its peer
    down by TCP. Held per connection are at most asyncio's 128 KiB, one read of 64 KiB, and ``ChunkLimits``.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        limits: ChunkLimits,
        write_timeout: float = 5.0,
    ) -> None:
        self.bytes_received = 0
        self.chunk_reader = ChunkReader(limits)
        self._reader = reader
        self._writer = writer
        self._chunk_writer = ChunkWriter()
        self._write_timeout = write_timeout
        self._window = OUR_WINDOW
        self._acknowledged = 0
        self._handled = 0
        self._interrupted = False
        self._scope: asyncio.Timeout | None = None

    async def receive(self, within: float) -> Message | None:
        """Gives the next message that is not housekeeping; None at the end of the stream or after ``interrupt``.

        Raises:
            TimeoutError: no byte came for ``within`` seconds, or the peer does not take our answers.
            RtmpProtocolError: what came is not RTMP, or over a limit.
            OSError: the connection was lost.
        """
        while not self._interrupted:
            message = self.chunk_reader.pop()
            if message is None:
                if not await self._read(within):
                    return None
                continue
            self._handled += 1
            if self._handled % _FAIR_SHARE == 0:
                await asyncio.sleep(0)
            if chunks.ACKNOWLEDGEMENT <= message.type_id <= chunks.SET_PEER_BANDWIDTH:
                if self._housekeeping(message):
                    return message
                await self.flush()
            else:
                return message
        return None

    async def _read(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within) as self._scope:
                data = await self._reader.read(READ_SIZE)
        except TimeoutError:
            if self._interrupted:
                return False
            raise
        finally:
            self._scope = None
        self.chunk_reader.feed(data)
        self.bytes_received += len(data)
        if self.bytes_received - self._acknowledged >= self._window:
            self._acknowledged = self.bytes_received
            self.control(chunks.ACKNOWLEDGEMENT, struct.pack(">I", self.bytes_received & 0xFFFFFFFF))
            await self.flush()
        return bool(data)

    def _housekeeping(self, message: Message) -> bool:
        """Acts on a control message (sections 5.4 and 7.1.7); True if it is also of interest further up."""
        payload = message.payload
        match message.type_id:
            case chunks.WINDOW_ACK_SIZE if len(payload) >= 4:
                self._window = int.from_bytes(payload[:4], "big") or self._window
            case chunks.SET_PEER_BANDWIDTH if len(payload) >= 4:
                self.control(chunks.WINDOW_ACK_SIZE, payload[:4])
            case chunks.USER_CONTROL if len(payload) >= 6:
                event = int.from_bytes(payload[:2], "big")
                if event == _PING_REQUEST:
                    self.control(chunks.USER_CONTROL, struct.pack(">H", _PING_RESPONSE) + payload[2:6])
                return event == _STREAM_EOF
        return False

    def interrupt(self) -> None:
        """Makes ``receive`` give None, now if it is waiting; what was not read yet is dropped."""
        self._interrupted = True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def send(self, message: Message) -> None:
        """Queues ``message``; ``flush`` waits until the peer takes it."""
        if not self._writer.is_closing():
            self._writer.write(self._chunk_writer.write(message))

    def control(self, type_id: int, payload: bytes) -> None:
        """Queues a protocol or user control message."""
        self.send(Message(type_id, 0, 0, payload))

    def set_chunk_size(self, size: int = OUR_CHUNK_SIZE) -> None:
        """Queues Set Chunk Size for what we send; FFmpeg as a peer then takes the same size for what it sends."""
        if not self._writer.is_closing():
            self._writer.write(self._chunk_writer.set_chunk_size(size))

    def set_buffer_length(self, stream_id: int, milliseconds: int) -> None:
        """Queues Set Buffer Length, with which a player says how much it wants to hold."""
        self.control(chunks.USER_CONTROL, struct.pack(">HII", _SET_BUFFER_LENGTH, stream_id, milliseconds))

    def command(self, name: str, transaction: float, *arguments: object, stream_id: int = 0) -> None:
        """Queues a command message."""
        payload = amf0.encode(name, transaction, *arguments)
        self.send(Message(chunks.COMMAND_AMF0, stream_id, 0, payload, _COMMAND_CSID))

    def status(self, level: Literal["status", "error"], code: str, description: str, *, stream_id: int) -> None:
        """Queues an ``onStatus`` (section 7.2.2)."""
        info = {"level": level, "code": code, "description": description}
        payload = amf0.encode("onStatus", 0, None, info)
        self.send(Message(chunks.COMMAND_AMF0, stream_id, 0, payload, _STATUS_CSID))

    async def flush(self) -> None:
        """Waits until at most 64 KiB are queued.

        Raises:
            TimeoutError: the peer does not take them in time.
            OSError: the connection was lost.
        """
        async with asyncio.timeout(self._write_timeout):
            await self._writer.drain()

    async def close(self, linger: float = 0.0) -> None:
        """Closes the connection; never raises for the peer's sake.

        With ``linger`` the peer gets up to that many seconds to read what was sent and to close first: a socket closed
        with unread input is reset, and the peer may lose our last words.
        """
        try:
            if linger > 0 and not self._writer.is_closing():
                # RuntimeError: a task the handler left behind still reads.
                with contextlib.suppress(OSError, RuntimeError):
                    await self._linger(linger)
            self._writer.close()
            with contextlib.suppress(OSError):
                async with asyncio.timeout(0.5):
                    await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()
        await asyncio.sleep(0)  # the loop frees an aborted socket on its next turn

    async def _linger(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await self._writer.drain()
            if self._writer.can_write_eof():
                self._writer.write_eof()
            while await self._reader.read(READ_SIZE):
                pass


def tune_socket(writer: asyncio.StreamWriter) -> None:
    """Sends small messages at once, and lets the kernel notice a peer that vanished."""
    sock = writer.get_extra_info("socket")
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
