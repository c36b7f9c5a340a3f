"""What the pipeline itself costs: streamfx without and with a filter that does nothing, against a plain ffmpeg relay.

    python -m benchmarks.relay [--seconds 20]

One publisher sends 1280x720 at 30 fps to nginx-rtmp. Each relay in turn pulls it, decodes, encodes (x264 veryfast,
zerolatency, the same bitrate) and pushes it back under another name. Printed: CPU of the relay with its children, in
percent of one core and per frame, and the latency it adds, from the frame numbers seen at its input and at its output.
Needs ffmpeg and nginx with its RTMP module.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.machine import describe
from streamfx.core.frames import VideoFrame
from streamfx.media.pattern import read_counter
from streamfx.media.rtmp.client import RtmpPlayer
from streamfx.media.rtmp.decode import TagDecoder
from tests.integration.programs import FFMPEG, free_port, nginx_rtmp, program, publish

_KBPS = 3000


@dataclass(frozen=True, slots=True)
class Cost:
    """``cpu``: cores used. ``fps``: pictures put out a second. ``latency``: seconds a picture took, one each."""

    cpu: float
    fps: float
    latency: list[float]


async def watch(url: str, seen: dict[int, float]) -> None:
    """Notes when each frame number first comes by at ``url``; decoding costs both ends the same."""
    decoder = TagDecoder((320, 180))
    async with RtmpPlayer(url, timeout=20) as player:
        async for tag in player.tags():
            for frame in await asyncio.to_thread(decoder.decode, tag):
                if isinstance(frame, VideoFrame):
                    number = read_counter(frame.pixels)
                    if number is not None:
                        seen.setdefault(number, tag.received_at)


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncIterator[dict[int, float]]:
    seen: dict[int, float] = {}
    task = asyncio.create_task(watch(url, seen))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure(command: list[str], source: str, target: str, seconds: float) -> Cost:
    async with program(*command) as relay, watching(source) as before:
        await asyncio.sleep(4)
        async with watching(target) as after:
            await asyncio.sleep(4)
            used, began, frames = cpu_seconds(relay.pid), time.monotonic(), len(after)
            await asyncio.sleep(seconds)
            used, elapsed, frames = cpu_seconds(relay.pid) - used, time.monotonic() - began, len(after) - frames
    latency = [after[number] - before[number] for number in after if number in before]
    return Cost(used / elapsed, frames / elapsed, latency)


def cpu_seconds(pid: int) -> float:
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def commands(source: str, target: str) -> dict[str, list[str]]:
    streamfx = [sys.executable, "-m", "streamfx", "run", source, target, "--config"]
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-g", "60", "-sc_threshold", "0"]
    rate = ["-b:v", f"{_KBPS}k", "-maxrate", f"{_KBPS}k", "-bufsize", f"{_KBPS}k", "-c:a", "aac", "-b:a", "128k"]
    ffmpeg = [FFMPEG or "ffmpeg", "-loglevel", "error", "-i", source, *encoder, *rate, "-f", "flv", target]
    return {
        "ffmpeg": ffmpeg,
        "streamfx, no filter": [*streamfx, "CONFIG"],
        "streamfx, passthrough filter": [*streamfx, "CONFIG", "--filter", "passthrough"],
        "streamfx, toon filter": [*streamfx, "CONFIG", "--filter", "toon"],
    }


async def compare(seconds: float, folder: Path) -> dict[str, Cost]:
    clip, config = folder / "clip.flv", folder / "encode.yaml"
    config.write_text(f"encode: {{video_kbps: {_KBPS}}}\n")
    pattern = f"testpattern://?size=1280x720&fps=30&duration={4 * (seconds + 20):.0f}&realtime=0"
    make = [sys.executable, "-m", "streamfx", "run", pattern, str(clip), "--config", str(config)]
    async with program(*make) as making:
        _, errors = await making.communicate()
        assert making.returncode == 0, errors.decode()
    port = free_port()
    source, target = f"rtmp://127.0.0.1:{port}/live/in", f"rtmp://127.0.0.1:{port}/live/out"
    costs = {}
    async with nginx_rtmp(folder, port), publish(clip, source):
        await asyncio.sleep(2)
        for name, command in commands(source, target).items():
            placed = [str(config) if part == "CONFIG" else part for part in command]
            costs[name] = await measure(placed, source, target, seconds)
            await asyncio.sleep(1)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20)
    with tempfile.TemporaryDirectory() as folder:
        costs = asyncio.run(compare(parser.parse_args().seconds, Path(folder)))
    print(describe())
    print("| relay | CPU, % of a core | CPU a frame, ms | against ffmpeg | fps | latency added p50, ms | p99, ms |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    floor = costs["ffmpeg"].cpu
    for name, cost in costs.items():
        ordered = sorted(cost.latency)
        p50, p99 = statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))]
        print(
            f"| {name} | {100 * cost.cpu:.0f} | {1e3 * cost.cpu / cost.fps:.1f} | {cost.cpu / floor:.2f} | "
            f"{cost.fps:.1f} | {1e3 * p50:.0f} | {1e3 * p99:.0f} |"
        )


if __name__ == "__main__":
    main()
