"""The page as people use it: a real Chromium, a real server, a camera made of a file."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page, expect

from streamfx.media.pattern import read_counter
from tests.e2e.browser import blocky, browser, camera_file, counted, grab, needs_chromium, see, server
from tests.support import BUNNY, look_into

pytestmark = [pytest.mark.e2e, needs_chromium, pytest.mark.timeout(120)]


@pytest.fixture(scope="session")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return camera_file(tmp_path_factory.mktemp("camera") / "pattern.mjpeg")


async def open_page(page: Page, address: str) -> list[str]:
    """Opens the page; returns the list that collects its errors."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    await page.goto(address)
    await expect(page.locator("#filter-list button[data-filter=toon]")).to_be_visible()
    return errors


async def go_live(page: Page) -> None:
    await page.click("#start-camera")
    await expect(page.locator("#status")).to_have_text("Live.", timeout=15_000)
    await expect(page.locator("#stage")).to_have_attribute("data-mode", "both")


async def test_publish_see_and_change(camera: Path) -> None:
    async with server() as running, browser(camera) as context:
        page = await context.new_page()
        errors = await open_page(page, running.address)
        await go_live(page)
        # Without a filter the result is the source, number and all.
        plain = await see(page, "#after", counted, "a frame number")
        assert plain.shape[1] / plain.shape[0] == pytest.approx(4 / 3, abs=0.01)
        assert not blocky(plain)
        await page.click("button[data-filter=pixelate]")
        await expect(page.locator("[data-param=cell]")).to_have_value("16")
        await page.fill("#controls .value", "64")
        await page.keyboard.press("Enter")
        result = await see(page, "#after", blocky, "large pixels")
        source = await grab(page, "#before")
        assert source is not None
        assert counted(source)
        assert np.abs(result.astype(int).mean(axis=(0, 1)) - source.astype(int).mean(axis=(0, 1))).max() < 25

        # The numbers of the meter, and the latency that was really measured.
        await expect(page.locator("[data-meter=latency]")).to_have_text(re.compile(r"^\d+ ms$"))
        await expect(page.locator("#latency-label")).to_have_text("camera to screen")
        await expect(page.locator("[data-meter=governor]")).not_to_have_text("waiting")
        await expect(page.locator("[data-meter=fps-out]")).to_have_text(re.compile(r"^(1[5-9]|[23]\d)\."))

        # And another one after it, with controls of both.
        await page.select_option("#filter-then", "toon")
        await expect(page.locator("[data-param='toon.ink']")).to_be_visible()
        await running.until("/sessions/live", lambda live: live["filter"]["name"] == "pixelate+toon")
        await expect(page.locator("button[data-filter=pixelate]")).to_have_attribute("aria-pressed", "true")

        # Back to the source: the picture is whole again.
        await page.click("button[data-filter='']")
        await see(page, "#after", counted, "a frame number again")
        metrics = ""
        for _ in range(80):
            metrics = (await running.http.get("/metrics")).text
            if 'streamfx_glass_to_glass_latency_seconds_count{session="live"} 0.0' not in metrics:
                break
            await asyncio.sleep(0.1)
        assert 'streamfx_glass_to_glass_latency_seconds_count{session="live"} 0.0' not in metrics
        await page.click("#stop")
        await expect(page.locator("#chooser")).to_be_visible()
        await running.until("/sessions/live", lambda live: live["publisher"] is None and live["viewers"] == 0)
    assert errors == []


async def test_a_change_is_seen_within_half_a_second(camera: Path) -> None:
    async with server("--filter", "pixelate", "--set", "cell=4") as running, browser(camera) as context:
        page = await context.new_page()
        await open_page(page, running.address)
        await page.evaluate("() => document.querySelector('#quality-pick').value = '640x480'")
        await go_live(page)
        await see(page, "#after", lambda picture: float(picture.std()) > 20, "a picture")
        await asyncio.sleep(3)  # the network's estimates settle
        # Measured in the page: from the key that is pressed to the picture that shows it.
        waits = await page.evaluate(
            """async () => {
                const video = document.querySelector('#after'), slider = document.querySelector('[data-param=cell]');
                const canvas = new OffscreenCanvas(160, 120);
                const context = canvas.getContext('2d', {willReadFrequently: true});
                const roughness = () => {
                    context.drawImage(video, 0, 0, video.videoWidth / 4, video.videoHeight / 4, 0, 0, 160, 120);
                    const data = context.getImageData(0, 0, 160, 120).data;
                    let sum = 0;
                    for (let i = 0; i < data.length - 4; i += 4) sum += Math.abs(data[i] - data[i + 4]) > 6;
                    return sum / (160 * 120);
                };
                const set = (value) => { slider.value = value; slider.dispatchEvent(new Event('input')); };
                const waits = [];
                for (const value of [64, 4, 64, 4, 64]) {
                    const before = roughness(), began = performance.now();
                    set(value);
                    while (performance.now() - began < 5000) {
                        await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
                        const now = roughness();
                        if (value === 64 ? now < before * 0.6 : now > before * 1.7) break;
                    }
                    waits.push(performance.now() - began);
                    await new Promise((resolve) => setTimeout(resolve, 700));
                }
                return waits;
            }"""
        )
        assert sorted(waits)[len(waits) // 2] < 500, waits


async def test_reload_mid_stream(camera: Path) -> None:
    async with server() as running, browser(camera) as context:
        page, watching = await context.new_page(), await context.new_page()
        await open_page(page, running.address)
        await go_live(page)
        await watching.goto(f"{running.address}/view/live")
        await see(watching, "#after", counted, "a frame number")
        await page.reload()
        # The viewer stays on: its player never ended, and it is live again when the page is.
        await expect(page.locator("#filter-list button[data-filter=toon]")).to_be_visible()
        await go_live(page)
        await see(page, "#after", counted, "a frame number")
        first = await see(watching, "#after", counted, "a frame number")
        await see(watching, "#after", lambda p: read_counter(p) not in (None, read_counter(first)), "another number")
        live = await running.until("/sessions/live", lambda live: live["viewers"] == 2)
        assert live["state"] == "running"


async def test_two_viewers_and_one_encode(camera: Path) -> None:
    async with server() as running, browser(camera) as context:
        publisher = await context.new_page()
        await open_page(publisher, running.address)
        await go_live(publisher)
        pages = []
        for path in ("/", "/view/live"):
            page = await context.new_page()
            await page.goto(running.address + path)
            if path == "/":
                await page.click("#start-watch")
                await expect(page.locator("#stage")).to_have_attribute("data-mode", "after")
            pages.append(page)
        for page in pages:
            await see(page, "#after", counted, "a frame number")
        await running.until("/sessions/live/stats", lambda s: len(s["encodes"]) == 1 and s["viewers"] == 3)
        await expect(publisher.locator("#viewer-count")).to_have_text("3 viewers")


async def test_a_camera_that_is_refused() -> None:
    async with server() as running, browser(prompt="deny") as context:
        page = await context.new_page()
        await open_page(page, running.address)
        await page.click("#start-camera")
        await expect(page.locator("#problem")).to_contain_text("The camera was refused")
        await expect(page.locator("#start-file")).to_be_visible()
        await page.click("#start-watch")
        await see(page, "#after", lambda picture: int(picture.max()) > 40, "the slate")


async def test_the_token(camera: Path) -> None:
    token = "a-token-of-some-length"
    async with server(token=token) as running, browser(camera) as context:
        page = await context.new_page()
        await page.goto(running.address)
        dialog = page.locator("#token-dialog")
        await expect(dialog).to_be_visible()
        await page.fill("#token-input", "not-the-right-one")
        await page.click("#token-go")
        await expect(page.locator("#token-problem")).to_have_text("That token is not the right one.")
        await page.fill("#token-input", token)
        await page.press("#token-input", "Enter")
        await expect(dialog).to_be_hidden()
        await go_live(page)
        await see(page, "#after", counted, "a frame number")
        # In the address it is taken once, and then gone from it; the bare player takes it as well.
        other = await context.new_page()
        await other.goto(f"{running.address}/view/live#token={token}")
        await see(other, "#after", counted, "a frame number")
        assert token not in other.url


async def test_a_file_is_sent_and_recorded(tmp_path: Path) -> None:
    async with server("--filter", "toon") as running, browser() as context:
        page = await context.new_page()
        errors = await open_page(page, running.address)
        await page.set_input_files("#file-pick", BUNNY)
        await expect(page.locator("#status")).to_have_text("Live.", timeout=15_000)
        await see(page, "#after", lambda picture: float(picture.std()) > 20, "a picture")
        await page.click("#record")
        await expect(page.locator("#record")).to_have_attribute("aria-pressed", "true")
        await expect(page.locator("#record")).to_have_text("0:06", timeout=20_000)
        async with page.expect_download() as waiting:
            await page.click("#record")
        download = await waiting.value
        target = tmp_path / download.suggested_filename
        await download.save_as(target)
        moments = look_into(target).video
        # How many pictures of those six seconds the browser's encoder gets done is the machine's affair.
        assert moments[-1] - moments[0] > 1
        assert len(moments) > 5
    assert errors == []


async def test_styles_are_picked_or_described(camera: Path) -> None:
    async with server("--filter", "restyle") as running, browser(camera) as context:
        page = await context.new_page()
        await open_page(page, running.address)
        await go_live(page)
        text = page.locator("input[data-param=style]")
        await expect(text).to_have_value("ukiyo-e")
        picks = page.get_by_role("group", name="Style", exact=True)
        await picks.get_by_role("button", name="crimson").click()
        await running.until("/sessions/live/params", lambda params: params["style"] == "crimson")
        await expect(text).to_have_value("crimson")
        await see(page, "#after", lambda picture: picture[..., 0].mean() > 1.5 * picture[..., 2].mean(), "red")
        await text.fill("van gogh starry night")
        await text.press("Enter")
        await expect(text).to_have_value("starry-night")
        await expect(picks.get_by_role("button", name="starry-night")).to_have_attribute("aria-pressed", "true")
        await text.fill("xyzzy")
        await text.press("Enter")
        await expect(page.locator("#wrong-style")).to_contain_text("no style is known by 'xyzzy'")
        await see(page, "#after", lambda picture: float(picture.std()) > 15, "a picture")


async def test_targets_are_added_and_removed() -> None:
    async with server() as running, browser() as context:
        page = await context.new_page()
        await open_page(page, running.address)
        await page.click("#add-output")
        await expect(page.locator("#output-problem")).to_have_text("Enter your stream key.")
        await page.click("[data-preset='']")
        await page.fill("#output-url", "rtmp://127.0.0.1:9/live")
        await page.fill("#output-key", "VERYSECRET")
        await page.click("#add-output")
        row = page.locator("#outputs li")
        await expect(row).to_contain_text("rtmp://127.0.0.1:9/live/****")
        await expect(row).to_contain_text("waits for a picture")
        assert "VERYSECRET" not in await page.content()
        assert await page.input_value("#output-key") == ""
        await row.get_by_role("button").click()
        await expect(row).to_have_count(0)

        # By a platform's name, which knows the address and the rules; nobody publishes, so nothing is connected.
        await page.click("[data-preset='youtube:']")
        await page.fill("#output-key", "ANOTHERSECRET")
        await page.click("#add-output")
        await expect(row.locator(".url")).to_have_text("youtube")
        assert "ANOTHERSECRET" not in await page.content()
        await row.get_by_role("button").click()
        await expect(row).to_have_count(0)


async def test_keyboard_and_names() -> None:
    async with server("--filter", "toon") as running, browser() as context:
        page = await context.new_page()
        await open_page(page, running.address)
        await go_live(page)
        divider = page.locator("#divider")
        await divider.focus()
        await page.keyboard.press("ArrowRight")
        await expect(divider).to_have_attribute("aria-valuenow", "52")
        await page.keyboard.press("Home")
        await expect(divider).to_have_attribute("aria-valuenow", "0")
        slider = page.locator("[data-param=ink]")
        await slider.focus()
        await page.keyboard.press("ArrowLeft")
        await running.until("/sessions/live/params", lambda params: params["ink"] < 0.85)
        nameless = await page.evaluate(
            """() => [...document.querySelectorAll('button, input, select, textarea, [role=slider]')]
                .filter((one) => one.offsetParent && !(one.ariaLabel || one.labels?.length || one.innerText?.trim()))
                .map((one) => one.outerHTML)"""
        )
        assert nameless == []


async def test_it_fits_a_phone(camera: Path) -> None:
    phone = {"device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    async with server("--filter", "toon") as running, browser(camera, size=(360, 740), **phone) as context:
        page = await context.new_page()
        await open_page(page, running.address)
        await go_live(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        small = await page.evaluate(
            """() => [...document.querySelectorAll('.toolbar button, .filter-list button, .strong')]
                .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 44).map((one) => one.id)"""
        )
        assert small == []
