"""Several streams in one program, sources without sound, and a third party's filter installed by pip."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from streamfx.config import load_config
from streamfx.media.base import Shared
from streamfx.media.pattern import Pattern
from streamfx.pipeline import Session
from tests.integration.programs import FFMPEG, free_port, needs_ffmpeg, program
from tests.integration.streamfx_process import streamfx_run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]


async def until(condition: object, what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@needs_ffmpeg
async def test_many_publishers_on_one_port(tmp_path: Path) -> None:
    port, shared = free_port(), Shared()
    keys = ("alpha-key", "bravo-key", "delta-key")
    sizes = ((320, 180), (160, 120), (240, 240))

    def session(key: str) -> Session:
        flags = {"input": f"rtmp://127.0.0.1:{port}/live/{key}?listen=1", "outputs": [str(tmp_path / f"{key}.mkv")]}
        return Session(load_config(None, flags).session_settings(), shared=shared)

    def send(key: str, size: tuple[int, int]) -> object:
        picture = f"testsrc2=size={size[0]}x{size[1]}:rate=25"
        return program(
            FFMPEG or "", "-loglevel", "error", "-re", "-f", "lavfi", "-i", picture, "-c:v", "libx264",
            "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-pix_fmt", "yuv420p", "-f", "flv",
            f"rtmp://127.0.0.1:{port}/live/{key}",
        )  # fmt: skip

    sessions = [session(key) for key in keys]
    async with asyncio.TaskGroup() as group:
        for one in sessions:
            group.create_task(one.run())
        await until(lambda: all("waiting" in one.source_state for one in sessions), "all listening")
        async with send(keys[0], sizes[0]), send(keys[1], sizes[1]), send(keys[2], sizes[2]):  # type: ignore[attr-defined]
            await until(lambda: all(one.counts.counters["frames_out"] > 50 for one in sessions), "frames of all")
            # One leaves; the port and the others stay.
            sessions[0].stop()
            await until(lambda: sessions[0].state == "ended", "the first to end")
            before = sessions[1].counts.counters["frames_in"]
            await until(lambda: sessions[1].counts.counters["frames_in"] > before + 25, "more frames")
            for one in sessions[1:]:
                one.stop()
    for key, size in zip(keys, sizes, strict=True):
        with av.open(str(tmp_path / f"{key}.mkv")) as container:
            context = container.streams.video[0].codec_context
            assert (context.width, context.height) == size, "the streams were mixed up"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@needs_ffmpeg
async def test_source_without_sound_gets_a_silent_track(tmp_path: Path) -> None:
    url, copy = f"rtmp://127.0.0.1:{free_port()}/live/quiet", tmp_path / "copy.mkv"
    picture = ("-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30", "-c:v", "libx264", "-preset", "ultrafast")
    async with streamfx_run(tmp_path, f"{url}?listen=1", str(copy)) as relay:
        await relay.until(lambda s: "waiting" in s["source_state"], "listening")
        async with program(FFMPEG or "", "-loglevel", "error", *picture, "-pix_fmt", "yuv420p", "-f", "flv", url):
            await relay.frames(90)
        code, errors = await relay.stop()
    assert code == 0, errors
    with av.open(str(copy)) as container:
        sound = [frame.to_ndarray() for frame in container.decode(audio=0)]
        assert np.abs(np.concatenate(sound, axis=1)).max() < 1e-4
        assert sum(part.shape[1] for part in sound) > 2 * 48_000


async def test_restyled_from_file_to_file(tmp_path: Path) -> None:
    """In a size whose sides are odd multiples of nothing, and upright; the summary says which style was taken."""
    copy = tmp_path / "restyled.mp4"
    pattern = "testpattern://?size=182x322&duration=1&realtime=0"
    arguments = (pattern, str(copy), "--filter", "restyle", "--set", "style=van gogh starry night")
    async with streamfx_run(tmp_path, *arguments) as run:
        said, errors = await asyncio.wait_for(run.process.communicate(), 60)
        assert run.process.returncode == 0, errors.decode()
    assert "style starry-night" in (said or b"").decode() + errors.decode()
    with av.open(str(copy)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 30
    assert {picture.shape for picture in pictures} == {(322, 182, 3)}
    assert min(picture.std() for picture in pictures) > 5


async def test_third_party_filter(tmp_path: Path) -> None:
    """The example is installed as its README says, but into a folder of its own."""
    place, copy = tmp_path / "site", tmp_path / "vignette.mp4"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place)]
    made = subprocess.run([*pip, str(ROOT / "examples/custom_filter")], capture_output=True, text=True, check=False)  # noqa: ASYNC221
    assert made.returncode == 0, made.stderr
    environment = {"PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}
    pattern = "testpattern://?size=320x180&duration=1&realtime=0"
    arguments = (pattern, str(copy), "--filter", "vignette", "--set", "strength=1")
    async with streamfx_run(tmp_path, *arguments, environment=environment) as run:
        _, errors = await asyncio.wait_for(run.process.communicate(), 60)
        assert run.process.returncode == 0, errors.decode()
    with av.open(str(copy)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    light = picture / np.maximum(1.0, Pattern((320, 180), 30).picture(0))
    assert 0.8 < light[80:100, 150:170].mean() < 1.1, "the middle is not left alone"
    assert light[60:100, :10].mean() < 0.8, "the edges are not darker"
