"""One monotonic clock for the whole pipeline, and a fake one that tests advance by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Time in seconds that never goes backwards. The zero point means nothing."""

    def now(self) -> float: ...

    async def sleep_until(self, when: float) -> None:
        """Returns at ``when`` or later; at once (after one turn of the loop) if it has passed."""
        ...


class MonotonicClock:
    """``time.monotonic``; comparable between the processes of one machine on Linux, macOS and Windows."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - time.monotonic()))


class FakeClock:
    """A clock for tests: time stands still until ``advance`` moves it and wakes whoever is due."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep_until(self, when: float) -> None:
        if when <= self._now:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Moves time on by ``seconds``, stopping at every sleeper on the way so that it acts in time."""
        end = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, woken = heapq.heappop(self._sleepers)
            self._now = max(self._now, when)
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        self._now = end
        await self.settle()

    @staticmethod
    async def settle(turns: int = 20) -> None:
        """Lets every task that can run do so before time moves again."""
        for _ in range(turns):
            await asyncio.sleep(0)
