"""The page's microphone: an avatar that says what a real Chromium hears."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from playwright.async_api import expect

from tests.e2e.browser import browser, grab, needs_chromium, see, server
from tests.support import SPEECH, Picture

pytestmark = [pytest.mark.e2e, needs_chromium, pytest.mark.timeout(120)]


def drawn(picture: Picture) -> bool:
    """A character on its background, square."""
    return picture.shape[0] == picture.shape[1] and float(picture.std()) > 20


async def test_a_microphone_alone_makes_an_avatar_speak() -> None:
    # The server begins with another filter: sound alone asks for one that is driven by it.
    async with server("--filter", "toon") as running, browser(microphone=SPEECH) as context:
        page = await context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(running.address)
        await expect(page.locator("#start-microphone")).to_be_visible()
        await page.click("#start-microphone")
        await expect(page.locator("#status")).to_have_text("Live.", timeout=15_000)
        await expect(page.locator("#filter-list button[data-filter=avatar]")).to_have_attribute("aria-pressed", "true")
        await expect(page.locator("#stage")).to_have_attribute("data-mode", "after")
        await see(page, "#after", drawn, "a character", seconds=40)
        # It speaks: the mouth's part of the picture changes, again and again.
        changes, before = 0, None
        async with asyncio.timeout(30):
            while changes < 6:
                picture = await grab(page, "#after")
                assert picture is not None
                side = picture.shape[0]
                mouth = picture[side // 2 : side * 2 // 3, side * 2 // 5 : side * 3 // 5].astype(float)
                changes += before is not None and bool(np.abs(mouth - before).mean() > 1)
                before = mouth
                await asyncio.sleep(0.1)
        # The sound comes back with it.
        assert await page.evaluate("document.querySelector('#after').srcObject.getAudioTracks().length") == 1
        stats = await running.until("/sessions/live/stats", lambda stats: stats["showing"] == "filtered")
        assert stats["worker_restarts"] == 0
        await page.click("#stop")
        await expect(page.locator("#start-microphone")).to_be_visible()
    assert errors == []


async def test_a_microphone_that_is_refused_is_explained() -> None:
    async with server("--filter", "avatar") as running, browser(prompt="deny") as context:
        page = await context.new_page()
        await page.goto(running.address)
        await page.click("#start-microphone")
        await expect(page.locator("#problem")).to_contain_text("The microphone was refused.")
