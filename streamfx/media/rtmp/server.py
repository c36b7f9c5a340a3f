"""An RTMP server for live ingest: many publishers, each let in by application and stream key."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import hmac
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from types import TracebackType
from typing import Self

from streamfx.core.clock import Clock, MonotonicClock
from streamfx.core.errors import SourceError, StreamFXError, UsageError
from streamfx.media.rtmp.chunks import ChunkLimits
from streamfx.media.rtmp.connection import READ_SIZE, RtmpConnection, tune_socket
from streamfx.media.rtmp.errors import RtmpProtocolError
from streamfx.media.rtmp.handshake import server_handshake
from streamfx.media.rtmp.publish import Publisher, PublishRequest, RefusedError, negotiate, tidy_app

__all__ = ["OnPublish", "Publisher", "RtmpLimits", "RtmpServer"]

log = logging.getLogger(__name__)

OnPublish = Callable[[Publisher], Awaitable[None]]

_BEFORE_PUBLISH = ChunkLimits(max_message=1 << 16, max_partial=1 << 17, max_chunk_streams=16)
_LINGER = 1.0


@dataclass(frozen=True, slots=True)
class RtmpLimits:
    """What the server bears; times in seconds, sizes in bytes.

    ``publish_timeout`` runs from the connection to its ``publish`` command. ``idle_timeout`` is how long a peer may
    send nothing at all. ``refusal_delay`` slows down who guesses keys. ``takeover_timeout`` is how long the handler
    of a replaced publisher may go on before it is cancelled, ``close_timeout`` the same when the server closes.
    """

    handshake_timeout: float = 5.0
    publish_timeout: float = 10.0
    idle_timeout: float = 10.0
    write_timeout: float = 5.0
    refusal_delay: float = 0.5
    takeover_timeout: float = 2.0
    close_timeout: float = 2.0
    max_connections: int = 256
    max_unauthenticated: int = 64
    media: ChunkLimits = field(default_factory=ChunkLimits)


class _Route:
    """One application and key. Only a digest of them is kept, so that no log or traceback can show the key."""

    def __init__(self, app: str, digest: bytes, on_publish: OnPublish) -> None:
        self.app = app
        self.digest = digest
        self.on_publish = on_publish
        self.removed = False
        self.publisher: Publisher | None = None
        self.turn = asyncio.Lock()


class RtmpServer:
    """Takes RTMP streams in: an async context manager that listens while it is entered.

    Each connection runs in one task of the server's; ``on_publish`` is awaited in it, and when that returns the
    publisher is disconnected. Leaving the context ends every publisher's ``tags()``, gives the handlers
    ``close_timeout`` to return, cancels those that have not, and waits for all.

    With ``ssl`` it speaks RTMPS. ``clock`` stamps the tags; timeouts are in real time. With ``port=0`` the system
    picks one, and ``port`` tells it once entered; ``host`` should then be one address.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 1935,
        *,
        clock: Clock | None = None,
        limits: RtmpLimits | None = None,
        ssl: SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._clock = clock or MonotonicClock()
        self._limits = limits or RtmpLimits()
        self._ssl = ssl
        self._secret = os.urandom(32)
        self._routes: list[_Route] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._unauthenticated: set[asyncio.Task[None]] = set()
        self._publishing: dict[Publisher, asyncio.Task[None]] = {}
        self._ids = itertools.count(1)

    def add_route(self, app: str, key: str, on_publish: OnPublish) -> Callable[[], None]:
        """Lets publishers in who push to ``rtmp://host/app/key``, and calls ``on_publish`` with each.

        ``app`` may have several parts ("live/eu"). Where application ends and key begins makes no difference, as
        clients cut URLs differently. A ``?query`` a publisher appends is ignored, unless the key itself holds it.
        Who publishes to a route in use takes it over, as the connection before is often a dead one; the handler of
        the one before has returned, or was cancelled, when ``on_publish`` is called with the next.

        Returns:
            A function that removes the route and ends its publisher; calling it again does nothing.

        Raises:
            UsageError: the application or the key is empty, or the pair is taken.
        """
        app = tidy_app(app)
        if not app or not key:
            raise UsageError("an RTMP route needs an application and a stream key, as in rtmp://host/live/KEY")
        digest = self._digest(app, key)
        if any(hmac.compare_digest(route.digest, digest) for route in self._routes):
            raise UsageError(f"this stream key of application {app!r} is already in use; give each route its own")
        route = _Route(app, digest, on_publish)
        self._routes.append(route)

        def remove() -> None:
            if not route.removed:
                route.removed = True
                self._routes.remove(route)
                if route.publisher is not None:
                    route.publisher.end("the server takes this stream no longer")

        return remove

    async def __aenter__(self) -> Self:
        """Starts to listen.

        Raises:
            SourceError: the port is in use or not allowed, or the host is not an address of this machine.
        """
        try:
            self._server = await asyncio.start_server(
                self._connected,
                self.host,
                self.port,
                limit=READ_SIZE,
                ssl=self._ssl,
                ssl_handshake_timeout=self._limits.handshake_timeout if self._ssl else None,
            )
        except OSError as error:
            raise SourceError(_why_not_listening(self.host, self.port, error)) from None
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("listening host=%s port=%d tls=%s", self.host, self.port, self._ssl is not None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        try:
            for publisher in self._publishing:
                publisher.end("the server closes")
            for task in self._connections.difference(self._publishing.values()):
                task.cancel()
            if self._connections:
                await asyncio.wait(self._connections, timeout=self._limits.close_timeout)
        finally:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            # From Python 3.12 on this also waits for clients still in the TLS handshake, which has its own limit.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limits = self._limits
        if (
            self._server is None
            or len(self._connections) >= limits.max_connections
            or len(self._unauthenticated) >= limits.max_unauthenticated
        ):
            log.warning("connection refused: too many connections=%d", len(self._connections))
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        self._unauthenticated.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(self._unauthenticated.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tune_socket(writer)
        peer = _peer(writer)
        session = next(self._ids)
        limits = self._limits
        connection = RtmpConnection(reader, writer, limits=_BEFORE_PUBLISH, write_timeout=limits.write_timeout)
        linger = 0.0
        try:
            async with asyncio.timeout(limits.publish_timeout):
                await server_handshake(reader, writer, within=limits.handshake_timeout)
                request = await negotiate(connection, limits.idle_timeout)
            linger = _LINGER
            await self._publish(connection, request, peer, session)
        except RefusedError as reason:
            linger = _LINGER
            log.info("refused connection=%d peer=%s reason=%r", session, peer, str(reason))
        except (RtmpProtocolError, OSError) as error:
            log.info("dropped connection=%d peer=%s reason=%r", session, peer, _brief(error))
        except asyncio.CancelledError:
            linger = 0.0
            raise
        except Exception:
            log.exception("failed connection=%d peer=%s", session, peer)
        finally:
            await connection.close(linger)

    async def _publish(self, connection: RtmpConnection, request: PublishRequest, peer: str, session: int) -> None:
        route = self._match(request)
        if route is None:
            await asyncio.sleep(self._limits.refusal_delay)
            raise _refusal(connection, request, "unknown application or stream key")
        task = asyncio.current_task()
        assert task is not None
        self._unauthenticated.discard(task)
        connection.chunk_reader.limits = self._limits.media
        publisher = Publisher(
            connection,
            request.stream_id,
            app=route.app,
            peer=peer,
            clock=self._clock,
            idle_timeout=self._limits.idle_timeout,
        )
        async with route.turn:
            old = route.publisher
            if old is not None and not await self._retire(old, self._publishing[old]):
                raise _refusal(connection, request, "the publisher before does not end")
            if route.removed or self._server is None:
                raise _refusal(connection, request, "the server takes this stream no longer")
            route.publisher = publisher
            self._publishing[publisher] = task
        log.info("publishing connection=%d peer=%s app=%s", session, peer, route.app)
        try:
            await self._handle(route, publisher)
        finally:
            publisher.handled.set()
            if route.publisher is publisher:
                route.publisher = None
            del self._publishing[publisher]
            log.info(
                "published connection=%d peer=%s app=%s bytes=%d reason=%r",
                session,
                peer,
                route.app,
                publisher.bytes_received,
                publisher.ended or "cancelled",
            )

    async def _handle(self, route: _Route, publisher: Publisher) -> None:
        publisher.accept()
        try:
            await route.on_publish(publisher)
        except StreamFXError as error:
            log.warning("handler failed peer=%s app=%s reason=%r", publisher.peer, route.app, str(error))
            publisher.end("the server cannot take this stream now", "NetStream.Publish.Failed")
        except Exception:
            publisher.end("the server cannot take this stream now", "NetStream.Publish.Failed")
            raise
        publisher.end("the server has finished with this stream")

    async def _retire(self, old: Publisher, handler: asyncio.Task[None]) -> bool:
        """Ends the publisher that had the route; True once its handler is done with it, False if it never is."""
        log.info("taken over peer=%s app=%s", old.peer, old.app)
        old.end("another publisher took this stream over", "NetStream.Publish.BadName")
        for attempt in range(2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.takeover_timeout):
                    await old.handled.wait()
                    return True
            if attempt == 0:
                handler.cancel()
        return False

    def _digest(self, app: str, name: str) -> bytes:
        path = f"{app}/{name}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, path, hashlib.sha256)

    def _match(self, request: PublishRequest) -> _Route | None:
        """Compares with every route, so that the time taken tells nothing about any."""
        whole = self._digest(request.app, request.name)
        without_query = self._digest(request.app, request.name.partition("?")[0])
        found = None
        for route in self._routes:
            if hmac.compare_digest(route.digest, whole) | hmac.compare_digest(route.digest, without_query):
                found = route
        return found


def _refusal(connection: RtmpConnection, request: PublishRequest, reason: str) -> RefusedError:
    connection.status("error", "NetStream.Publish.BadName", reason, stream_id=request.stream_id)
    return RefusedError(reason)


def _peer(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername") or ("unknown", 0)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


def _brief(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "too slow or silent"
    return str(error) if isinstance(error, RtmpProtocolError) else "connection lost"


def _why_not_listening(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is already in use; stop the program that uses it or choose another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be used without more rights; choose one above 1023"
    return f"cannot listen on {host}; give an address of this machine, or 0.0.0.0 for all of them"
