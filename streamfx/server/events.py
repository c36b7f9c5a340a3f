"""What happens in a session, for whoever listens: bounded for each, so that a slow listener costs nobody anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

_MOST_WAITING = 128


@dataclass(frozen=True, slots=True)
class Event:
    """``name``: what kind; ``data``: JSON values."""

    name: str
    data: dict[str, Any]


class Listener:
    """One listener's queue; when it is full, the oldest go."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=_MOST_WAITING)
        self._news = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()


class EventHub:
    """Hands every event to every listener."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def publish(self, name: str, data: dict[str, Any]) -> None:
        event = Event(name, data)
        for listener in self._listeners:
            listener.put(event)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Listener]:
        """A listener for the length of the block."""
        listener = Listener()
        if self._closed:
            listener.close()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Ends every listener once it has taken what waits."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
