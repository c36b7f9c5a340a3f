"""One encode for four targets: what befalls one of them (refused, throttled, restarted) is nobody else's business."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import psutil
import pytest

from tests.integration.measure import measure
from tests.integration.programs import FFMPEG, free_port, needs_nginx, nginx_rtmp
from tests.integration.streamfx_process import Running, Stats, streamfx_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

PATTERN = "testpattern://?size=320x180&fps=30"
KEYS = {name: f"s3cr3t-of-{name}" for name in ("healthy", "guarded", "slow", "fragile")}


@contextlib.asynccontextmanager
async def refusing_callbacks() -> AsyncIterator[str]:
    """The URL of a server that answers every ``on_publish`` with 403."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@dataclass
class Way:
    """A way to a server. ``rate``: bytes a second that it takes."""

    port: int
    rate: float


@contextlib.asynccontextmanager
async def throttled(port: int, rate: float) -> AsyncIterator[Way]:
    """A way to ``port`` that may be widened."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limited: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2048):
                writer.write(data)
                await writer.drain()
                if limited:
                    await asyncio.sleep(len(data) / way.rate)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, there, True))
            group.create_task(pump(back, writer, False))

    listener = socket.socket()
    # No room for what is not passed on yet: the sender feels how slow it is.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    listener.bind(("127.0.0.1", 0))
    way = Way(listener.getsockname()[1], rate)
    async with await asyncio.start_server(serve, sock=listener, limit=4096):
        yield way


def recorded(name: str, folder: Path, more: str = "") -> str:
    """An application of nginx that writes every connection of a publisher to a file of its own."""
    place = folder / name
    place.mkdir(exist_ok=True)
    return f"application {name} {{ live on; record all; record_path {place}; record_unique on; {more} }}"


def output(stats: Stats, name: str) -> Stats:
    (found,) = [row for row in stats["outputs"] if f"/{name}/" in row["output"]]
    return found


def processes(run: Running, module: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(run.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if f"streamfx.media.{module}" in child.cmdline():
                found.append(child)
    return found


def sound_gaps(path: Path) -> list[float]:
    """Seconds from one packet of sound to the next."""
    with av.open(str(path)) as container:
        times = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.pts is not None]
    return [later - earlier for earlier, later in pairwise(times)]


def decode_errors(path: Path) -> str:
    decoded = subprocess.run(
        [FFMPEG or "", "-v", "error", "-i", path, "-f", "null", "-"], capture_output=True, text=True, check=False
    )
    return decoded.stderr


def cut(path: Path, begin: float) -> Path:
    """What comes from the key frame at ``begin`` seconds on."""
    part = path.with_suffix(".part.mkv")
    arguments = ["-v", "error", "-ss", str(begin + 0.1), "-i", path, "-c", "copy", part]
    subprocess.run([FFMPEG or "", *arguments], check=True)
    return part


def assert_without_a_gap(path: Path, pictures: int) -> None:
    """Every picture is there that was sent, a frame apart, and the source's frames are in them."""
    seen = measure(path)
    assert len(seen.times) >= pictures - 1
    assert seen.counters.count(None) == 0
    assert max(seen.gaps()) < 1.5 / 30
    assert min(seen.gaps()) > 0.5 / 30
    steps = seen.steps()
    assert set(steps) <= {0, 1, 2}
    assert steps.count(1) >= 0.97 * len(steps)
    assert max(abs(offset) for offset in seen.offsets()) < 0.040


@needs_nginx
async def test_four_targets_one_encoder(tmp_path: Path) -> None:
    (tmp_path / "encode.yaml").write_text("encode: {preset: ultrafast, video_kbps: 1500}\n")
    (tmp_path / "other").mkdir()
    port, other = free_port(), free_port()
    async with contextlib.AsyncExitStack() as stack:
        callbacks = await stack.enter_async_context(refusing_callbacks())
        applications = (
            recorded("healthy", tmp_path)
            + recorded("slow", tmp_path)
            + recorded("guarded", tmp_path, f"on_publish {callbacks};")
        )
        await stack.enter_async_context(nginx_rtmp(tmp_path, port, applications))
        fragile = recorded("fragile", tmp_path)
        server = await stack.enter_async_context(nginx_rtmp(tmp_path / "other", other, fragile))
        narrow = await stack.enter_async_context(throttled(port, 200_000 // 8))
        ports = {"healthy": port, "guarded": port, "slow": narrow.port, "fragile": other}
        urls = [f"rtmp://127.0.0.1:{ports[name]}/{name}/{key}" for name, key in KEYS.items()]
        run = await stack.enter_async_context(
            streamfx_run(tmp_path, PATTERN, *urls, "--config", str(tmp_path / "encode.yaml"))
        )

        def live(*names: str) -> object:
            return lambda s: s["outputs"] and all(output(s, name)["state"] == "live" for name in names)

        await run.until(live("healthy", "slow", "fragile"), "three to be live")
        assert len(processes(run, "encoder_process")) == 1
        encoder = processes(run, "encoder_process")[0].pid
        assert len(processes(run, "output_process")) == 0
        await run.frames(90)
        server.kill()
        await server.wait()
        await run.until(lambda s: output(s, "fragile")["state"] == "retrying", "the loss to be noticed")
        await stack.enter_async_context(nginx_rtmp(tmp_path / "other", other, fragile))
        await run.until(live("fragile"), "the restarted one to be back")
        await run.until(lambda s: output(s, "slow")["dropped"] > 0, "the slow one to be too slow")
        during = run.stats()
        narrow.rate = 1e7
        stats = await run.until(lambda s: output(s, "slow")["sent"] > output(s, "healthy")["sent"] / 2, "it to go on")
        stats = await run.frames(60)
        assert [process.pid for process in processes(run, "encoder_process")] == [encoder]
        commands = [" ".join(child.cmdline()) for child in psutil.Process(run.process.pid).children(recursive=True)]
        code, errors = await run.stop()
    assert code == 0, errors
    rows = {name: output(stats, name) for name in KEYS}
    for key in KEYS.values():
        assert key not in errors + "".join(commands) + str(stats)

    assert (rows["healthy"]["dropped"], rows["healthy"]["reconnects"]) == (0, 0)
    (whole,) = (tmp_path / "healthy").iterdir()
    assert_without_a_gap(whole, rows["healthy"]["sent"])

    assert rows["guarded"]["sent"] == 0
    assert rows["guarded"]["reconnects"] >= 2
    assert rows["guarded"]["error"]

    assert rows["slow"]["reconnects"] == 0
    assert 0 < output(during, "slow")["sent"] < 0.75 * output(during, "healthy")["sent"]
    (part,) = (tmp_path / "slow").iterdir()
    seen = measure(part)
    assert decode_errors(part) == ""
    assert seen.counters.count(None) == 0
    missing = sum(step - 1 for step in seen.steps() if step > 1)
    assert missing >= 0.9 * rows["slow"]["dropped"] > 0, "what was dropped is what is missing"
    assert max(sound_gaps(part)) < 0.1, "the sound went on"
    assert min(seen.steps()) >= 0

    assert rows["fragile"]["reconnects"] >= 1
    before, after = sorted((tmp_path / "fragile").iterdir(), key=lambda path: path.stat().st_mtime)
    for path in (before, after):
        assert measure(path).counters[0] is not None, "it begins with a key frame"
    assert decode_errors(after) == ""
    assert_without_a_gap(after, 0)


@needs_nginx
async def test_encoder_that_dies_leaves_connections_up(tmp_path: Path) -> None:
    port = free_port()
    async with nginx_rtmp(tmp_path, port, recorded("a", tmp_path) + recorded("b", tmp_path)):
        urls = [f"rtmp://127.0.0.1:{port}/{name}/key" for name in ("a", "b")]
        async with streamfx_run(tmp_path, PATTERN, *urls) as run:
            await run.until(lambda s: s["outputs"] and all(row["sent"] > 60 for row in s["outputs"]), "pictures")
            (encoder,) = processes(run, "encoder_process")
            os.kill(encoder.pid, signal.SIGKILL)
            await run.until(lambda s: processes(run, "encoder_process") not in ([], [encoder]), "another to take over")
            sent = [row["sent"] for row in run.stats()["outputs"]]
            await run.until(lambda s: all(row["sent"] > sent[n] + 60 for n, row in enumerate(s["outputs"])), "more")
            assert [row["reconnects"] for row in run.stats()["outputs"]] == [0, 0]
            code, errors = await run.stop()
    assert code == 0, errors
    for name in ("a", "b"):
        (path,) = (tmp_path / name).iterdir()
        assert decode_errors(path) == ""
        seen = measure(path)
        assert seen.counters.count(None) == 0
        gap = max(seen.gaps())
        assert 0.2 < gap < 5
        back = measure(cut(path, seen.times[seen.gaps().index(gap) + 1]))
        assert len(back.offsets()) >= 1
        assert max(abs(offset) for offset in back.offsets()) < 0.040, "picture and sound are in step afterwards too"
