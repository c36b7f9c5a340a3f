"""The real clock and the fake one."""

from __future__ import annotations

import asyncio

from streamfx.core.clock import FakeClock, MonotonicClock


async def test_the_real_clock_sleeps_until_the_moment() -> None:
    clock = MonotonicClock()
    start = clock.now()
    await clock.sleep_until(start + 0.02)
    assert clock.now() >= start + 0.02
    await clock.sleep_until(start - 10)
    assert clock.now() < start + 1


async def test_the_fake_clock_stands_until_it_is_moved() -> None:
    clock, woken = FakeClock(5.0), []

    async def sleeper(when: float) -> None:
        await clock.sleep_until(when)
        woken.append((when, clock.now()))

    tasks = [asyncio.create_task(sleeper(when)) for when in (8.0, 6.0, 7.0)]
    await clock.settle()
    assert woken == []
    await clock.advance(2.5)
    assert woken == [(6.0, 6.0), (7.0, 7.0)]
    assert clock.now() == 7.5
    await clock.advance(1)
    await asyncio.gather(*tasks)
    assert woken[-1] == (8.0, 8.0)


async def test_the_fake_clock_runs_chains_of_sleeps_in_time() -> None:
    clock, seen = FakeClock(), []

    async def ticker() -> None:
        for tick in range(1, 11):
            await clock.sleep_until(tick / 10)
            seen.append(clock.now())

    task = asyncio.create_task(ticker())
    await clock.settle()
    await clock.advance(1.0)
    await task
    assert seen == [tick / 10 for tick in range(1, 11)]


async def test_a_cancelled_sleeper_hurts_nobody() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep_until(1.0))
    await clock.settle()
    task.cancel()
    await clock.advance(2.0)
    assert task.cancelled()


async def test_the_past_is_one_turn_away() -> None:
    clock, turns = FakeClock(10.0), []
    other = asyncio.create_task(asyncio.sleep(0, turns.append("other")))
    await clock.sleep_until(3.0)
    await other
    assert clock.now() == 10.0
