"""One publisher at the server: the commands up to ``publish``, and the tags after it (RTMP 1.0, section 7.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Literal

from streamfx.core.clock import Clock
from streamfx.media.rtmp import chunks, flv
from streamfx.media.rtmp.amf0 import UNDEFINED
from streamfx.media.rtmp.connection import (
    OUR_WINDOW,
    Command,
    FlvTag,
    RtmpConnection,
    TagReader,
    parse_command,
)
from streamfx.media.rtmp.errors import RtmpProtocolError

log = logging.getLogger(__name__)

_MAX_STREAMS = 16
_DYNAMIC = b"\x02"  # limit type of Set Peer Bandwidth (section 5.4.5)
_FOURCCS = [code.decode("ascii") for code in (*flv.VIDEO_FOURCCS, *flv.AUDIO_FOURCCS)]
_CAN_DECODE = 1


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What a client asks for: ``app`` without query or outer slashes, ``name`` (holds the key) as it was sent."""

    app: str
    name: str
    stream_id: int

    def __repr__(self) -> str:
        return "PublishRequest(****)"


class RefusedError(Exception):
    """The client asked for what is not served; it has been told so."""


async def negotiate(connection: RtmpConnection, idle: float) -> PublishRequest:
    """Answers a client's commands until it asks to publish.

    Raises:
        RefusedError: it wants to play, or it left.
        RtmpProtocolError, TimeoutError, OSError: as ``RtmpConnection.receive``.
    """
    app: str | None = None
    streams = 0
    while True:
        message = await connection.receive(idle)
        if message is None:
            raise RefusedError("left before it published")
        command = parse_command(message)
        if command is None:
            continue  # media or metadata before publish has nowhere to go
        if app is None and command.name != "connect":
            raise RtmpProtocolError("the first command is not connect")
        match command.name:
            case "connect":
                if app is not None:
                    raise RtmpProtocolError("a second connect command")
                asked = command.members(0).get("app")
                app = asked if isinstance(asked, str) else ""
                _accept_connect(connection, command)
            case "createStream":
                streams += 1
                if streams > _MAX_STREAMS:
                    raise RtmpProtocolError(f"more than {_MAX_STREAMS} message streams")
                connection.command("_result", command.transaction, None, float(streams))
            case "releaseStream" | "FCPublish" | "_checkbw":
                connection.command("_result", command.transaction, None, UNDEFINED)
            case "publish":
                return PublishRequest(tidy_app(app or ""), command.text(1), command.stream_id)
            case "play" | "play2":
                connection.status(
                    "error",
                    "NetStream.Play.Failed",
                    "this server takes streams in and plays none",
                    stream_id=command.stream_id,
                )
                raise RefusedError("asked to play")
            case _:
                log.debug("command ignored name=%.40r", command.name)
        await connection.flush()


def tidy_app(app: str) -> str:
    """The application name without its query and outer slashes: " /live/eu/?a=b" is "live/eu"."""
    return app.partition("?")[0].strip(" /")


def _accept_connect(connection: RtmpConnection, command: Command) -> None:
    window = OUR_WINDOW.to_bytes(4, "big")
    connection.control(chunks.WINDOW_ACK_SIZE, window)
    connection.control(chunks.SET_PEER_BANDWIDTH, window + _DYNAMIC)
    connection.set_chunk_size()
    properties = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31} | _enhanced(command.members(0))
    info = {
        "level": "status",
        "code": "NetConnection.Connect.Success",
        "description": "connected",
        "objectEncoding": 0,
    }
    connection.command("_result", command.transaction, properties, info)


def _enhanced(asked: dict[str, object]) -> dict[str, object]:
    """The enhanced RTMP properties to answer with: of the codecs a client lists, those ``flv`` can parse."""
    answer: dict[str, object] = {}
    listed = asked.get("fourCcList")
    if isinstance(listed, list):
        answer["fourCcList"] = _common(listed)
    for name, known in (("videoFourCcInfoMap", flv.VIDEO_FOURCCS), ("audioFourCcInfoMap", flv.AUDIO_FOURCCS)):
        listed = asked.get(name)
        if isinstance(listed, dict):
            ours = {code.decode("ascii") for code in known}
            answer[name] = {code: _CAN_DECODE for code in _common(listed) if code in ours}
    return answer


def _common(listed: Iterable[object]) -> list[str]:
    codes = {code for code in listed if isinstance(code, str)}
    return [code for code in _FOURCCS if code in codes or "*" in codes]


class Publisher:
    """A publisher that was let in.

    ``app`` and ``peer`` ("ip:port") say who it is, ``metadata`` is its newest ``onMetaData``, and ``ended`` is None
    while it lives, then a few words on why it does not. ``handled`` is set once its handler is done with it.
    """

    def __init__(
        self, connection: RtmpConnection, stream_id: int, *, app: str, peer: str, clock: Clock, idle_timeout: float
    ) -> None:
        self.app = app
        self.peer = peer
        self.ended: str | None = None
        self._connection = connection
        self._stream_id = stream_id
        self._idle_timeout = idle_timeout
        self._tags = TagReader(clock)
        self.handled = asyncio.Event()

    @property
    def metadata(self) -> dict[str, object]:
        """The properties of the newest ``onMetaData``; empty before the first."""
        return self._tags.metadata

    @property
    def bytes_received(self) -> int:
        """Bytes taken off the connection after the handshake, commands and headers included."""
        return self._connection.bytes_received

    async def tags(self) -> AsyncIterator[FlvTag]:
        """Gives the tags as they come, and ends, without an error, when the publisher leaves, unpublishes, falls
        silent, breaks the protocol, is taken over or is ended; ``ended`` then says which.

        Nothing is queued: bytes are read off the socket only as tags are asked for, so who asks slowly slows the
        publisher down, and who stops asking neither sees it leave nor answers its pings. One iteration at a time.
        """
        while self.ended is None:
            try:
                message = await self._connection.receive(self._idle_timeout)
                if message is None:
                    self._finish("disconnected")
                elif message.type_id in (chunks.COMMAND_AMF0, chunks.COMMAND_AMF3):
                    self._act(parse_command(message))
                    await self._connection.flush()
                else:
                    for tag in self._tags.tags(message):
                        yield tag
            except TimeoutError:
                self._finish(f"silent for {self._idle_timeout:g} s")
            except RtmpProtocolError as error:
                self._finish(f"broke the protocol: {error}")
            except OSError:
                self._finish("connection lost")

    def end(self, reason: str, code: str = "NetStream.Unpublish.Success") -> None:
        """Ends ``tags()`` now and tells the publisher ``reason``; it is disconnected once its handler returns."""
        if self.ended is not None:
            return
        level: Literal["status", "error"] = "status" if code == "NetStream.Unpublish.Success" else "error"
        self._connection.status(level, code, reason, stream_id=self._stream_id)
        self._finish(reason)
        self._connection.interrupt()

    def _finish(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason

    def accept(self) -> None:
        """Tells the publisher to begin; the server's part."""
        info = {"code": "NetStream.Publish.Start", "description": "publishing"}
        self._connection.command("onFCPublish", 0, None, info, stream_id=self._stream_id)
        self._connection.status("status", "NetStream.Publish.Start", "publishing", stream_id=self._stream_id)

    def _act(self, command: Command | None) -> None:
        match command:
            case Command(name="FCUnpublish"):
                info = {"code": "NetStream.Unpublish.Success", "description": "unpublished"}
                self._connection.command("onFCUnpublish", 0, None, info, stream_id=self._stream_id)
                self.end("unpublished")
            case Command(name="deleteStream" | "closeStream"):
                self.end("unpublished")
            case Command(name="publish"):
                self.end("a connection publishes one stream", "NetStream.Publish.BadName")
            case Command(name="releaseStream" | "FCPublish" | "_checkbw"):
                self._connection.command("_result", command.transaction, None, UNDEFINED)
            case Command():
                log.debug("command ignored name=%.40r", command.name)
