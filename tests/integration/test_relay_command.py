"""``streamfx relay`` under load: what an operator does to it, and what the streams notice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamfx.media.rtmp.publish import Publisher
from streamfx.media.rtmp.server import RtmpServer
from tests.integration.programs import ffmpeg, needs_nginx, record
from tests.integration.relay_process import KEY, Relay, longest_gap, publishing_again_and_again
from tests.support import Answer, command, environment, look_into

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60), needs_nginx]


@pytest.fixture
async def relay(tmp_path: Path, nginx: int) -> AsyncIterator[Relay]:
    """A relay, not started, to a stand-in for Twitch and into a file."""
    to = [f"twitch:rtmp://127.0.0.1:{nginx}/live/first-k3y", "recording.mkv"]
    pixelate = {"name": "pixelate", "params": {"cell": 16}}
    made = Relay(tmp_path, to=to, filter=pixelate, encode={"gop_seconds": 0.5, "preset": "ultrafast"})
    yield made
    await made.http.aclose()


async def test_the_file_read_again_and_the_end_in_good_order(relay: Relay, tmp_path: Path, nginx: int) -> None:
    first, second = (f"rtmp://127.0.0.1:{nginx}/live/{name}-k3y" for name in ("first", "second"))
    async with relay.running() as process, ffmpeg(relay.ingest) as publisher:
        await relay.live(2)
        assert process.returncode is None
        recording = asyncio.create_task(record(first, tmp_path / "seen.mkv", 6))

        relay.config["to"].append(f"custom:{second}")
        relay.config["filter"] = {"name": "pixelate", "params": {"cell": 32}}
        relay.config["budget_ms"] = 300
        began = time.monotonic()
        await relay.reload(process)
        assert any(line.startswith("MONOTONIC_USEC=") for line in relay.told)
        await relay.live(3)
        print(f"SIGHUP to a new target that is live: {time.monotonic() - began:.1f} s")  # noqa: T201
        assert (await relay.session())["filter"]["params"]["cell"] == 32
        await relay.said("takes a restart: budget_ms")
        await record(second, tmp_path / "second.mkv", 1)

        await relay.reload(process, "to: [twitch\n")
        await relay.said("nothing was changed")
        assert len((await relay.session())["outputs"]) == 3

        relay.config["to"].pop()
        await relay.reload(process)
        await relay.live(2)
        await recording
        seen = look_into(tmp_path / "seen.mkv").video
        assert len(seen) > 130
        assert longest_gap(seen) < 0.2, "a target noticed that others came and went"

        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0, relay.log.read_text()
        took = time.monotonic() - began
        await asyncio.wait_for(publisher.wait(), 5)
    print(f"SIGTERM to the end: {took:.1f} s")  # noqa: T201
    assert "STOPPING=1" in relay.told
    whole = look_into(tmp_path / "recording.mkv").video
    assert whole[-1] - whole[0] > 6
    assert longest_gap(whole) < 0.2
    text = relay.log.read_text()
    assert "live source: publishing by RTMP" in text
    assert "live target twitch: live" in text
    assert "Traceback" not in text
    for secret in (KEY, "first-k3y", "second-k3y"):
        assert secret not in text


async def test_killed_and_started_again_and_ended_at_once(relay: Relay, tmp_path: Path, nginx: int) -> None:
    ended: list[float] = []
    async with publishing_again_and_again(relay.ingest, ended):
        async with relay.running() as process:
            await relay.live(2)
            process.kill()
            await process.wait()
            killed = time.monotonic()
        async with relay.running() as process:
            ready = time.monotonic() - killed
            await relay.session_is(lambda found: found["publisher"])
            published = time.monotonic() - killed
            await relay.live(2)
            live = time.monotonic() - killed
            await record(f"rtmp://127.0.0.1:{nginx}/live/first-k3y", tmp_path / "seen.mkv", 2)
            process.send_signal(signal.SIGTERM)
            await relay.until(lambda: "STOPPING=1" in relay.told, "the signal to be heard")
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            await asyncio.wait_for(process.wait(), 10)
            at_once = time.monotonic() - began
    print(  # noqa: T201
        f"from SIGKILL, with a restart at once: ready after {ready:.1f} s, the publisher back after {published:.1f} s, "
        f"all targets live after {live:.1f} s; a second SIGTERM to the end: {at_once:.1f} s"
    )
    assert "Traceback" not in relay.log.read_text()
    assert len(look_into(tmp_path / "seen.mkv").video) > 15
    # What was recorded before the kill is as it was; the next part has a name of its own.
    assert len(look_into(tmp_path / "recording.mkv").video) > 0
    assert len(look_into(tmp_path / "recording.2.mkv").video) > 0


async def tried(*arguments: str) -> Answer:
    """A dry run, beside the servers of the test."""
    process = await asyncio.create_subprocess_exec(
        *command("run", "testpattern://", *arguments, "--dry-run"), env=environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(), 20)
    return Answer(process.returncode or 0, out.decode(), errors.decode(), 0)


async def test_dry_run(nginx: int, tmp_path: Path) -> None:
    streams: list[Publisher] = []

    async def on_publish(publisher: Publisher) -> None:
        streams.append(publisher)
        async for _ in publisher.tags():
            raise AssertionError("something was sent")

    async with RtmpServer(port=0) as server:
        server.add_route("app", "right-k3y", on_publish)
        ours = f"twitch:rtmp://127.0.0.1:{server.port}/app/"
        good = await tried("--to", f"{ours}right-k3y", "--to", f"custom:rtmp://127.0.0.1:{nginx}/live/some-k3y")
        assert (good.code, good.err) == (0, "")
        assert [line.split()[1] for line in good.out.splitlines()] == ["accepted", "accepted"]
        assert [publisher.ended for publisher in streams] == ["unpublished"]
        file = tmp_path / "out.mkv"
        bad = await tried(str(file), f"{ours}wrong-k3y", f"rtmp://127.0.0.1:{nginx}/nowhere/some-k3y")
    assert bad.code == 1
    lines = bad.out.splitlines()
    assert [line.split()[1] for line in lines] == ["accepted", "refused", "refused"]
    assert "unknown application or stream key" in lines[1]
    assert "k3y" not in good.out + bad.out
    assert not file.exists()
