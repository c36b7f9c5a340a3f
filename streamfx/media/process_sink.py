"""What sinks have in common that feed a process, which is started again when it or its peer goes away."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from abc import ABC, abstractmethod

from streamfx.core.backoff import Backoff
from streamfx.ipc.child import Child
from streamfx.media.base import SinkState

logger = logging.getLogger(__name__)


_FIRST_WAIT = 1.0
_STABLE_AFTER = 20.0


class Next(enum.Enum):
    """What is to follow an attempt."""

    LATER = enum.auto()
    AT_ONCE = enum.auto()
    NONE = enum.auto()


class ProcessSink(ABC):
    """Its attempts, its state and who waits for it; how it ends. ``_changed`` is set whenever something else may be
    true than before; ``_closing`` once it is to end, ``_ended`` once it has. ``longest_wait``: seconds between
    attempts."""

    def __init__(self, name: str, longest_wait: float = 30.0) -> None:
        self.name = name
        self._backoff = Backoff(first=_FIRST_WAIT, longest=longest_wait)
        self.sent = self.reconnects = self.bytes = 0
        self.state = SinkState.CONNECTING
        self.error = ""
        self._child: Child | None = None
        self._changed = asyncio.Event()
        self._closing = False
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._child.pid if self._child else None

    async def run(self) -> None:
        """Attempts one after the other, with a back-off between, until it is to end or another would be no use."""
        try:
            while not self._closing:
                started = time.monotonic()
                self._set(SinkState.CONNECTING)
                follows = await self._attempt()
                if self._closing:
                    break
                if follows is Next.NONE:
                    self._set(SinkState.FAILED)
                    return
                if follows is Next.AT_ONCE:
                    continue
                if time.monotonic() - started > _STABLE_AFTER:
                    self._backoff.reset()
                self.reconnects += 1
                self._set(SinkState.RETRYING)
                await self._pause(self._backoff.next())
        finally:
            self._end()
        self._set(SinkState.CLOSED)

    @abstractmethod
    async def _attempt(self) -> Next:
        """One life of the process."""

    async def opened(self) -> None:
        """Waits until it takes pictures, or has failed once."""
        while self.state is SinkState.CONNECTING and not self._ended.is_set():
            await self._change()

    async def finish(self, timeout: float) -> None:
        """Lets the process write out what it has, and ends it after ``timeout`` seconds."""
        self._closing = True
        self._changed.set()
        try:
            async with asyncio.timeout(timeout):
                await self._let_go()
                await self._ended.wait()
        except TimeoutError:
            if self._child is not None:
                await self._child.kill()

    async def _let_go(self) -> None:
        """Tells the process that nothing more comes."""
        if self._child is not None:
            self._child.end_input()

    async def _pause(self, seconds: float) -> None:
        """Waits out the back-off; ``finish`` ends it early."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._closing:
                    await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _end(self) -> None:
        """Nobody waits for it any longer."""
        self._ended.set()
        self._changed.set()

    def _set(self, state: SinkState) -> None:
        if state is self.state:
            return
        self.state = state
        self._changed.set()
        logger.info("output=%s state=%s error=%r", self.name, state.value, self.error)
