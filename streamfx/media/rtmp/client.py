"""RTMP clients, over rtmp:// or rtmps://: what they share, and the player, which pulls one live stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl as tls
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from streamfx.core.clock import Clock, MonotonicClock
from streamfx.core.errors import SourceError, UsageError, redact
from streamfx.media.rtmp import chunks, flv
from streamfx.media.rtmp.chunks import ChunkLimits, Message
from streamfx.media.rtmp.connection import (
    OUR_WINDOW,
    READ_SIZE,
    Command,
    FlvTag,
    RtmpConnection,
    TagReader,
    parse_command,
    tune_socket,
)
from streamfx.media.rtmp.errors import RtmpProtocolError
from streamfx.media.rtmp.handshake import client_handshake

log = logging.getLogger(__name__)

_PORTS = {"rtmp": 1935, "rtmps": 443}
_CONNECT, _CREATE_STREAM = 1.0, 2.0
_LIVE_OR_RECORDED = -2000.0  # section 7.2.2.1 says -2; servers and players use milliseconds
_ENDINGS = {"NetStream.Play.Stop", "NetStream.Play.UnpublishNotify", "NetStream.Play.Complete"}
_MEDIA = {chunks.AUDIO, chunks.VIDEO, chunks.DATA_AMF0, chunks.DATA_AMF3, chunks.AGGREGATE}
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class RtmpUrl:
    """An RTMP URL in parts: ``app`` is all of the path but its last part, ``name`` that part with the query."""

    scheme: str
    host: str
    port: int
    app: str
    name: str

    @classmethod
    def parse(cls, url: str) -> RtmpUrl:
        """Takes ``rtmp[s]://host[:port]/app[/more]/name[?query]`` apart.

        Raises:
            UsageError: it is not such a URL.
        """
        # The URL is not shown: where it is malformed, nobody knows which part is the key.
        wrong = "this is not an RTMP URL; write rtmp://host/app/stream or rtmps://host/app/stream"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise UsageError(wrong) from None
        app, _, name = parts.path.strip("/").rpartition("/")
        if parts.scheme not in _PORTS or not host or not app or not name:
            raise UsageError(wrong)
        if parts.username is not None:
            raise UsageError("user names in RTMP URLs are not supported; put the key into the stream's name")
        if parts.query:
            name = f"{name}?{parts.query}"
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], app, name)

    @property
    def tc_url(self) -> str:
        """The URL up to the application, as the connect command holds it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.app}"

    def __repr__(self) -> str:
        return f"RtmpUrl({self.tc_url}/****)"


class RtmpClient:
    """A connection to a server, about one of its streams: an async context manager that connects when entered.

    ``timeout`` (seconds) bounds each wait: for the connection, the handshake, each answer. ``ssl`` replaces the
    system's own trust in rtmps:// certificates.

    Raises, when made, ``UsageError`` for a bad URL; everything later is a ``SourceError`` without the stream's name.
    """

    DOING = ""
    """What the connection is for, in errors."""

    def __init__(
        self, url: str, *, timeout: float = 5.0, ssl: tls.SSLContext | None = None, limits: ChunkLimits | None = None
    ) -> None:
        self._url = RtmpUrl.parse(url)
        self._timeout = timeout
        self._ssl = ssl
        self._limits = limits or ChunkLimits()
        self._connection: RtmpConnection | None = None

    @property
    def bytes_received(self) -> int:
        """Bytes received after the handshake."""
        return self._connection.bytes_received if self._connection else 0

    async def __aenter__(self) -> Self:
        """Connects and asks for the stream.

        Raises:
            SourceError: the host is unknown, refuses or is silent, or has no such stream, or does not speak RTMP.
        """
        reader, writer = await self._open()
        connection = self._connection = RtmpConnection(reader, writer, limits=self._limits, write_timeout=self._timeout)
        try:
            with self._told():
                tune_socket(writer)
                await client_handshake(reader, writer, within=self._timeout)
                await self._start(connection)
        except BaseException:
            await connection.close()
            raise
        log.info("connected host=%s port=%d app=%s", self._url.host, self._url.port, self._url.app)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = self._url
        where = f"{url.host}:{url.port}"
        secure = url.scheme == "rtmps"
        context = (self._ssl or tls.create_default_context()) if secure else None
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.open_connection(url.host, url.port, ssl=context, limit=READ_SIZE)
        except TimeoutError:
            raise SourceError(f"{where} did not answer within {self._timeout:g} s; check the address") from None
        except tls.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "no TLS"
            raise SourceError(f"no secure connection to {where}: {reason}; check its certificate") from None
        except ConnectionRefusedError:
            raise SourceError(f"{where} refused the connection; check that the server runs and its port") from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not reachable"
            raise SourceError(f"cannot connect to {where}: {reason}; check the address") from None

    async def _start(self, connection: RtmpConnection) -> None:
        """Asks for the stream, once the handshake is done."""
        raise NotImplementedError

    async def _connect(self, connection: RtmpConnection, **more: object) -> None:
        url = self._url
        connection.control(chunks.WINDOW_ACK_SIZE, OUR_WINDOW.to_bytes(4, "big"))
        connection.set_chunk_size()
        about = {"app": url.app, "flashVer": "LNX 9,0,124,2", "tcUrl": url.tc_url, "fpad": False}
        connection.command("connect", _CONNECT, about | more)
        await self._result(connection, _CONNECT)

    async def _create_stream(self, connection: RtmpConnection) -> int:
        connection.command("createStream", _CREATE_STREAM, None)
        answer = (await self._result(connection, _CREATE_STREAM)).arguments
        stream = answer[1] if len(answer) > 1 else None
        if not isinstance(stream, float) or not 0 <= stream <= 0xFFFFFFFF:
            raise RtmpProtocolError("createStream was answered without a stream id")
        return int(stream)

    async def _result(self, connection: RtmpConnection, transaction: float) -> Command:
        """Waits for the answer to a command of ours."""
        await connection.flush()
        async with asyncio.timeout(self._timeout):
            while True:
                message = await connection.receive(self._timeout)
                if message is None:
                    raise SourceError("the server closed the connection before the stream began")
                command = parse_command(message)
                if command is None or command.transaction != transaction:
                    continue
                if command.name == "_error":
                    raise SourceError(f"the server refused: {self._description(command)}")
                if command.name == "_result":
                    return command

    def _description(self, command: Command) -> str:
        """What the server says, made safe to show: one short line, without the stream's name."""
        info = command.members(1)
        text = next((t for t in (info.get("description"), info.get("code")) if isinstance(t, str) and t), "no reason")
        text = "".join(char if char.isprintable() else " " for char in text)
        name = self._url.name
        return redact(text, (name, name.partition("?")[0]))[:_SHOWN]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what can go wrong on a connection into one sentence."""
        try:
            yield
        except TimeoutError:
            raise SourceError(f"the server sent nothing for {self._timeout:g} s") from None
        except RtmpProtocolError as error:
            raise SourceError(f"{self.DOING} {self._url.host} failed: {error}") from None
        except OSError:
            raise SourceError(f"the connection to {self._url.host} was lost") from None


class RtmpPlayer(RtmpClient):
    """Plays the stream. ``timeout`` bounds silence while playing as well; ``clock`` stamps the tags."""

    DOING = "playing from"

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        clock: Clock | None = None,
        ssl: tls.SSLContext | None = None,
        limits: ChunkLimits | None = None,
    ) -> None:
        super().__init__(url, timeout=timeout, ssl=ssl, limits=limits)
        self._tags = TagReader(clock or MonotonicClock())
        self._early: deque[Message] = deque()

    @property
    def metadata(self) -> dict[str, object]:
        """The properties of the newest ``onMetaData``; empty before the first."""
        return self._tags.metadata

    async def tags(self) -> AsyncIterator[FlvTag]:
        """Gives the stream's tags as they come; ends when the server says that the stream ended, or closes.

        Nothing is queued: bytes are read off the socket only as tags are asked for. One iteration at a time.

        Raises:
            SourceError: silence for ``timeout``, a lost connection, a server that breaks the protocol, or says that
                playing failed.
        """
        connection = self._connection
        if connection is None:
            raise RuntimeError("RtmpPlayer.tags() is for use inside `async with`")
        while True:
            with self._told():
                message = self._early.popleft() if self._early else await connection.receive(self._timeout)
            if message is None or self._is_end(message):
                return
            with self._told():
                tags = list(self._tags.tags(message))
            for tag in tags:
                yield tag

    async def _start(self, connection: RtmpConnection) -> None:
        await self._connect(
            connection,
            capabilities=15,
            audioCodecs=4071,
            videoCodecs=252,
            videoFunction=1,
            fourCcList=[code.decode("ascii") for code in flv.VIDEO_FOURCCS],
        )
        stream = await self._create_stream(connection)
        connection.command("play", 0, None, self._url.name, _LIVE_OR_RECORDED, stream_id=stream)
        connection.set_buffer_length(stream, 1000)
        await self._playing(connection)

    async def _playing(self, connection: RtmpConnection) -> None:
        """Waits until the server says that it plays, or simply does."""
        await connection.flush()
        async with asyncio.timeout(self._timeout):
            while True:
                message = await connection.receive(self._timeout)
                if message is None:
                    raise SourceError("the server closed the connection instead of playing the stream")
                if message.type_id in _MEDIA:
                    self._early.append(message)
                    # Access control data comes before the answer; real media means that there will be none.
                    if message.type_id not in (chunks.DATA_AMF0, chunks.DATA_AMF3) or len(self._early) > 16:
                        return
                elif self._is_end(message):
                    raise SourceError("the stream ended before it began; check that somebody publishes it")
                elif self._status(message) == "NetStream.Play.Start":
                    return

    def _status(self, message: Message) -> str:
        """The code of an ``onStatus``, else ""; a SourceError if it says that playing failed."""
        command = parse_command(message)
        if command is None or command.name != "onStatus":
            return ""
        info = command.members(1)
        code = info.get("code")
        if info.get("level") == "error" or code in ("NetStream.Play.StreamNotFound", "NetStream.Play.Failed"):
            raise SourceError(f"the server does not play this stream: {self._description(command)}")
        return code if isinstance(code, str) else ""

    def _is_end(self, message: Message) -> bool:
        if message.type_id == chunks.USER_CONTROL:
            return True  # the connection hands up no other event than Stream EOF
        with self._told():
            return self._status(message) in _ENDINGS
