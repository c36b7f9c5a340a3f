"""Files as they are found in the wild: every shape, clock and colour arrives as it would look in a player."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import SourceError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, VideoFrame
from streamfx.media.base import MediaInfo, SourceRequest, open_source
from streamfx.media.url import MediaUrl
from tests.support import BUNNY, Clip, look_into, plain, streamfx

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}
LEVELS = 6
"""By how many of 255 levels a colour may be off after being encoded in 4:2:0 with limited range."""


@dataclass
class Taken:
    """What a source gave."""

    info: MediaInfo
    video: list[VideoFrame]
    audio: list[AudioFrame]

    @property
    def times(self) -> list[float]:
        return [frame.pts for frame in self.video]

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate([frame.samples for frame in self.audio], axis=1)


async def take(path: Path | str, most: int = 1000, **wishes: object) -> Taken:
    """The first ``most`` pictures, and the sound that came with them."""
    request = SourceRequest(clock=MonotonicClock(), **wishes)  # type: ignore[arg-type]
    async with asyncio.timeout(20), open_source(MediaUrl.parse(str(path)), request) as source:
        taken = Taken(source.info, [], [])
        async for frame in source.frames():
            if isinstance(frame, AudioFrame):
                taken.audio.append(frame)
            else:
                taken.video.append(frame)
                if len(taken.video) == most:
                    break
    return taken


def quarters(size: tuple[int, int]) -> np.ndarray:
    """Red at the top left, green at the top right, blue at the bottom left, grey at the bottom right."""
    width, height = size
    picture = plain(size, COLOURS["grey"])
    picture[: height // 2, : width // 2] = COLOURS["red"]
    picture[: height // 2, width // 2 :] = COLOURS["green"]
    picture[height // 2 :, : width // 2] = COLOURS["blue"]
    return picture


def corners(picture: np.ndarray) -> list[str]:
    """The colours at a fifth from each corner: top left, top right, bottom left, bottom right."""
    height, width = picture.shape[:2]
    places = [(y, x) for y in (height // 5, height - height // 5) for x in (width // 5, width - width // 5)]
    return [
        min(COLOURS, key=lambda name: float(np.abs(picture[place].astype(int) - COLOURS[name]).sum()))
        for place in places
    ]


def off_by(picture: np.ndarray, colour: Sequence[int]) -> float:
    """The largest difference of any channel, taken over the middle of the picture."""
    height, width = picture.shape[:2]
    middle = picture[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4].astype(float)
    return float(np.abs(middle.mean(axis=(0, 1)) - colour).max())


# --- shapes


@pytest.mark.parametrize(("size", "given"), [((64, 48), (64, 48)), ((65, 47), (66, 48)), ((63, 49), (64, 50))])
async def test_odd_sizes_become_even(tmp_path: Path, size: tuple[int, int], given: tuple[int, int]) -> None:
    clip = Clip(size, pictures=[quarters(size)] * 3, frames=3, codec="mpeg4").write(tmp_path / "odd.mkv")
    taken = await take(clip)
    assert taken.info.size == given
    assert {frame.size for frame in taken.video} == {given}
    assert corners(taken.video[0].pixels) == ["red", "green", "blue", "grey"]


def set_rotation(path: Path, clockwise: int) -> None:
    """Writes into an MP4's track header that it is to be shown turned, as telephones do."""
    data = bytearray(path.read_bytes())
    track = data.index(b"tkhd") + 4
    matrix = track + (52 if data[track] else 40)
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    one = 1 << 16
    struct.pack_into(">9i", data, matrix, cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("clockwise", "size", "expected"),
    [
        (0, (96, 64), ["red", "green", "blue", "grey"]),
        (90, (64, 96), ["blue", "red", "grey", "green"]),
        (180, (96, 64), ["grey", "blue", "green", "red"]),
        (270, (64, 96), ["green", "grey", "red", "blue"]),
    ],
)
async def test_rotation(tmp_path: Path, clockwise: int, size: tuple[int, int], expected: list[str]) -> None:
    clip = Clip((96, 64), pictures=[quarters((96, 64))] * 3, frames=3).write(tmp_path / "turned.mp4")
    set_rotation(clip, clockwise)
    taken = await take(clip)
    assert taken.info.size == size
    assert corners(taken.video[0].pixels) == expected


async def test_rotation_into_a_given_size(tmp_path: Path) -> None:
    """An upright clip in a wide picture: as high as the picture, black on both sides."""
    clip = Clip((96, 64), pictures=[quarters((96, 64))] * 3, frames=3).write(tmp_path / "turned.mp4")
    set_rotation(clip, 90)
    picture = (await take(clip, size=(160, 96))).video[0].pixels
    assert picture.shape == (96, 160, 3)
    assert picture[:, :46].max() < 8
    assert picture[:, -46:].max() < 8
    assert corners(picture[:, 48:112]) == ["blue", "red", "grey", "green"]


async def test_anamorphic_in_a_given_size(tmp_path: Path) -> None:
    """Even if that is the number of its samples: twice as wide as high, it gets black above and below."""
    clip = Clip((64, 48), pictures=[plain((64, 48), WHITE)] * 3, frames=3, aspect=Fraction(3, 2))
    picture = (await take(clip.write(tmp_path / "a.mp4"), size=(64, 48))).video[0].pixels
    assert picture[:8].max() == 0
    assert picture[8:40].min() > 240
    assert picture[40:].max() == 0


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(16, 11), (94, 48)), (Fraction(4, 3), (86, 48)), (Fraction(1, 2), (32, 48))]
)
async def test_anamorphic(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    """Samples that are not square: the picture comes as wide as it is meant to look."""
    clip = Clip((64, 48), frames=3, aspect=aspect).write(tmp_path / "wide.mp4")
    assert (await take(clip)).info.size == size


@pytest.mark.parametrize(
    ("source", "size", "box"),
    [
        ((64, 64), (128, 64), (32, 0, 96, 64)),
        ((128, 64), (64, 64), (0, 16, 64, 48)),
        ((64, 48), (128, 96), (0, 0, 128, 96)),
        ((128, 72), (64, 48), (0, 6, 64, 42)),
    ],
)
async def test_letterbox(
    tmp_path: Path, source: tuple[int, int], size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """``box``: left, top, right, bottom of where the picture must be; all around it is black."""
    clip = Clip(source, pictures=[plain(source, WHITE)] * 3, frames=3).write(tmp_path / "white.mp4")
    picture = (await take(clip, size=size)).video[0].pixels
    left, top, right, bottom = box
    expected = np.zeros((size[1], size[0]), bool)
    expected[top:bottom, left:right] = True
    assert picture.shape == (size[1], size[0], 3)
    assert picture[expected].min() > 240
    assert expected.all() or picture[~expected].max() == 0


def test_letterbox_of_the_command(tmp_path: Path) -> None:
    clip = Clip((64, 64), pictures=[plain((64, 64), WHITE)] * 5, frames=5).write(tmp_path / "white.mp4")
    assert streamfx("run", clip, tmp_path / "out.mkv", "--size", "160x64").code == 0
    out = look_into(tmp_path / "out.mkv")
    assert out.size == (160, 64)
    assert out.first is not None
    assert out.first[:, :44].max() < 12
    assert out.first[:, 52:108].min() > 240
    assert out.first[:, 116:].max() < 12


# --- sound


@pytest.mark.parametrize(
    ("rate", "layout"), [(44_100, "mono"), (48_000, "stereo"), (22_050, "stereo"), (48_000, "5.1")]
)
async def test_sound_becomes_48_khz_stereo(tmp_path: Path, rate: int, layout: str) -> None:
    clip = Clip(frames=25, rate=rate, layout=layout).write(tmp_path / "sound.mp4")
    taken = await take(clip)
    assert taken.info.audio
    samples = taken.samples
    assert samples.shape[0] == 2
    assert samples.shape[1] / AUDIO_RATE == pytest.approx(1.0, abs=0.03)
    assert taken.audio[0].pts == pytest.approx(0, abs=1e-3)
    assert np.abs(samples[:, 480:4800]).max() > 0.1, "the beginning is there"
    middle = samples[:, AUDIO_RATE // 4 : 3 * AUDIO_RATE // 4]
    spectrum = np.abs(np.fft.rfft(middle[0]))
    assert np.argmax(spectrum) * AUDIO_RATE / middle.shape[1] == pytest.approx(440, abs=3)
    assert 0.1 < np.abs(middle).max() < 1.0
    np.testing.assert_allclose(middle[0], middle[1], atol=0.02 if layout != "5.1" else 0.1)


async def test_sound_has_no_gaps(tmp_path: Path) -> None:
    taken = await take(Clip(frames=25, rate=44_100, layout="mono").write(tmp_path / "sound.mp4"))
    for before, after in zip(taken.audio, taken.audio[1:], strict=False):
        assert after.pts == pytest.approx(before.pts + before.duration, abs=1e-3)


async def test_no_sound(tmp_path: Path) -> None:
    taken = await take(Clip(frames=5).write(tmp_path / "silent.mp4"))
    assert not taken.info.audio
    assert not taken.audio
    assert len(taken.video) == 5


# --- time


async def test_info() -> None:
    taken = await take(BUNNY, most=1)
    assert taken.info.size == (1280, 720)
    assert taken.info.fps == 25
    assert taken.info.audio
    assert not taken.info.live
    assert taken.info.duration == pytest.approx(5.3, abs=0.05)


async def test_every_frame_in_order() -> None:
    taken = await take(BUNNY, size=(160, 90))
    assert [frame.sequence for frame in taken.video] == list(range(132))
    np.testing.assert_allclose(taken.times, np.arange(132) / 25, atol=1e-3)


UNEVEN = [0.0, 0.04, 0.05, 0.21, 0.22, 0.6, 0.64, 1.3]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
async def test_uneven_timestamps_are_kept(tmp_path: Path, suffix: str) -> None:
    clip = Clip(pts=UNEVEN, codec="libx264").write(tmp_path / f"uneven.{suffix}")
    np.testing.assert_allclose((await take(clip)).times, UNEVEN, atol=1e-3)


def test_uneven_timestamps_through_the_command(tmp_path: Path) -> None:
    clip = Clip(pts=UNEVEN, codec="libx264").write(tmp_path / "uneven.mkv")
    assert streamfx("run", clip, tmp_path / "out.mkv").code == 0
    np.testing.assert_allclose(look_into(tmp_path / "out.mkv").video, UNEVEN, atol=2e-3)


@pytest.mark.parametrize("start", [0.48, 5.0])
async def test_a_file_that_does_not_begin_at_zero(tmp_path: Path, start: float) -> None:
    clip = Clip(frames=10, rate=48_000, start=start, codec="libx264").write(tmp_path / "late.ts")
    taken = await take(clip)
    assert len(taken.video) == 10
    assert min(taken.times[0], taken.audio[0].pts) == pytest.approx(0, abs=0.03), "the codec's lead-in counts"
    assert taken.times[0] == pytest.approx(taken.audio[0].pts, abs=0.03)
    np.testing.assert_allclose(np.diff(taken.times), 0.04, atol=2e-3)


async def test_loop_goes_on(tmp_path: Path) -> None:
    clip = Clip(frames=10, rate=48_000).write(tmp_path / "clip.mp4")
    taken = await take(f"{clip}?loop=1", most=35)
    assert [frame.sequence for frame in taken.video] == list(range(35))
    steps = np.diff(taken.times)
    assert steps.min() > 0.03
    assert steps.max() < 0.12, "a round ends with its sound, which is a little longer"
    assert taken.times[30] == pytest.approx(30 / 25, abs=0.2)
    np.testing.assert_array_equal(taken.video[0].pixels, taken.video[10].pixels)
    begins = np.array([frame.pts for frame in taken.audio])
    assert np.diff(begins).min() >= 0


async def test_realtime_keeps_the_pace(tmp_path: Path) -> None:
    clip = Clip(frames=16, rate=48_000).write(tmp_path / "clip.mp4")
    taken = await take(f"{clip}?realtime=1")
    assert taken.info.live
    delays = np.array([frame.captured_at - frame.pts for frame in taken.video])
    assert delays.max() - delays.min() < 0.1
    assert taken.video[-1].captured_at - taken.video[0].captured_at > 0.5


async def test_realtime_is_not_the_default(tmp_path: Path) -> None:
    taken = await take(Clip(frames=50, fps=Fraction(5)).write(tmp_path / "ten-seconds.mp4"))
    assert not taken.info.live
    assert taken.video[-1].captured_at - taken.video[0].captured_at < 3


async def test_a_question_mark_in_the_name(tmp_path: Path) -> None:
    clip = Clip(frames=3).write(tmp_path / "why?.mp4")
    assert len((await take(clip)).video) == 3
    assert len((await take(f"{clip}?loop=1", most=5)).video) == 5


# --- damage


async def test_damaged_packets_are_skipped(tmp_path: Path) -> None:
    clip = Clip((128, 96), frames=60, codec="libx264", pictures=[noise(n) for n in range(60)]).write(tmp_path / "a.mkv")
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 8] = bytes(len(data) // 8)
    clip.write_bytes(data)
    taken = await take(clip)
    assert 30 <= len(taken.video) < 60
    assert taken.times[-1] > 2.2, "it goes on behind the damage"
    assert np.all(np.diff(taken.times) > 0)


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (96, 128, 3), np.uint8)


async def test_cut_off_mp4_is_told_at_its_end(tmp_path: Path) -> None:
    clip = Clip(frames=100, codec="libx264", options={"movflags": "faststart"}).write(tmp_path / "a.mp4")
    data = clip.read_bytes()
    begin = data.index(b"mdat")
    clip.write_bytes(data[: begin + (len(data) - begin) // 2])
    request = SourceRequest(clock=MonotonicClock())
    count = 0
    with pytest.raises(SourceError, match=r"a\.mp4 is damaged: it ends after [12]\.\d s of 4\.0 s"):  # noqa: PT012
        async with open_source(MediaUrl.parse(str(clip)), request) as source:
            async for _ in source.frames():
                count += 1
    assert 20 <= count < 90


async def test_a_whole_file_is_not_called_damaged(tmp_path: Path) -> None:
    """Sound that ends seconds before the picture, or after it, is no damage."""
    for picture, sound in [(100, 1.0), (25, 4.0)]:
        clip = Clip(frames=picture, rate=48_000, seconds=sound).write(tmp_path / f"{picture}.mp4")
        assert len((await take(clip)).video) == picture


# --- colours


@pytest.mark.parametrize("size", [(640, 360), (1280, 720)], ids=["360p", "720p"])
@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "untagged"])
async def test_colours_are_read(tmp_path: Path, size: tuple[int, int], tagged: bool) -> None:
    matrix = 1 if size[1] >= 720 else 6
    for name, colour in COLOURS.items():
        clip = Clip(
            size, pictures=[plain(size, colour)] * 2, frames=2, codec="libx264", matrix=matrix, tagged=tagged
        ).write(tmp_path / f"{name}.mp4")
        assert off_by((await take(clip)).video[0].pixels, colour) <= LEVELS, name


async def test_a_tag_counts_more_than_the_size(tmp_path: Path) -> None:
    for size, matrix in [((640, 360), 1), ((1280, 720), 6)]:
        clip = Clip(size, pictures=[plain(size, COLOURS["green"])] * 2, frames=2, codec="libx264", matrix=matrix)
        taken = await take(clip.write(tmp_path / f"{matrix}.mp4"))
        assert off_by(taken.video[0].pixels, COLOURS["green"]) <= LEVELS


@pytest.mark.parametrize("size", [(640, 360), (1280, 720)], ids=["360p", "720p"])
@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "untagged"])
async def test_colours_through_the_command(tmp_path: Path, size: tuple[int, int], tagged: bool) -> None:
    """Through a file and a copy of it."""
    matrix = 1 if size[1] >= 720 else 6
    picture = quarters(size)
    clip = Clip(size, pictures=[picture] * 3, frames=3, codec="libx264", matrix=matrix, tagged=tagged).write(
        tmp_path / "in.mp4"
    )
    assert streamfx("run", clip, tmp_path / "out.mp4").code == 0
    result = (await take(tmp_path / "out.mp4")).video[0].pixels
    height, width = picture.shape[:2]
    for rows in (slice(0, height // 2), slice(height // 2, None)):
        for columns in (slice(0, width // 2), slice(width // 2, None)):
            assert off_by(result[rows, columns], picture[rows, columns][height // 4, width // 4]) <= LEVELS


def test_the_outputs_colours_are_tagged(tmp_path: Path) -> None:
    import av

    for size, code in [((640, 360), 6), ((1280, 720), 1)]:
        clip = Clip(size, frames=2, codec="libx264").write(tmp_path / f"in{code}.mp4")
        assert streamfx("run", clip, tmp_path / f"out{code}.mp4").code == 0
        with av.open(str(tmp_path / f"out{code}.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert {int(context.colorspace), int(context.color_primaries), int(context.color_trc)} == {code}
            assert int(context.color_range) == 1
