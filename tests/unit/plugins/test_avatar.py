"""The avatar's filter: what is heard is said by a picture, in time, whatever comes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx.filters import Block, Context
from streamfx_plugins.avatar import Avatar, AvatarParams, fitted
from tests.support import SPEECH

pytest.importorskip("silero_vad")

FPS, RATE = 25, 48_000
SIZE = (128, 128)
EACH = RATE // FPS


@pytest.fixture(scope="module")
def voice() -> NDArray[np.float32]:
    """``(2, N) float32``: silence for a second, then the clip that comes with the project."""
    resampler = av.AudioResampler("fltp", "stereo", RATE)
    with av.open(str(SPEECH)) as file:
        parts = [part.to_ndarray() for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([np.zeros((2, RATE), np.float32), *parts], axis=1).astype(np.float32)


def filter_of(params: AvatarParams, size: tuple[int, int] = SIZE, live: bool = True) -> Avatar:
    subject = Avatar()
    subject.setup(Context(size, FPS, live=live), params)
    return subject


def blocks(sound: NDArray[np.float32] | None, seconds: float, start: float = 0.0, quality: int = 0) -> Iterator[Block]:
    """A picture each, and the sound that belongs to it."""
    for n in range(round(seconds * FPS)):
        piece = None if sound is None else sound[:, n * EACH : (n + 1) * EACH]
        heard = piece if piece is not None and piece.shape[1] else None
        pts = start + n / FPS
        blank = np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8)
        yield Block(video=blank, pts=(pts,), audio=heard, audio_pts=pts, quality=quality)


Shown = list[tuple[float, float, NDArray[np.uint8]]]


def shown(subject: Avatar, given: Iterator[Block], params: AvatarParams) -> Shown:
    """(pts of what went in, pts of what came out, picture)."""
    found: Shown = []
    for block in given:
        answer = subject.process(block, params)
        if answer.video is not None:
            found += [(block.pts[0], pts, picture) for pts, picture in zip(answer.pts, answer.video, strict=True)]
    return found


def mouth(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    return picture[height // 2 : height * 7 // 10, width * 3 // 8 : width * 5 // 8].astype(np.float32)


def movement(found: Shown, low: float, high: float) -> float:
    """How much the mouth's part of the picture changes from one to the next, between two moments."""
    some = [mouth(picture) for _, pts, picture in found if low <= pts < high]
    return float(np.mean([np.abs(b - a).mean() for a, b in pairwise(some)]))


STILL = AvatarParams(motion=0)


def test_it_speaks_when_it_hears_speech_and_rests_when_it_does_not(voice: NDArray[np.float32]) -> None:
    found = shown(filter_of(STILL), blocks(voice, 5), STILL)
    assert [pts for _, pts, _ in found] == pytest.approx([n / FPS for n in range(len(found))])
    assert movement(found, 1.6, 4.5) > 8 * max(movement(found, 0.2, 0.9), 0.05)
    # It waits for no more than it says.
    late = max(given - pts for given, pts, _ in found)
    assert late <= Avatar.info.lookahead + 1e-6


def test_noise_and_music_move_no_lips() -> None:
    chance = np.random.default_rng(0)
    moments = np.arange(3 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * tone * moments) for tone in (220.0, 277.2, 329.6)) / 6
    for sound in (chance.normal(0, 0.05, len(moments)), chord):
        both = np.tile(sound.astype(np.float32), (2, 1))
        found = shown(filter_of(STILL), blocks(both, 3), STILL)
        assert movement(found, 1.0, 2.8) < 0.6


@pytest.mark.parametrize("what", ["quiet", "clipped", "left"])
def test_levels_and_channels_do_not_silence_it(voice: NDArray[np.float32], what: str) -> None:
    sound = {
        "quiet": 0.05 * voice,
        "clipped": np.clip(20 * voice, -1, 1),
        "left": voice * np.array([[1.0], [0.0]], np.float32),
    }[what]
    found = shown(filter_of(STILL), blocks(sound.astype(np.float32), 4), STILL)
    assert movement(found, 1.6, 3.6) > 0.5


def test_without_any_sound_it_lives_on() -> None:
    found = shown(filter_of(AvatarParams()), blocks(None, 3), AvatarParams())
    assert len(found) > 50
    pictures = [picture for _, _, picture in found]
    assert np.abs(pictures[-1].astype(int) - pictures[0]).mean() > 0.2


def test_sound_that_ends_ends_in_rest(voice: NDArray[np.float32]) -> None:
    subject = filter_of(STILL)
    shown(subject, blocks(voice, 3), STILL)
    found = shown(subject, blocks(None, 3, start=3.0), STILL)
    assert movement(found, 4.5, 5.5) < 0.6
    # A gap of three seconds, and it speaks again.
    again = shown(subject, blocks(voice[:, RATE:], 3, start=6.0), STILL)
    assert movement(again, 6.6, 8.5) > 1


def test_a_face_at_rest_is_drawn_once(voice: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    from streamfx.models.avatar.drawing import Painter

    drawn = 0
    draw = Painter.draw

    def counted(self: Painter, coefficients: NDArray[np.float32]) -> NDArray[np.uint8]:
        nonlocal drawn
        drawn += 1
        return draw(self, coefficients)

    monkeypatch.setattr(Painter, "draw", counted)
    thrifty = AvatarParams(economy=True)
    subject = filter_of(thrifty)
    drawn = 0
    quiet = np.zeros((2, 20 * RATE), np.float32)
    found = shown(subject, blocks(quiet, 20), thrifty)
    assert len(found) > 490
    assert drawn < 130
    before = drawn
    shown(subject, blocks(voice[:, RATE:], 3, start=20.0), thrifty)
    assert drawn - before > 50


def test_somebody_else_speaks_on(voice: NDArray[np.float32]) -> None:
    subject, one, other = filter_of(AvatarParams(character=1)), AvatarParams(character=1), AvatarParams(character=2)
    first = shown(subject, blocks(voice, 1), one)
    second = shown(subject, blocks(voice[:, RATE:], 1, start=1.0), other)
    assert [pts for _, pts, _ in first + second] == pytest.approx([n / FPS for n in range(len(first + second))])
    assert np.abs(first[-1][2].astype(int) - second[-1][2]).mean() > 10


@pytest.mark.parametrize("size", [(128, 128), (160, 90), (90, 160), (65, 97)])
@pytest.mark.parametrize("quality", [0, 2])
def test_any_shape_of_picture(size: tuple[int, int], quality: int) -> None:
    subject = filter_of(STILL, size)
    block = Block(
        video=np.zeros((1, size[1], size[0], 3), np.uint8),
        pts=(0.0,),
        audio=np.zeros((2, RATE), np.float32),
        quality=quality,
    )
    answer = subject.process(block, STILL)
    assert answer.video is not None
    assert answer.video.shape == (1, size[1], size[0], 3)
    assert answer.video.std() > 10


def test_a_square_is_whole_in_any_frame() -> None:
    square = np.zeros((64, 64, 3), np.uint8)
    square[:, :, 0] = 200
    wide = fitted(square, (128, 64))
    assert wide.shape == (64, 128, 3)
    np.testing.assert_array_equal(wide[:, 32:96], square)
    assert (wide[:, :32, 0] > 150).all()


def test_it_is_the_same_again_after_a_reset(voice: NDArray[np.float32]) -> None:
    subject = filter_of(STILL)
    shown(subject, blocks(voice, 2), STILL)
    subject.reset()
    found = shown(subject, blocks(voice, 1, start=500.0), STILL)
    assert found[0][1] == 500.0


def test_late_sound_is_waited_for_and_then_caught_up_with(voice: NDArray[np.float32]) -> None:
    subject = filter_of(STILL)
    # Of half a second in the middle, the sound comes all at once, later.
    kept: list[NDArray[np.float32]] = []
    lags: list[float] = []
    for n, given in enumerate(blocks(voice, 8)):
        assert given.audio is not None
        kept.append(given.audio)
        block = replace(given, audio=None)
        if not 50 <= n < 60:
            start = given.audio_pts - (len(kept) - 1) / FPS
            block = replace(given, audio=np.concatenate(kept, axis=1), audio_pts=start)
            kept = []
        answer = subject.process(block, STILL)
        lags += [block.pts[0] - pts for pts in answer.pts]
    assert max(lags) > 0.4
    assert lags[-1] <= Avatar.info.lookahead + 2 / FPS
