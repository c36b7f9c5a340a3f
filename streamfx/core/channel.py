"""Bounded hand-over between tasks, and from a thread to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):  # noqa: N818 - an end, not an error
    """Nothing more will come."""


class LatestBlocks(Generic[T]):
    """Latest wins: holds at most one block of ``size`` items in waiting; the next full one replaces it.

    Items gather until a block is full. For work under a deadline: what could not be started in time is
    dropped (and counted in ``dropped``), never queued.
    """

    def __init__(self, size: int = 1) -> None:
        self._size = size
        self._gathering: list[T] = []
        self._waiting: list[T] | None = None
        self._news = asyncio.Event()
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Takes an item; never waits."""
        self._gathering.append(item)
        if len(self._gathering) == self._size:
            if self._waiting is not None:
                self.dropped += len(self._waiting)
            self._waiting, self._gathering = self._gathering, []
            self._news.set()

    def resize(self, size: int) -> None:
        """Blocks of another size from the next one on that is not full yet."""
        self._size = size
        spare = len(self._gathering) - (size - 1)
        if spare > 0:
            self.dropped += spare
            self._gathering = self._gathering[spare:]

    def clear(self) -> None:
        """Forgets what waits: the stream was restarted."""
        self._gathering, self._waiting = [], None
        if not self._closed:
            self._news.clear()

    def close(self) -> None:
        """The block in waiting is still handed out; after it ``take`` raises ``Closed``."""
        self._closed = True
        self._news.set()

    async def take(self) -> list[T]:
        """The newest block, as soon as there is one. Raises ``Closed``."""
        while self._waiting is None:
            if self._closed:
                raise Closed
            await self._news.wait()
            if not self._closed:
                self._news.clear()  # what it told of may be cleared by now
        block, self._waiting = self._waiting, None
        return block


class Bridge(Generic[T]):
    """A bounded queue from one thread to the event loop: ``send`` blocks the thread while it is full.

    Iterate over it on the loop; ``close`` from either side. An exception given to ``fail`` is raised where
    the items are read, after those that came before it.
    """

    def __init__(self, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._news = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    def send(self, item: T) -> None:
        """From the thread: hands over an item, waiting for room. Raises ``Closed`` once nobody wants it."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                raise Closed
            self._items.append(item)
        self._wake()

    def wait(self, seconds: float) -> None:
        """From the thread: sleeps, but wakes up and raises ``Closed`` when the other side closes."""
        with self._changed:
            if self._changed.wait_for(lambda: self._closed, timeout=max(0.0, seconds)):
                raise Closed

    def fail(self, error: BaseException) -> None:
        """From the thread: ends the stream of items with an error."""
        self._error = error
        self.close()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop is gone, and with it everybody who could have read
            self._closed = True

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            await self._news.wait()
            self._news.clear()
            while True:
                with self._changed:
                    if not self._items:
                        break
                    item = self._items.popleft()
                    self._changed.notify_all()
                yield item
            if self._closed and not self._items:
                if self._error is not None:
                    raise self._error
                return
