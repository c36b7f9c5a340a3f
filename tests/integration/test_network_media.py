"""RTSP, SRT and HLS with real peers: FFmpeg calls, listens, plays and records; picture numbers are read back."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import SourceError
from streamfx.core.frames import AudioFrame, VideoFrame
from streamfx.media.base import Source, SourceRequest, open_source
from streamfx.media.pattern import read_counter
from streamfx.media.url import MediaUrl
from tests.e2e.browser import server
from tests.integration.measure import Recording, measure
from tests.integration.programs import FFMPEG, free_port, needs_ffmpeg, program
from tests.integration.rtsp_server import RtspServer
from tests.integration.streamfx_process import streamfx_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60), needs_ffmpeg]

SECRET = "a passphrase & 10%+1"
ENCODED = "a%20passphrase%20%26%2010%25%2B1"
TOKEN = "a-token-of-some-length"
LENGTH = 150

Running = contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of the test pattern with a key frame a second."""
    path = tmp_path_factory.mktemp("clip") / "pattern.flv"
    config = path.with_suffix(".yaml")
    config.write_text("encode: {gop_seconds: 1, preset: ultrafast, video_kbps: 1200}\n")
    pattern = f"testpattern://?size=320x180&fps=30&duration={LENGTH // 30}&realtime=0"
    command = [sys.executable, "-m", "streamfx", "run", pattern, str(path), "--config", str(config)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return path


def sending(
    clip: Path, url: str, passphrase: str = SECRET
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """FFmpeg sending the clip by SRT in real time, over and over."""
    return program(
        FFMPEG or "", "-hide_banner", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(clip),
        "-c", "copy", "-f", "mpegts", "-passphrase", passphrase, url,
    )  # fmt: skip


def recording(
    target: Path, url: str, *options: str
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """FFmpeg recording a stream as it comes."""
    return program(
        FFMPEG or "", "-hide_banner", "-loglevel", "error", "-y", *options, "-i", url, "-c", "copy", str(target)
    )


class Watched:
    """A source that is read: its numbers, and what it says of itself."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.numbers: list[int | None] = []
        self.sound = 0

    async def watch(self, url: str) -> None:
        async with open_source(
            MediaUrl.parse(url), SourceRequest(MonotonicClock(), on_state=self.states.append)
        ) as source:
            await self._read(source)

    async def _read(self, source: Source) -> None:
        async for frame in source.frames():
            if isinstance(frame, VideoFrame):
                self.numbers.append(read_counter(frame.pixels))
            elif isinstance(frame, AudioFrame):
                self.sound += frame.samples.shape[1]

    async def more(self, count: int, timeout: float = 10) -> list[int | None]:
        """The next numbers."""
        seen = len(self.numbers)
        await eventually(lambda: len(self.numbers) >= seen + count, f"{count} pictures; {self.states}", timeout)
        return self.numbers[seen : seen + count]

    async def until(self, text: str) -> None:
        """Waits until it has said so."""
        await eventually(lambda: any(text in state for state in self.states), f"{text!r} in {self.states}", 10)


async def eventually(true: object, what: str, timeout: float) -> None:
    assert callable(true)
    try:
        async with asyncio.timeout(timeout):
            while not true():  # noqa: ASYNC110 - what is waited for knows nothing of tests
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited {timeout} s for {what}") from None


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watched]:
    watched = Watched()
    task = asyncio.create_task(watched.watch(url))
    try:
        yield watched
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError), ended


async def refusal(url: str) -> str:
    """What is said of a source that cannot be opened."""
    with pytest.raises(SourceError) as caught:
        await Watched().watch(url)
    return str(caught.value)


def assert_in_order(numbers: list[int | None]) -> None:
    """All are there, one after the other; the clip begins anew after its last."""
    assert None not in numbers
    steps = [(b - a) % LENGTH for a, b in pairwise(numbers) if a is not None and b is not None]
    assert set(steps) == {1}, numbers


def arguments_of_children(but: asyncio.subprocess.Process | None = None) -> str:
    """All that a `ps` shows of the processes we started."""
    children = [child for child in psutil.Process().children(recursive=True) if but is None or child.pid != but.pid]
    lines = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            lines.append(" ".join(child.cmdline()))
    return "\n".join(lines)


async def test_srt_in_by_whoever_calls(clip: Path) -> None:
    port = free_port()
    place = f"srt://127.0.0.1:{port}"
    async with watching(f"srt://:{port}?mode=listener&passphrase={ENCODED}&latency=60") as watched:
        await watched.until("waiting for a caller")
        async with sending(clip, place) as caller:
            assert_in_order(await watched.more(25))
            assert watched.sound > 12_000
            shown = arguments_of_children(but=caller)
            assert "-f concat" in shown
            assert SECRET not in shown
            caller.terminate()
            await watched.until("lost (the stream ended), trying again")
        async with sending(clip, place, "not the passphrase") as stranger:
            _, said = await asyncio.wait_for(stranger.communicate(), 10)
            assert stranger.returncode != 0, said
        async with sending(clip, place):
            assert_in_order(await watched.more(25))
    assert not any(SECRET in state or ENCODED in state for state in watched.states)


async def test_srt_in_by_calling(clip: Path) -> None:
    port = free_port()
    async with sending(clip, f"srt://127.0.0.1:{port}?mode=listener"):
        await asyncio.sleep(0.5)
        said = await refusal(f"srt://127.0.0.1:{port}?passphrase=not-the-passphrase")
        assert said == f"srt://127.0.0.1:{port}?**** cannot be read: the passphrase is not the other end's"
        async with watching(f"srt://127.0.0.1:{port}?passphrase={ENCODED}") as watched:
            assert_in_order(await watched.more(25))


async def test_rtsp_in(clip: Path, tmp_path: Path) -> None:
    port = free_port()
    camera = RtspServer(clip, tmp_path, port, "me:pass:word")
    url = f"rtsp://me:pass%3Aword@127.0.0.1:{port}/cam?channel=1&grace=30&subtype=0"
    async with camera.running():
        said = await refusal(f"rtsp://me:other-word@127.0.0.1:{port}/cam")
        assert "401" in said
        assert "other-word" not in said
        async with watching(url) as watched:
            assert_in_order(await watched.more(25))
            assert watched.sound > 12_000
            assert "word" not in arguments_of_children()
            camera.hang_up()
            await watched.until("lost (")
            assert_in_order(await watched.more(25))
    assert set(camera.asked) == {f"rtsp://127.0.0.1:{port}/cam?channel=1&subtype=0"}
    assert not any("word" in state for state in watched.states)


async def test_srt_and_rtsp_out(tmp_path: Path) -> None:
    called, listening, rtsp = free_port(), free_port(), free_port()
    caught, fetched, pushed = (tmp_path / f"{name}.mkv" for name in ("caught", "fetched", "pushed"))
    secrets = {
        "CALLED": f"srt://127.0.0.1:{called}?passphrase={ENCODED}&streamid=the-stream",
        "LISTENING": f"srt://:{listening}?mode=listener&passphrase={ENCODED}",
    }
    passphrase = ("-passphrase", SECRET)
    pattern = "testpattern://?size=320x180&fps=30"
    async with (
        recording(caught, f"srt://127.0.0.1:{called}?mode=listener", *passphrase) as catcher,
        recording(pushed, f"rtsp://127.0.0.1:{rtsp}/live/x", "-rtsp_flags", "listen") as server,
        streamfx_run(
            tmp_path, pattern, "${CALLED}", "${LISTENING}", f"rtsp://127.0.0.1:{rtsp}/live/x", environment=secrets
        ) as running,
    ):
        await running.until(lambda s: s["counters"].get("frames_out", 0) > 15, "the stream")
        async with recording(fetched, f"srt://127.0.0.1:{listening}", *passphrase) as fetcher:
            await running.until(lambda s: all(row["state"] == "live" for row in s["outputs"]), "all to be live")
            ours = psutil.Process(running.process.pid).children(recursive=True)
            shown = "\n".join(" ".join(child.cmdline()) for child in ours)
            assert shown.count("-fpre /dev/fd/") == 2
            assert SECRET not in shown
            assert "the-stream" not in shown
            await running.until(lambda s: all(row["sent"] > 50 for row in s["outputs"]), "pictures to be sent")
            code, said = await running.stop()
            for recorder in (catcher, fetcher, server):
                await asyncio.wait_for(recorder.communicate(), 10)
    assert code == 0, said
    assert SECRET not in said
    assert ENCODED not in said
    for path in (caught, fetched, pushed):
        assert_complete(measure(path), least=40)


def assert_complete(seen: Recording, least: int) -> None:
    assert len(seen.counters) >= least
    assert None not in seen.counters
    # On a busy machine a slot may find no new picture, and the next one two.
    assert min(seen.steps()) >= 0
    assert seen.steps().count(1) >= 0.9 * len(seen.steps()), seen.steps()
    offsets = seen.offsets()
    assert offsets
    assert max(abs(offset) for offset in offsets) < 0.045, offsets


async def test_hls_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("sessions: {live: {source: 'testpattern://?size=320x180&fps=30'}}\n")
    playlist = "/sessions/live/hls/index.m3u8"
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    async with server("--config", str(config), token=TOKEN) as running:
        bare = await running.http.get(playlist, headers={"Authorization": ""})
        assert bare.status_code == 401
        assert list(folder.glob("streamfx-hls-*")) == []
        described = (await running.http.get("/sessions/live")).json()["play"]["hls"]
        assert described == playlist
        address = running.address.replace("http://", f"http://player:{TOKEN}@")
        target = tmp_path / "watched.ts"
        async with recording(target, address + playlist, "-t", "3") as player:
            _, said = await asyncio.wait_for(player.communicate(), 20)
            assert player.returncode == 0, said
        answer = await running.http.get(playlist)
        assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
        assert "#EXT-X-INDEPENDENT-SEGMENTS" in answer.text
        assert set(re.findall(r"#EXTINF:([\d.]+)", answer.text)) == {"2.000000"}
        assert (await running.http.get("/sessions/live/hls/index99.ts")).status_code == 404
        assert len(list(folder.glob("streamfx-hls-*/*.m3u8"))) == 1
    assert list(folder.glob("streamfx-hls-*")) == []
    assert_complete(measure(target), least=85)


async def test_hls_into_a_folder(tmp_path: Path) -> None:
    playlist = tmp_path / "live.m3u8"
    pattern = "testpattern://?size=320x180&fps=30&duration=19&realtime=0"
    async with streamfx_run(tmp_path, pattern, str(playlist)) as running:
        _, said = await asyncio.wait_for(running.process.communicate(), 30)
    assert running.process.returncode == 0, said
    text = playlist.read_text()
    segments = re.findall(r"^live\d+\.ts$", text, re.MULTILINE)
    assert segments == [f"live{n}.ts" for n in range(4, 10)], "the last six"
    assert text.rstrip().endswith("#EXT-X-ENDLIST")
    assert not (tmp_path / "live0.ts").exists(), "what nobody can be playing any more is removed"
    seen = measure(playlist)
    assert seen.counters == list(range(4 * 60, 570))
