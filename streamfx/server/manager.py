"""All sessions of a server, and the RTMP port they share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable

from streamfx.core.clock import Clock, MonotonicClock
from streamfx.core.errors import SourceError
from streamfx.media.base import Shared
from streamfx.media.rtmp.server import RtmpServer
from streamfx.server.live_session import ConflictError, FullError, LiveSession, Room
from streamfx.server.settings import ServeConfig, SessionConfig

logger = logging.getLogger(__name__)

RTMP_APP = "live"
_DEFAULT_RTMP_PORT = 1935
_UNUSED_FOR = 600.0
_SWEEP_EVERY = 5.0
_END_TIMEOUT = 8.0


class Manager:
    """Makes, finds and ends sessions. Use it within ``running``."""

    def __init__(self, config: ServeConfig, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or MonotonicClock()
        self.sessions: dict[str, LiveSession] = {}
        self.rtmp_port: int | None = None
        self.accepting = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._routes: dict[str, Callable[[], None]] = {}
        self._shared = Shared()
        self._rtmp: RtmpServer | None = None
        self._group: asyncio.TaskGroup | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts the configured sessions; ends all at the end. Raises what is wrong with the configuration."""
        configured = self.config.all_sessions().items()
        sessions = [
            LiveSession(id, config, self.config, self.clock, Room(self._viewers_left)) for id, config in configured
        ]
        async with self._listening_for_rtmp(), asyncio.TaskGroup() as group:
            self._group = group
            sweeping = group.create_task(self._sweep(), name="sweep")
            try:
                for session in sessions:
                    await self._start(session)
                self.accepting = True
                yield
            finally:
                self.accepting = False
                sweeping.cancel()
                await self._end_all()
                self._group = None

    @contextlib.asynccontextmanager
    async def _listening_for_rtmp(self) -> AsyncIterator[None]:
        port = self.config.rtmp_port
        if port == 0:
            yield
            return
        server = RtmpServer(self.config.host, port or _DEFAULT_RTMP_PORT, clock=self.clock)
        async with contextlib.AsyncExitStack() as stack:
            try:
                self._rtmp = await stack.enter_async_context(server)
                self.rtmp_port = server.port
            except SourceError as error:
                if port is not None:
                    raise
                logger.warning("no publishing by RTMP: %s", error)
            yield

    async def drain(self, within: float) -> None:
        """Takes no new publishers and viewers, tells those there are that it ends, and lets what came go out, for at
        most ``within`` seconds."""
        self.accepting = False
        for session in self.sessions.values():
            session.events.close()  # such streams last as long as their sessions do, and the server waits for them
        for remove in self._routes.values():
            remove()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within), asyncio.TaskGroup() as group:
                for session in self.sessions.values():
                    group.create_task(session.drain(), name=f"drain {session.id}")

    def abort(self) -> None:
        """Ends all sessions at once; what is on its way is lost."""
        for session in self.sessions.values():
            session.abort()

    async def _end_all(self) -> None:
        for session in self.sessions.values():
            session.close()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_END_TIMEOUT)
        for task in self._tasks.values():
            task.cancel()

    def get(self, id: str) -> LiveSession | None:
        return self.sessions.get(id)

    async def create(self, id: str | None, config: SessionConfig) -> LiveSession:
        """A new session, temporary. Raises ``FullError``, ``ConflictError`` or ``UsageError``."""
        if not self.accepting:
            raise FullError("the server is about to end; try again when it is back")
        id = id or secrets.token_hex(4)
        if id in self.sessions:
            raise ConflictError(f"there is a session {id!r} already; choose another id")
        if len(self.sessions) >= self.config.limits.sessions or self._group is None:
            raise FullError("there is no room for another session now; end one, or try again later")
        session = LiveSession(id, config, self.config, self.clock, Room(self._viewers_left), temporary=True)
        await self._start(session)
        return session

    async def end(self, id: str) -> bool:
        """Ends a session and waits for it. Returns False if there is none."""
        session, task = self.sessions.get(id), self._tasks.get(id)
        if session is None or task is None:
            return False
        session.close()
        await asyncio.wait([task], timeout=_END_TIMEOUT)
        task.cancel()
        return True

    async def _start(self, session: LiveSession) -> None:
        assert self._group is not None
        if self._rtmp is not None and session.config.published:
            self._routes[session.id] = self._rtmp.add_route(RTMP_APP, session.rtmp_key, session.publish_rtmp)
        self.sessions[session.id] = session
        self._tasks[session.id] = self._group.create_task(self._run(session), name=f"session {session.id}")
        await session.ready()

    async def _run(self, session: LiveSession) -> None:
        try:
            await session.run(self._shared)
        except BaseExceptionGroup:
            logger.exception("session=%s failed", session.id)
        finally:
            if session.id in self._routes:
                self._routes.pop(session.id)()
            self.sessions.pop(session.id, None)
            self._tasks.pop(session.id, None)

    async def _sweep(self) -> None:
        """Ends temporary sessions that nobody has used for long."""
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            now = self.clock.now()
            for session in list(self.sessions.values()):
                if session.busy:
                    session.used_at = now
                elif session.temporary and now - session.used_at > _UNUSED_FOR:
                    logger.info("session=%s unused, ended", session.id)
                    session.close()

    @property
    def viewers(self) -> int:
        """Of all sessions together."""
        return sum(session.viewers for session in self.sessions.values())

    def _viewers_left(self) -> int:
        return self.config.limits.viewers - self.viewers
