"""A trial of a target: connects and asks to publish, as a push does, and leaves before it has sent a picture."""

from __future__ import annotations

import asyncio

from streamfx.core.errors import SinkError, SourceError
from streamfx.media.rtmp.chunks import Message
from streamfx.media.rtmp.client import RtmpClient
from streamfx.media.rtmp.connection import RtmpConnection, parse_command

_SETTLE = 1.0
"""Seconds that a server gets for second thoughts: some say yes to every key, and close when they have looked it up."""
_RELEASE, _FC_PUBLISH, _UNPUBLISH, _DELETE = 2.5, 2.75, 3.0, 4.0


async def try_target(url: str, *, timeout: float = 5.0) -> None:
    """Returns once the server behind ``url`` has agreed to take the stream, and was told goodbye.

    ``timeout``: seconds, of each wait. Raises ``UsageError`` for a bad URL, ``SinkError`` with what the server says,
    never with the key.
    """
    try:
        async with _Trial(url, timeout=timeout):
            pass
    except SourceError as error:
        raise SinkError(str(error)) from error


class _Trial(RtmpClient):
    DOING = "publishing to"

    async def _start(self, connection: RtmpConnection) -> None:
        name = self._url.name
        await self._connect(connection, type="nonprivate")
        connection.command("releaseStream", _RELEASE, None, name)
        connection.command("FCPublish", _FC_PUBLISH, None, name)
        stream = await self._create_stream(connection)
        connection.command("publish", 0, None, name, "live", stream_id=stream)
        await self._agreed(connection)
        await self._settled(connection)
        connection.command("FCUnpublish", _UNPUBLISH, None, name)
        connection.command("deleteStream", _DELETE, None, float(stream))
        await connection.flush()

    async def _agreed(self, connection: RtmpConnection) -> None:
        await connection.flush()
        async with asyncio.timeout(self._timeout):
            while True:
                message = await connection.receive(self._timeout)
                if message is None:
                    raise SourceError("the server closed the connection when it was asked to take the stream")
                if self._says(message) == "NetStream.Publish.Start":
                    return

    async def _settled(self, connection: RtmpConnection) -> None:
        """Waits out the time in which a server may change its mind."""
        try:
            async with asyncio.timeout(_SETTLE):
                while (message := await connection.receive(_SETTLE)) is not None:
                    self._says(message)
        except TimeoutError:
            return
        raise SourceError("the server agreed and closed the connection at once; check the stream key")

    def _says(self, message: Message) -> str:
        """The code of an ``onStatus``, else "". Raises ``SourceError`` if it says no."""
        command = parse_command(message)
        if command is None or command.name not in ("onStatus", "_error", "close"):
            return ""
        info = command.members(1)
        code = info.get("code")
        if command.name != "onStatus" or info.get("level") == "error":
            raise SourceError(f"the server does not take the stream: {self._description(command)}")
        return code if isinstance(code, str) else ""
