"""The real programs that integration tests talk to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

FFMPEG = shutil.which("ffmpeg")
NGINX = shutil.which("nginx")
NGINX_RTMP = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
_REQUIRED = os.environ.get("STREAMFX_REQUIRE_PROGRAMS") == "1"


def _needs(present: bool, name: str) -> pytest.MarkDecorator:
    """Skips a test whose program is missing; where all are required it runs, and fails."""
    return pytest.mark.skipif(not present and not _REQUIRED, reason=f"{name} is not installed")


needs_ffmpeg = _needs(FFMPEG is not None, "ffmpeg")
needs_nginx = _needs(bool(FFMPEG and NGINX and NGINX_RTMP.exists()), "nginx with its RTMP module")


@contextlib.asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a program for the length of the block."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def ffmpeg(
    url: str, seconds: float = 60, *, realtime: bool = True, offset: float = 0
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """FFmpeg publishing its own test picture and a tone."""
    pace = ["-re"] if realtime else []
    return program(
        FFMPEG or "", "-hide_banner", "-loglevel", "error",
        *pace, "-f", "lavfi", "-i", "testsrc=size=320x240:rate=30",
        *pace, "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
        "-t", str(seconds), "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30",
        "-pix_fmt", "yuv420p", "-c:a", "aac", "-output_ts_offset", str(offset), "-f", "flv", url,
    )  # fmt: skip


def publish(clip: Path, url: str) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """FFmpeg publishing a clip in real time, over and over, without encoding it anew."""
    return program(
        FFMPEG or "", "-hide_banner", "-loglevel", "error",
        "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy", "-f", "flv", url,
    )  # fmt: skip


async def record(url: str, target: Path, seconds: float) -> None:
    """FFmpeg recording a live stream as it comes."""
    arguments = ("-hide_banner", "-loglevel", "error", "-y", "-i", url, "-t", str(seconds), "-c", "copy", str(target))
    async with program(FFMPEG or "", *arguments) as process:
        _, errors = await asyncio.wait_for(process.communicate(), seconds + 15)
        assert process.returncode == 0, errors.decode()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_LIVE = "application live { live on; idle_streams off; wait_key on; }"


@contextlib.asynccontextmanager
async def nginx_rtmp(folder: Path, port: int, applications: str = _LIVE) -> AsyncIterator[asyncio.subprocess.Process]:
    """nginx-rtmp with application ``live``, or others, on a port of its own, in one process."""
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        load_module {NGINX_RTMP};
        daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{}}
        rtmp {{ server {{ listen 127.0.0.1:{port}; {applications} }} }}
        """
    )
    async with program(NGINX or "", "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")) as process:
        async with asyncio.timeout(10):
            while not await _accepts(port):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield process


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
