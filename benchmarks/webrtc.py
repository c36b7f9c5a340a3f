"""WebRTC: latency against plain aiortc, CPU by number of viewers, frame rate at 1280x720.

    python -m benchmarks.webrtc [latency] [viewers] [hd] [--seconds 10]

latency: an aiortc client sends 640x480 at 30 fps with frame numbers and reads them in what comes back, once from a
minimal aiortc echo (decode, encode, nothing else), once from streamfx; in turns, so that both see the same machine.
viewers: CPU of the server for 1, 4, 8, 16 viewers, with one encode for all (streamfx) and one for each (plain aiortc).
hd: pictures a second that reach a viewer when ffmpeg publishes 1280x720 at 30 fps by RTMP.
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
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import psutil
from aiortc import MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from benchmarks.machine import describe
from streamfx.media.pattern import Pattern, read_counter
from streamfx.media.webrtc import compat
from tests.integration.programs import free_port, program, publish

ROUNDS = 3
PARTS = {"latency", "viewers", "hd"}


class Camera(MediaStreamTrack):
    """The test pattern in real time; notes when each frame was handed out."""

    kind = "video"

    def __init__(self, size: tuple[int, int] = (640, 480)) -> None:
        super().__init__()
        pattern = Pattern(size, 30)
        drawn = [pattern.picture(n) for n in range(300)]
        self._frames = [av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p") for picture in drawn]
        self._start: float | None = None
        self._count = 0
        self.sent: dict[int, float] = {}

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        self._start = self._start or loop.time()
        await asyncio.sleep(max(0.0, self._start + self._count / 30 - loop.time()))
        number = self._count % len(self._frames)
        frame = self._frames[number]
        frame.pts, frame.time_base = self._count * 3000, Fraction(1, 90_000)
        self._count += 1
        self.sent[number] = time.monotonic()
        return frame


class Counting:
    """Stands for a decoder that costs nothing: counts frames by their markers."""

    def __init__(self) -> None:
        self.frames = 0

    def add(self, packet: Any) -> bool:
        self.frames += packet.marker
        return False


@contextlib.asynccontextmanager
async def serving(*command: str, port: int) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """A server in a process of its own: (client, pid)."""
    async with program(sys.executable, "-m", *command) as process:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            for _ in range(200):
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
            yield http, process.pid
        process.terminate()
        await asyncio.wait_for(process.wait(), 15)


@contextlib.asynccontextmanager
async def peer(http: httpx.AsyncClient, path: str, camera: Camera | None) -> AsyncIterator[Any]:
    """A connection; gives the track that comes (with a camera), or what counts its frames."""
    connection = RTCPeerConnection(RTCConfiguration([], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    came: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
    connection.on("track", lambda track: None if came.done() else came.set_result(track))
    transceiver = connection.addTransceiver(camera or "video", "sendrecv" if camera else "recvonly")
    there = transceiver.sender.getCapabilities("video").codecs
    # Both servers with the same codec: aiortc's echo would take VP8, streamfx H.264.
    transceiver.setCodecPreferences([codec for codec in there if codec.mimeType in ("video/VP8", "video/rtx")])
    counting = Counting()
    if camera is None:
        compat.take_over_receiver(transceiver.receiver, counting, lambda rtp, ntp: None)  # type: ignore[arg-type]
    try:
        await connection.setLocalDescription(await connection.createOffer())
        sdp = connection.localDescription.sdp
        made = await http.post(path, content=sdp, headers={"Content-Type": "application/sdp"})
        made.raise_for_status()
        await connection.setRemoteDescription(RTCSessionDescription(made.text, "answer"))
        yield await asyncio.wait_for(came, 10) if camera else counting
        await http.delete(made.headers["location"])
    finally:
        if camera is not None:
            camera.stop()
        await compat.close(connection)


async def latencies(http: httpx.AsyncClient, seconds: float) -> list[float]:
    """Seconds from a frame's being handed to the sender to its being decoded again, one for each."""
    camera = Camera()
    found: list[float] = []
    async with peer(http, "/whip/live", camera) as track:
        end = time.monotonic() + seconds + 3
        while time.monotonic() < end:
            frame = await asyncio.wait_for(track.recv(), 10)
            now = time.monotonic()
            number = read_counter(frame.to_ndarray(format="rgb24"))
            sent = camera.sent.pop(number, None) if number is not None else None
            if sent is not None and now > end - seconds and now - sent < 5:
                found.append(now - sent)
    return found


async def compare_latency(seconds: float) -> None:
    results: dict[str, list[float]] = {"plain aiortc echo": [], "streamfx, no filter": [], "streamfx, passthrough": []}
    for _ in range(ROUNDS):
        port = free_port()
        async with serving("benchmarks.echo_server", str(port), port=port) as (http, _):
            results["plain aiortc echo"] += await latencies(http, seconds)
        for name, more in (("streamfx, no filter", []), ("streamfx, passthrough", ["--filter", "passthrough"])):
            port = free_port()
            command = ("streamfx", "serve", "--port", str(port), "--rtmp-port", "0", *more)
            async with serving(*command, port=port) as (http, _):
                results[name] += await latencies(http, seconds)
    print("| 640x480 at 30 fps, there and back | p50, ms | p95, ms | against the echo | frames |")
    print("|---|---:|---:|---:|---:|")
    floor = statistics.median(results["plain aiortc echo"])
    for name, values in results.items():
        p50, p95 = statistics.median(values), sorted(values)[int(0.95 * (len(values) - 1))]
        print(f"| {name} | {1e3 * p50:.0f} | {1e3 * p95:.0f} | {p50 / floor:.2f} | {len(values)} |", flush=True)


def cpu_seconds(pid: int) -> float:
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


async def viewers_cost(
    command: tuple[str, ...], port: int, path: str, count: int, seconds: float
) -> tuple[float, float]:
    """(cores used, frames a second that each viewer got)."""
    async with serving(*command, port=port) as (http, pid), contextlib.AsyncExitStack() as stack:
        counters = [await stack.enter_async_context(peer(http, path, None)) for _ in range(count)]
        await asyncio.sleep(4)
        before, frames, began = cpu_seconds(pid), sum(c.frames for c in counters), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        used = cpu_seconds(pid) - before
        return used / took, (sum(c.frames for c in counters) - frames) / took / count


async def compare_viewers(seconds: float, folder: Path) -> None:
    config = folder / "serve.yaml"
    config.write_text(
        "rtmp_port: 0\nsessions: {test: {source: 'testpattern://?size=640x480&fps=30'}}\n"
        "limits: {requests_per_second: 1000, requests_burst: 1000}\n"
    )
    print("| viewers of 640x480 at 30 fps | one encode for all: CPU, % of a core | fps each "
          "| an encode for each (aiortc): CPU, % | fps each |")  # fmt: skip
    print("|---:|---:|---:|---:|---:|")
    for count in (1, 4, 8, 16):
        port = free_port()
        ours = ("streamfx", "serve", "--config", str(config), "--port", str(port))
        shared, fps = await viewers_cost(ours, port, "/whep/test", count, seconds)
        port = free_port()
        theirs = ("benchmarks.echo_server", str(port))
        single, single_fps = await viewers_cost(theirs, port, "/whep/live", count, seconds)
        print(f"| {count} | {100 * shared:.0f} | {fps:.1f} | {100 * single:.0f} | {single_fps:.1f} |", flush=True)


async def measure_hd(seconds: float, folder: Path) -> None:
    clip = folder / "clip.flv"
    pattern = f"testpattern://?size=1280x720&fps=30&duration={seconds + 10:.0f}&realtime=0"
    async with program(sys.executable, "-m", "streamfx", "run", pattern, str(clip)) as making:
        _, errors = await making.communicate()
        assert making.returncode == 0, errors.decode()
    print(
        "| 1280x720 at 30 fps, RTMP in, one viewer | fps at the viewer | rendered in time | rung | CPU, % of a core |"
    )
    print("|---|---:|---:|---|---:|")
    for name in ("none", "passthrough", "pixelate", "toon"):
        port, rtmp = free_port(), free_port()
        more = () if name == "none" else ("--filter", name)
        command = ("streamfx", "serve", "--port", str(port), "--rtmp-port", str(rtmp), *more)
        async with serving(*command, port=port) as (http, pid):
            ingest = (await http.get("/sessions/live")).json()["ingest"]["rtmp"]
            async with publish(clip, f"{ingest['url']}/{ingest['key']}"), peer(http, "/whep/live", None) as counting:
                await asyncio.sleep(6)
                before, frames, began = cpu_seconds(pid), counting.frames, time.monotonic()
                await asyncio.sleep(seconds)
                took = time.monotonic() - began
                used, fps = cpu_seconds(pid) - before, (counting.frames - frames) / took
                meter = (await http.get("/sessions/live/stats")).json()
        share = "" if meter["on_time"] is None else f"{100 * meter['on_time']:.1f} %"
        print(f"| {name} | {fps:.1f} | {share} | {meter['rung'] or ''} | {100 * used / took:.0f} |", flush=True)


async def run(parts: list[str], seconds: float) -> None:
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        if "latency" in parts:
            await compare_latency(seconds)
        if "viewers" in parts:
            await compare_viewers(seconds, Path(folder))
        if "hd" in parts:
            await measure_hd(seconds, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", help="latency, viewers, hd; all by default")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    if unknown := set(given.parts) - PARTS:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are latency, viewers and hd")
    asyncio.run(run(given.parts or sorted(PARTS), given.seconds))


if __name__ == "__main__":
    main()
