"""What the process that reads live streams makes of them; a file stands for the network."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import SourceError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Frame, VideoFrame
from streamfx.media.base import SourceRequest
from streamfx.media.hwaccel import NONE
from streamfx.media.live_input import LiveInput, live_source
from tests.support import ramp

FRAMES = 50
SIZE = (64, 48)


def write(path: Path, video: str, audio: str, rate: int) -> Path:
    """Two seconds of a moving ramp and a tone."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video, rate=Fraction(25))
        assert isinstance(pictures, av.VideoStream)
        pictures.width, pictures.height, pictures.pix_fmt = *SIZE, "yuv420p"
        pictures.codec_context.gop_size = 10
        sound = container.add_stream(audio, rate=rate, layout="mono")
        assert isinstance(sound, av.AudioStream)
        resampler = av.AudioResampler(sound.codec_context.format, "mono", rate)
        for n in range(FRAMES):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(ramp(SIZE, n), "rgb24")))
            tone = np.sin(2 * np.pi * 440 * (n * rate // 25 + np.arange(rate // 25)) / rate)
            frame = av.AudioFrame.from_ndarray((8000 * tone).astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.pts = rate, n * rate // 25
            for resampled in resampler.resample(frame):
                container.mux(sound.encode(resampled))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    return path


async def read(path: Path, states: list[str]) -> tuple[list[Frame], str]:
    """All its frames, and what is said at its end."""
    what = LiveInput("the stream", str(path), "nut", grace=0.2)
    frames: list[Frame] = []

    def on_state(state: str) -> None:
        states.append(state)
        path.unlink(missing_ok=True)  # it is open by now, and is not to be found again

    try:
        async with live_source(what, SourceRequest(MonotonicClock(), on_state=on_state), NONE) as source:
            async for frame in source.frames():
                frames.append(frame)  # noqa: PERF401 - what came before the error counts
    except SourceError as error:
        return frames, str(error)
    raise AssertionError("it ended without a reason")


@pytest.mark.parametrize(
    ("video", "audio", "rate"),
    [("libx264", "pcm_alaw", 8000), ("libx264", "aac", 44_100), ("libvpx", "libopus", 48_000)],
)
async def test_picture_and_sound_come_through(tmp_path: Path, video: str, audio: str, rate: int) -> None:
    states: list[str] = []
    frames, said = await read(write(tmp_path / "clip.nut", video, audio, rate), states)
    pictures = [frame for frame in frames if isinstance(frame, VideoFrame)]
    sound = [frame for frame in frames if isinstance(frame, AudioFrame)]
    assert pictures[0].size == SIZE
    steps = np.diff([frame.pts for frame in pictures])
    assert steps == pytest.approx(np.full(len(steps), 0.04), abs=1.1e-3)
    assert len(pictures) >= FRAMES - 15, "the first are for finding out the rate"
    heard = np.concatenate([frame.samples for frame in sound], axis=1)
    assert heard.shape[1] > 1.2 * AUDIO_RATE
    peak = np.argmax(np.abs(np.fft.rfft(heard[0, :AUDIO_RATE])))
    assert peak == pytest.approx(440, abs=2)
    assert states[0] == "pulling"
    assert said.startswith("the stream was lost and did not come back within 0 s")


async def test_what_cannot_be_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames, _ = await read(write(tmp_path / "a.nut", "libx264", "mp2", 48_000), [])
    assert any(isinstance(frame, VideoFrame) for frame in frames)
    assert "sound in mp2 left out" in caplog.text
    _, said = await read(write(tmp_path / "b.nut", "mpeg4", "aac", 48_000), [])
    assert said == "the stream cannot be read: its video is mpeg4; send H.264, HEVC, AV1 or VP9"
    _, said = await read(tmp_path / "nothing.nut", [])
    assert said == "the stream cannot be read: no such file or directory"
