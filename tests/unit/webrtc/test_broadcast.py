"""One encode for many: who gets what, and who does not slow whom."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from streamfx.core.clock import MonotonicClock
from streamfx.core.slate import Slate
from streamfx.media.webrtc.broadcast import Broadcast, BroadcastSettings, Outlet
from streamfx.media.webrtc.encode import Encoded, OpusEncoder
from tests.unit.webrtc.clients import until


def picture(n: int) -> Any:
    frame = np.zeros((96, 160, 3), np.uint8)
    frame[:, n % 160] = 255
    return frame


@contextlib.asynccontextmanager
async def fed(**settings: Any) -> AsyncIterator[tuple[Broadcast, Callable[[], int]]]:
    """A broadcast that gets 60 pictures a second."""
    broadcast = Broadcast(BroadcastSettings(**settings), MonotonicClock(), Slate)
    count = 0

    async def feed() -> None:
        nonlocal count
        sink = broadcast.sink()
        while True:
            sink.write_video(picture(count), count / 60, float(count))
            sink.write_audio(np.zeros((2, 800), np.float32), count * 800)
            count += 1
            await asyncio.sleep(1 / 60)

    async with broadcast.running(), asyncio.TaskGroup() as group:
        feeding = group.create_task(feed())
        yield broadcast, lambda: count
        feeding.cancel()


async def take(outlet: Outlet, frames: int) -> list[Encoded]:
    taken = []
    async with asyncio.timeout(10):
        while len(taken) < frames:
            frame = await outlet.get()
            assert frame is not None
            taken.append(frame)
    return taken


async def test_a_viewer_starts_with_a_key_frame() -> None:
    async with fed(key_every=0.1) as (broadcast, _):
        first = broadcast.join("H264")
        frames = await take(first.video, 10)
        assert frames[0].key
        assert not any(frame.key for frame in frames[1:])
        assert all(b.ticks > a.ticks for a, b in itertools.pairwise(frames))
        second = broadcast.join("H264")
        joined = await take(second.video, 3)
        assert joined[0].key
        assert broadcast.encodes == ["H264 high"]
        broadcast.leave(first)
        broadcast.leave(second)
        broadcast.leave(second)
        assert broadcast.viewers == 0


async def test_key_frames_are_limited() -> None:
    async with fed(key_every=0.3) as (broadcast, _):
        viewer = broadcast.join("VP8")
        frames = []
        for _ in range(40):
            frames += await take(viewer.video, 1)
            viewer.want_key()
        keys = [frame.ticks / 90_000 for frame in frames if frame.key]
        assert len(keys) >= 2
        assert all(b - a > 0.25 for a, b in itertools.pairwise(keys))


async def test_a_slow_viewer_loses_pictures_and_slows_nobody() -> None:
    async with fed(key_every=0.1) as (broadcast, _):
        slow, quick = broadcast.join("H264"), broadcast.join("H264")
        frames = await take(quick.video, 100)
        assert len(frames) == 100
        assert slow.video.dropped > 0
        assert len(slow.video._frames) <= 45
        assert len(slow.audio._frames) <= 50
        rest = await take(slow.video, 1)
        assert rest[0].key


async def test_a_viewer_moves_between_the_layers() -> None:
    async with fed(key_every=0.05) as (broadcast, _):
        viewer = broadcast.join("H264")
        await take(viewer.video, 3)
        viewer.video.clear()
        viewer.move("low")
        await until(lambda: "H264 low" in broadcast.encodes)
        assert (await take(viewer.video, 1))[0].key
        await until(lambda: broadcast.encodes == ["H264 low"], 8)  # nobody needs the high one any more


async def test_repeated_pictures_are_not_encoded_each_time() -> None:
    broadcast = Broadcast(BroadcastSettings(), MonotonicClock(), Slate)
    async with broadcast.running():
        viewer = broadcast.join("VP8")
        still, sink = picture(0), broadcast.sink()
        for n in range(30):
            sink.write_video(still, n / 30, 0.0)
            await asyncio.sleep(1 / 30)
        assert 3 <= len(viewer.video._frames) <= 8


async def test_time_goes_on_over_restarts_of_the_pipeline() -> None:
    broadcast = Broadcast(BroadcastSettings(), MonotonicClock(), Slate)
    async with broadcast.running():
        viewer = broadcast.join("VP8")
        for run in range(2):
            sink = broadcast.sink()
            for n in range(6):
                sink.write_video(picture(run * 10 + n), n / 30, 0.0)
                await asyncio.sleep(1 / 30)
        frames = await take(viewer.video, 8)
        assert all(b.ticks > a.ticks for a, b in itertools.pairwise(frames))


def test_opus_frames_are_20_ms_without_seams() -> None:
    encoder = OpusEncoder(96_000)
    rng = np.random.default_rng(1)
    frames, start = [], 100
    for count in (1600, 1600, 1601, 7, 960, 5000):
        frames += encoder.encode(rng.normal(0, 0.1, (2, count)).astype(np.float32), start)
        start += count
    assert [frame.ticks - frames[0].ticks for frame in frames] == [960 * n for n in range(len(frames))]
    assert len(frames) == (start - 100) // 960 or len(frames) == (start - 100) // 960 - 1
    jumped = encoder.encode(np.zeros((2, 1920), np.float32), start + 48_000)
    assert jumped[-1].ticks - frames[-1].ticks > 40_000


async def test_an_outlet_ends() -> None:
    outlet = Outlet(3)
    outlet.put(Encoded([b"x"], 0, True, 1))
    assert await outlet.get() is not None
    outlet.close()
    assert await outlet.get() is None
