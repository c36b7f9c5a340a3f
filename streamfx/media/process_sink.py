"""What sinks have in common that feed a process, which is started again when it or its peer goes away."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from streamfx.ipc.child import Child
from streamfx.media.base import SinkState

logger = logging.getLogger(__name__)


class ProcessSink:
    """Its state and who waits for it; how it ends. ``_changed`` is set whenever something else may be true than before;
    ``_closing`` once it is to end, ``_ended`` once it has."""

    def __init__(self, name: str) -> None:
        self.name = name
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
