"""Sources that block: their work runs in a thread of its own and its frames arrive on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable

from streamfx.core.channel import Bridge, Closed
from streamfx.core.errors import SourceError, StreamFXError
from streamfx.core.frames import Frame
from streamfx.media.base import MediaInfo, Source

logger = logging.getLogger(__name__)

_OPEN_TIMEOUT = 20.0
_CAPACITY = 8
_JOIN_TIMEOUT = 1.0


class Outlet:
    """What the thread is given: where to announce itself and to send its frames."""

    def __init__(self, bridge: Bridge[Frame], announced: asyncio.Future[MediaInfo]) -> None:
        self._loop = asyncio.get_running_loop()
        self._announced = announced
        self._bridge = bridge
        self._wanted = threading.Event()
        self.counters: Counter[str] = Counter()
        self.send = bridge.send
        self.wait = bridge.wait

    def count(self, name: str) -> None:
        """Something was lost."""
        self.counters[name] += 1

    def announce(self, info: MediaInfo) -> None:
        """Says what is to come; once, before the first frame. Returns when somebody begins to read: a paced source
        that started earlier would be behind from the start."""
        self._loop.call_soon_threadsafe(_resolve, self._announced, info)
        while not self._wanted.wait(0.01):
            self._bridge.wait(0.01)

    def begin(self) -> None:
        """From the loop: the frames are wanted from now on."""
        self._wanted.set()


class ThreadedSource:
    """A source whose frames come over a bridge."""

    def __init__(self, info: MediaInfo, outlet: Outlet, bridge: Bridge[Frame]) -> None:
        self.info = info
        self._outlet = outlet
        self._bridge = bridge

    def stats(self) -> dict[str, int]:
        return dict(self._outlet.counters)

    async def frames(self) -> AsyncIterator[Frame]:
        self._outlet.begin()
        async for frame in self._bridge:
            yield frame


@contextlib.asynccontextmanager
async def threaded_source(produce: Callable[[Outlet], None], name: str) -> AsyncIterator[Source]:
    """Runs ``produce`` in a thread for the length of the block. It announces itself, sends frames and returns;
    its errors come out where the frames are read. Leaving the block ends it at its next ``send`` or ``wait``."""
    bridge: Bridge[Frame] = Bridge(_CAPACITY)
    announced: asyncio.Future[MediaInfo] = asyncio.get_running_loop().create_future()
    outlet = Outlet(bridge, announced)
    loop = asyncio.get_running_loop()

    def work() -> None:
        error: Exception | None = None
        try:
            produce(outlet)
        except Closed:
            pass
        except StreamFXError as failure:
            error = failure
        except Exception as failure:
            logger.debug("source=%s failed", name, exc_info=True)
            error = SourceError(f"{name} cannot be read: {type(failure).__name__}: {failure}")
        if error is not None:
            bridge.fail(error)
        bridge.close()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_reject, announced, error or SourceError(f"{name} has no picture"))

    thread = threading.Thread(target=work, name=f"source {name}", daemon=True)
    thread.start()
    try:
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT):
                info = await announced
        except TimeoutError:
            raise SourceError(
                f"{name} gave no picture within {_OPEN_TIMEOUT:.0f} s; check that it can be read"
            ) from None
        yield ThreadedSource(info, outlet, bridge)
    finally:
        bridge.close()
        # Released by close(); a disk that hangs must not hang us as well.
        await asyncio.shield(asyncio.to_thread(thread.join, _JOIN_TIMEOUT))


def _resolve(future: asyncio.Future[MediaInfo], info: MediaInfo) -> None:
    if not future.done():
        future.set_result(info)


def _reject(future: asyncio.Future[MediaInfo], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # it may be that nobody waits any more
