"""The whole way with real programs: FFmpeg → RTMP → streamfx → nginx-rtmp → FFmpeg, and what may go wrong on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.integration.measure import measure
from tests.integration.programs import (
    free_port,
    needs_ffmpeg,
    needs_nginx,
    nginx_rtmp,
    publish,
    record,
)
from tests.integration.streamfx_process import Running, Stats, streamfx_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

KEY = "s3cr3t-stream-key"


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of the test pattern, as an encoder of a streamer would send it: 360p, 30 fps, a key frame a second."""
    path = tmp_path_factory.mktemp("clip") / "pattern.flv"
    config = path.with_suffix(".yaml")
    config.write_text("encode: {gop_seconds: 1, preset: ultrafast, video_kbps: 2500}\n")
    pattern = "testpattern://?size=640x360&fps=30&duration=60&realtime=0"
    command = [sys.executable, "-m", "streamfx", "run", pattern, str(path), "--config", str(config)]
    subprocess.run(command, check=True, capture_output=True, timeout=110)
    return path


@contextlib.asynccontextmanager
async def relaying(folder: Path, *arguments: str) -> AsyncIterator[tuple[Running, str]]:
    """A streamfx that listens; with the URL to publish to."""
    url = f"rtmp://127.0.0.1:{free_port()}/live/{KEY}"
    async with streamfx_run(folder, f"{url}?listen=1", *arguments) as relay:
        await relay.until(lambda s: "waiting" in s["source_state"], "listening")
        yield relay, url


def output(stats: Stats, part: str) -> Stats:
    """The statistics of the output whose name holds ``part``."""
    (found,) = [row for row in stats["outputs"] if part in row["output"]]
    return found


def is_live(part: str) -> object:
    return lambda stats: stats["outputs"] and output(stats, part)["state"] == "live"


@needs_nginx
async def test_relay_keeps_order_rate_and_sync(tmp_path: Path, clip: Path, nginx: int) -> None:
    target = f"rtmp://127.0.0.1:{nginx}/live/out"
    copy, pulled = tmp_path / "copy.mp4", tmp_path / "pulled.mkv"
    async with relaying(tmp_path, target, str(copy), "--filter", "passthrough") as (relay, url):
        async with publish(clip, url):
            await relay.until(is_live("/live/"), "the push to be live")
            await record(target, pulled, 10)
            stats = await relay.frames(1)
        code, errors = await relay.stop()
    assert code == 0, errors
    assert KEY not in errors
    assert stats["counters"].get("worker_restarts", 0) == 0
    for path in (pulled, copy):
        seen = measure(path)
        # The first second is the filter's start.
        steps = seen.steps(skip=30)
        assert len(steps) > 200
        assert seen.counters.count(None) == 0
        assert min(steps) >= 0, "frames went backwards"
        assert max(steps) <= 2, "more than one frame was lost in a row"
        assert steps.count(1) >= 0.97 * len(steps), f"{steps.count(1)} of {len(steps)} steps were one frame"
        assert max(seen.gaps()[30:]) < 0.05, "the output's frame rate broke"
        offsets = seen.offsets()
        assert len(offsets) >= 5
        assert max(abs(offset) for offset in offsets) < 0.040, f"sound is off by {offsets}"


@needs_ffmpeg
async def test_wrong_key_is_refused_and_the_right_one_still_works(tmp_path: Path, clip: Path) -> None:
    async with relaying(tmp_path, str(tmp_path / "out.mp4")) as (relay, url):
        async with publish(clip, url.replace(KEY, "wrong")) as intruder:
            _, errors = await asyncio.wait_for(intruder.communicate(), 10)
            assert intruder.returncode != 0
            assert b"unknown application or stream key" in errors
        assert "waiting" in relay.stats()["source_state"]
        async with publish(clip, url):
            await relay.frames(30)
        code, _ = await relay.stop()
    assert code == 0


@needs_nginx
async def test_publisher_killed_and_restarted_continues_the_session(tmp_path: Path, clip: Path, nginx: int) -> None:
    target = f"rtmp://127.0.0.1:{nginx}/live/out"
    copy = tmp_path / "copy.mkv"
    async with relaying(tmp_path, target, str(copy), "--filter", "passthrough") as (relay, url):
        async with publish(clip, url) as publisher:
            before = await relay.frames(90)
            publisher.kill()
            await publisher.wait()
        # Longer than it takes to the slate.
        await relay.frames(150)
        assert relay.stats()["counters"]["slate_shown"] > 0
        async with publish(clip, url):
            await relay.until(lambda s: "is on" in s["source_state"], "the publisher to be back")
            after = await relay.frames(90)
        code, _ = await relay.stop()
    assert code == 0
    assert after["session"] == before["session"]
    assert output(after, "/live/")["reconnects"] == 0
    seen = measure(copy)
    assert max(seen.gaps()[30:]) < 0.05, "the output's frame rate broke"
    # The clip began anew: its numbers are seen to rise, fall once, and rise again, in sync.
    assert sum(step < 0 for step in seen.steps()) == 1
    assert max(abs(offset) for offset in seen.offsets()) < 0.040


@needs_nginx
async def test_server_gone_for_ten_seconds(tmp_path: Path, clip: Path) -> None:
    port = free_port()
    target, copy = f"rtmp://127.0.0.1:{port}/live/out", tmp_path / "copy.mkv"
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(nginx_rtmp(tmp_path, port))
        relay, url = await stack.enter_async_context(relaying(tmp_path, target, str(copy)))
        await stack.enter_async_context(publish(clip, url))
        await relay.until(is_live("/live/"), "the push to be live")
        server.terminate()
        await server.wait()
        await relay.until(lambda s: output(s, "/live/")["state"] == "retrying", "the loss to be noticed")
        await asyncio.sleep(10)
        await stack.enter_async_context(nginx_rtmp(tmp_path, port))
        await relay.until(is_live("/live/"), "the push to be back", timeout=40)
        await record(target, tmp_path / "after.mkv", 3)
        stats = relay.stats()
        code, _ = await relay.stop()
    assert code == 0
    assert output(stats, "/live/")["reconnects"] >= 1
    other = output(stats, "copy.mkv")
    assert (other["dropped"], other["reconnects"]) == (0, 0)
    assert set(measure(copy).steps(skip=30)) <= {0, 1, 2}, "the second output noticed"
    # It resumed at a key frame: the first picture can be decoded and read.
    assert measure(tmp_path / "after.mkv").counters[0] is not None


@needs_ffmpeg
async def test_peer_that_says_nothing_blocks_nothing(tmp_path: Path, clip: Path) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.close()

    copy = tmp_path / "copy.mkv"
    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with relaying(tmp_path, f"rtmp://127.0.0.1:{port}/live/out", str(copy)) as (relay, url):
            async with publish(clip, url):
                stats = await relay.until(
                    lambda s: s["outputs"] and output(s, "/live/")["reconnects"] >= 1,
                    "the mute peer to be given up",
                    30,
                )
            code, _ = await relay.stop()
    assert code == 0
    assert output(stats, "/live/")["error"]
    assert output(stats, "copy.mkv")["dropped"] == 0
    seen = measure(copy)
    assert len(seen.times) > 100
    assert set(seen.steps(skip=30)) <= {0, 1, 2}


@needs_nginx
async def test_server_that_stalls_is_left_and_found_again(tmp_path: Path, clip: Path) -> None:
    port = free_port()
    target, copy = f"rtmp://127.0.0.1:{port}/live/out", tmp_path / "copy.mkv"
    async with nginx_rtmp(tmp_path, port) as server, relaying(tmp_path, target, str(copy)) as (relay, url):
        async with publish(clip, url):
            await relay.until(is_live("/live/"), "the push to be live")
            server.send_signal(signal.SIGSTOP)
            try:
                await relay.until(lambda s: output(s, "/live/")["reconnects"] >= 1, "the stall to be noticed", 60)
            finally:
                server.send_signal(signal.SIGCONT)
            stats = await relay.until(is_live("/live/"), "the push to be back", timeout=40)
            assert output(stats, "copy.mkv")["dropped"] == 0
        code, _ = await relay.stop()
    assert code == 0


@needs_ffmpeg
async def test_worker_killed_mid_stream(tmp_path: Path, clip: Path) -> None:
    copy = tmp_path / "copy.mkv"
    async with relaying(tmp_path, str(copy), "--filter", "passthrough") as (relay, url):
        async with publish(clip, url):
            await relay.until(lambda s: s.get("filter_ready"), "the filter to be ready")
            await relay.frames(60)
            (worker,) = [
                child
                for child in psutil.Process(relay.process.pid).children()
                if "worker_process" in " ".join(child.cmdline())
            ]
            os.kill(worker.pid, signal.SIGKILL)
            await relay.until(lambda s: s["counters"].get("worker_restarts") == 1, "the death to be noticed")
            stats = await relay.until(lambda s: s["filter_ready"], "the worker to be back")
            processed = stats["counters"]["processed"]
            await relay.until(lambda s: s["counters"]["processed"] > processed + 30, "frames filtered again")
        code, _ = await relay.stop()
    assert code == 0
    seen = measure(copy)
    assert max(seen.gaps()[30:]) < 0.05, "the stream broke"
    assert min(seen.steps(skip=30)) >= 0


@needs_nginx
async def test_pull_from_a_server_that_restarts(tmp_path: Path, clip: Path) -> None:
    port = free_port()
    source, copy = f"rtmp://127.0.0.1:{port}/live/in", tmp_path / "copy.mkv"
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(nginx_rtmp(tmp_path, port))
        publisher = await stack.enter_async_context(publish(clip, source))
        await asyncio.sleep(1)
        relay = await stack.enter_async_context(streamfx_run(tmp_path, source, str(copy)))
        await relay.frames(60)
        server.kill()
        await server.wait()
        await publisher.wait()
        await relay.until(lambda s: "lost" in s["source_state"], "the loss to be noticed")
        await stack.enter_async_context(nginx_rtmp(tmp_path, port))
        await stack.enter_async_context(publish(clip, source))
        await relay.until(lambda s: s["source_state"] == "pulling", "the stream to be back", 40)
        await relay.frames(60)
        code, errors = await relay.stop()
    assert code == 0, errors
    assert max(measure(copy).gaps()[30:]) < 0.05, "the output's frame rate broke"


@needs_ffmpeg
async def test_slow_filter_keeps_rate_and_latency(tmp_path: Path, clip: Path) -> None:
    filters = tmp_path / "filters"
    filters.mkdir()
    (filters / "slow_filter.py").write_text(
        "import time\n"
        "from streamfx.filters import Filter, FilterInfo, Params\n"
        "class Slow(Filter[Params]):\n"
        "    name = 'slow'\n"
        "    info = FilterInfo(min_scale=1)\n"
        "    def process(self, block, params):\n"
        "        time.sleep(0.1)\n"
        "        return block\n"
    )
    copy = tmp_path / "copy.mkv"
    url = f"rtmp://127.0.0.1:{free_port()}/live/{KEY}"
    arguments = (f"{url}?listen=1", str(copy), "--filter", "slow_filter:Slow")
    async with streamfx_run(tmp_path, *arguments, environment={"PYTHONPATH": str(filters)}) as relay:
        await relay.until(lambda s: "waiting" in s["source_state"], "listening")
        async with publish(clip, url):
            await relay.until(lambda s: s.get("filter_ready"), "the filter to be ready")
            await relay.frames(60)
            early = relay.stats()["delay_ms"]
            await relay.frames(450)
            late = relay.stats()["delay_ms"]
        code, _ = await relay.stop()
    assert code == 0
    assert late <= 251, "the output is behind its budget"
    assert abs(late - early) < 100
    seen = measure(copy)
    assert max(seen.gaps()[30:]) < 0.05, "the output's frame rate broke"
    # A frame in three or four is rendered, and each stands until the next.
    steps = seen.steps(skip=90)
    assert 2.5 < statistics.mean(step for step in steps if step > 0) < 5
