"""Hand-over between tasks, and from a thread to the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfx.core.channel import Bridge, Closed, LatestBlocks


async def test_the_newest_wins_and_the_replaced_are_counted() -> None:
    blocks: LatestBlocks[int] = LatestBlocks()
    for item in range(5):
        blocks.put(item)
    assert await blocks.take() == [4]
    assert blocks.dropped == 4


async def test_take_waits_until_a_block_is_full() -> None:
    blocks: LatestBlocks[int] = LatestBlocks(3)
    taking = asyncio.create_task(blocks.take())
    for item in range(2):
        blocks.put(item)
        await asyncio.sleep(0)
    assert not taking.done()
    blocks.put(2)
    assert await taking == [0, 1, 2]
    assert blocks.dropped == 0


async def test_dropped_counts_items_not_blocks() -> None:
    blocks: LatestBlocks[int] = LatestBlocks(4)
    for item in range(11):
        blocks.put(item)
    assert await blocks.take() == [4, 5, 6, 7]
    assert blocks.dropped == 4


async def test_close_still_hands_out_what_waits() -> None:
    blocks: LatestBlocks[int] = LatestBlocks()
    blocks.put(1)
    blocks.close()
    assert await blocks.take() == [1]
    for _ in range(2):
        with pytest.raises(Closed):
            await blocks.take()


async def test_close_wakes_who_waits() -> None:
    blocks: LatestBlocks[int] = LatestBlocks()
    taking = asyncio.create_task(blocks.take())
    await asyncio.sleep(0)
    blocks.close()
    with pytest.raises(Closed):
        await taking


async def test_clear_forgets_but_does_not_end() -> None:
    blocks: LatestBlocks[int] = LatestBlocks(2)
    taking = asyncio.create_task(blocks.take())
    await asyncio.sleep(0)
    blocks.put(1)
    blocks.put(2)
    blocks.clear()  # before the task that was woken had its turn
    for _ in range(3):
        await asyncio.sleep(0)
    assert not taking.done(), "cleared is not closed"
    blocks.put(3)
    blocks.put(4)
    assert await taking == [3, 4]


async def test_blocks_of_another_size() -> None:
    blocks: LatestBlocks[int] = LatestBlocks(3)
    for n in range(5):
        blocks.put(n)
    assert await blocks.take() == [0, 1, 2]
    blocks.resize(2)
    assert blocks.dropped == 1
    blocks.put(5)
    assert await blocks.take() == [4, 5]
    blocks.put(6)
    blocks.resize(4)
    for n in range(7, 14):
        blocks.put(n)
    assert await blocks.take() == [10, 11, 12, 13]
    assert blocks.dropped == 5


@given(st.lists(st.sampled_from(["put", "take", "clear"]), max_size=60), st.integers(1, 3))
def test_nothing_is_handed_out_twice_or_out_of_order(steps: list[str], size: int) -> None:
    async def play() -> None:
        blocks: LatestBlocks[int] = LatestBlocks(size)
        got: list[int] = []
        item = 0
        for step in steps:
            if step == "put":
                blocks.put(item)
                item += 1
            elif step == "clear":
                blocks.clear()
            else:
                taking = asyncio.ensure_future(blocks.take())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if taking.done():
                    block = taking.result()
                    assert len(block) == size
                    got += block
                else:
                    taking.cancel()
        assert got == sorted(set(got))
        assert len(got) + blocks.dropped <= item

    asyncio.run(play())


async def run_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name="bridge-test")
    thread.start()
    return thread


async def gone(thread: threading.Thread) -> bool:
    await asyncio.to_thread(thread.join, 2.0)
    return not thread.is_alive()


async def test_bridge_keeps_order_and_ends() -> None:
    bridge: Bridge[int] = Bridge(4)

    def work() -> None:
        for item in range(500):
            bridge.send(item)
        bridge.close()

    thread = await run_thread(work)
    assert [item async for item in bridge] == list(range(500))
    assert await gone(thread)


async def reached(sent: list[int], count: int) -> None:
    for _ in range(400):
        if len(sent) >= count:
            return
        await asyncio.sleep(0.005)


async def test_bridge_holds_the_thread_back_while_it_is_full() -> None:
    bridge: Bridge[int] = Bridge(3)
    sent: list[int] = []

    def work() -> None:
        for item in range(10):
            bridge.send(item)
            sent.append(item)
        bridge.close()

    thread = await run_thread(work)
    await reached(sent, 3)
    await asyncio.sleep(0.05)
    assert sent == [0, 1, 2]
    reader = aiter(bridge)
    assert await anext(reader) == 0
    await reached(sent, 4)
    await asyncio.sleep(0.02)
    assert sent == [0, 1, 2, 3]
    assert [item async for item in reader] == list(range(1, 10))
    assert await gone(thread)


async def test_close_on_the_loop_releases_a_thread_that_sends() -> None:
    bridge: Bridge[int] = Bridge(1)
    ended: list[str] = []

    def work() -> None:
        try:
            while True:
                bridge.send(0)
        except Closed:
            ended.append("closed")

    thread = await run_thread(work)
    await asyncio.sleep(0.02)
    assert thread.is_alive()
    bridge.close()
    assert bridge.closed
    assert await gone(thread)
    assert ended == ["closed"]


async def test_close_on_the_loop_releases_a_thread_that_waits() -> None:
    bridge: Bridge[int] = Bridge(1)
    took: list[float] = []

    def work() -> None:
        started = time.monotonic()
        try:
            bridge.wait(30.0)
        except Closed:
            took.append(time.monotonic() - started)

    thread = await run_thread(work)
    await asyncio.sleep(0.02)
    bridge.close()
    assert await gone(thread)
    assert took[0] < 2


async def test_wait_returns_by_itself() -> None:
    bridge: Bridge[int] = Bridge(1)
    await asyncio.to_thread(bridge.wait, 0.01)
    await asyncio.to_thread(bridge.wait, -1.0)
    assert not bridge.closed


async def test_an_error_comes_after_what_was_sent_before_it() -> None:
    bridge: Bridge[int] = Bridge(8)

    def work() -> None:
        for item in range(3):
            bridge.send(item)
        bridge.fail(OSError("gone"))

    thread = await run_thread(work)
    got = []

    async def read() -> None:
        async for item in bridge:
            got.append(item)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(OSError, match="gone"):
        await read()
    assert got == [0, 1, 2]
    assert await gone(thread)


def test_a_thread_survives_the_end_of_the_loop() -> None:
    """The loop may be gone before the thread notices."""
    bridges: list[Bridge[int]] = []

    async def make() -> None:
        bridges.append(Bridge(1))

    asyncio.run(make())
    bridges[0].send(1)
    with pytest.raises(Closed):
        bridges[0].send(2)
