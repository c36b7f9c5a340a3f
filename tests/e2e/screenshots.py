"""Makes the pictures of the page for the documentation: ``python -m tests.e2e.screenshots``.

The bundled clip stands for the camera.
"""

from __future__ import annotations

import asyncio
import tempfile
from fractions import Fraction
from pathlib import Path

import av

from tests.e2e.browser import browser, server
from tests.support import BUNNY, ROOT

TARGET = ROOT / "docs" / "images"
"""Where the pictures go."""

_SKIP = 40
"""Frames of the clip to leave out: it fades in."""


def clip_as_camera(path: Path) -> Path:
    """The clip as Motion JPEG, for Chromium's fake camera."""
    with av.open(str(BUNNY)) as source, av.open(str(path), "w", format="mjpeg") as target:
        stream = target.add_stream("mjpeg", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuvj420p"
        stream.options = {"q:v": "3"}
        for number, frame in enumerate(source.decode(video=0)):
            if number >= _SKIP:
                fresh = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), "rgb24")
                target.mux(stream.encode(fresh))
        target.mux(stream.encode(None))
    return path


async def take(camera: Path) -> None:
    async with server("--filter", "toon") as running:
        async with browser(camera, size=(1440, 900), color_scheme="dark") as context:
            page = await context.new_page()
            await page.goto(running.address)
            await page.click("#start-camera")
            await page.wait_for_timeout(9000)
            await page.screenshot(path=str(TARGET / "page.jpg"), type="jpeg", quality=86)
        phone = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True, "color_scheme": "light"}
        async with browser(camera, size=(390, 844), **phone) as context:
            page = await context.new_page()
            await page.goto(running.address)
            await page.click("#start-camera")
            await page.wait_for_timeout(9000)
            await page.screenshot(path=str(TARGET / "page-phone.jpg"), type="jpeg", quality=86)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(take(clip_as_camera(Path(folder) / "clip.mjpeg")))


if __name__ == "__main__":
    main()
