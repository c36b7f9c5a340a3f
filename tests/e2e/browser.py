"""A real Chromium with a camera made of a file, and a real streamfx server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import pytest
from playwright.async_api import BrowserContext, Page, async_playwright

from streamfx.media.pattern import Pattern, read_counter
from tests.integration.programs import free_port
from tests.support import Picture, environment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_REQUIRED = os.environ.get("STREAMFX_REQUIRE_PROGRAMS") == "1"

needs_chromium = pytest.mark.skipif(CHROMIUM is None and not _REQUIRED, reason="chromium is not installed")

_FLAGS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
)


def camera_file(path: Path, size: tuple[int, int] = (640, 480), frames: int = 300) -> Path:
    """A Motion JPEG of the test pattern, numbers and all, for Chromium's fake camera."""
    pattern = Pattern(size, 30)
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        stream.options = {"q:v": "2"}
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(pattern.picture(n), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextlib.asynccontextmanager
async def browser(
    camera: Path | None = None,
    *,
    microphone: Path | None = None,
    prompt: str = "",
    size: tuple[int, int] = (1280, 800),
    **context: Any,
) -> AsyncIterator[BrowserContext]:
    """A browser of its own. ``microphone``: a WAV file. ``prompt``: "" says yes to camera prompts, "deny" says no."""
    flags = [*_FLAGS, f"--use-fake-ui-for-media-stream{'=' + prompt if prompt else ''}"]
    if camera is not None:
        flags.append(f"--use-file-for-fake-video-capture={camera}")
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=flags, headless=True, chromium_sandbox=False
        )
        try:
            given = await chromium.new_context(viewport={"width": size[0], "height": size[1]}, **context)
            given.set_default_timeout(15_000)
            yield given
        finally:
            await chromium.close()


class Server:
    """A running ``streamfx serve``."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, rtmp_port: int, token: str, verify: ssl.SSLContext | None
    ) -> None:
        self.process = process
        self.address = f"{'https' if verify else 'http'}://127.0.0.1:{port}"
        self.rtmp_port = rtmp_port
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.AsyncClient(base_url=self.address, headers=headers, timeout=20, verify=verify or True)

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        answer.raise_for_status()
        return answer.json()

    async def until(self, path: str, true: Callable[[Any], object], seconds: float = 15) -> Any:
        """Waits until what is at ``path`` is as wanted."""
        found = None
        try:
            async with asyncio.timeout(seconds):
                while not true(found := await self.get(path)):  # noqa: ASYNC110 - it is asked over HTTP
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{path} stayed {found}") from None
        return found


@contextlib.asynccontextmanager
async def server(*arguments: str, token: str = "", verify: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """``streamfx serve`` in a process of its own, on free ports."""
    port, rtmp_port = free_port(), free_port()
    more = {"STREAMFX_TOKEN": token} if token else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamfx", "serve", "--port", str(port), "--rtmp-port", str(rtmp_port), *arguments,
        env=environment(**more), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    running = Server(process, port, rtmp_port, token, verify)
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await running.http.get("/readyz")).status_code == 200:
                        break
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0.05)
        yield running
    finally:
        await running.http.aclose()
        if process.returncode is None:
            process.terminate()
        try:
            _, errors = await asyncio.wait_for(process.communicate(), 15)
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise AssertionError("streamfx serve did not end within 15 s") from None
    assert process.returncode == 0, errors.decode()
    assert "Traceback" not in errors.decode(), errors.decode()


async def grab(page: Page, selector: str) -> Picture | None:
    """The picture a video or canvas shows, ``(H, W, 3) uint8``; None before the first."""
    data = await page.evaluate(
        """(selector) => {
            const shown = document.querySelector(selector);
            const width = shown.videoWidth ?? shown.width, height = shown.videoHeight ?? shown.height;
            if (!width) return null;
            const canvas = new OffscreenCanvas(width, height);
            canvas.getContext('2d').drawImage(shown, 0, 0, width, height);
            return canvas.convertToBlob({type: 'image/png'}).then((blob) => new Promise((resolve) => {
                const reader = new FileReader();
                reader.onload = () => resolve(reader.result.split(',')[1]);
                reader.readAsDataURL(blob);
            }));
        }""",
        selector,
    )
    if data is None:
        return None
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8)


async def see(page: Page, selector: str, true: Callable[[Picture], bool], what: str, seconds: float = 20) -> Picture:
    """Waits until a video shows what is wanted."""
    picture: Picture | None = None
    try:
        async with asyncio.timeout(seconds):
            while (picture := await grab(page, selector)) is None or not true(picture):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        shape = None if picture is None else picture.shape
        raise AssertionError(f"{selector} did not show {what} within {seconds} s; last picture {shape}") from None
    return picture


def counted(picture: Picture) -> bool:
    """Whether the frame number of the test pattern can be read."""
    return read_counter(picture) is not None


def blocky(picture: Picture, cell: int = 64) -> bool:
    """Whether the test pattern's grey ramp has become stairs of ``cell`` pixels: its steps are all at their edges."""
    rows = slice(int(picture.shape[0] * 0.64), int(picture.shape[0] * 0.68))
    ramp = picture[rows].astype(float).mean(axis=(0, 2))
    steps = np.abs(np.diff(np.convolve(ramp, np.ones(3) / 3, "valid")))
    at_edge = np.abs((np.arange(len(steps)) + 1.5) % cell - cell / 2) > cell / 2 - 5
    return float(steps[at_edge].sum()) > 0.55 * float(steps.sum())
