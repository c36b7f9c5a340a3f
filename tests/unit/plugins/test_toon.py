"""The cartoon filter: what it does to surfaces, contours and noise, and that no parameter or size breaks it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx.filters import Block, Context
from streamfx_plugins.toon import Toon, ToonParams

Picture = NDArray[np.uint8]


def draw(*pictures: Picture, quality: int = 0, **params: float) -> list[Picture]:
    """The pictures through one toon, one after the other."""
    toon = Toon()
    return [
        toon.process(Block(video=picture[None], pts=(0.0,), quality=quality), ToonParams(**params)).frames[0]
        for picture in pictures
    ]


@pytest.fixture
def scene() -> Picture:
    """A grainy surface with a disc of another colour on it."""
    rng = np.random.default_rng(1)
    picture = np.full((360, 640, 3), (150, 120, 90), np.float32)
    cv2.circle(picture, (320, 180), 90, (40, 70, 130), -1, cv2.LINE_AA)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def test_surfaces_are_flattened(scene: Picture) -> None:
    (drawn,) = draw(scene)
    surface = (slice(20, 80), slice(20, 200))
    assert drawn[surface].std(axis=(0, 1)).max() < 0.4 * scene[surface].std(axis=(0, 1)).max()


def test_contours_are_inked_and_stay_where_they_are(scene: Picture) -> None:
    (inked,), (plain,) = draw(scene), draw(scene, ink=0)
    darker = plain.astype(int).sum(axis=2) - inked.astype(int).sum(axis=2)
    rows, columns = np.nonzero(darker > 60)
    assert len(rows) > 200
    distance = np.hypot(rows - 180, columns - 320)
    assert np.percentile(np.abs(distance - 90), 95) < 6, "ink lies off the contour"
    assert np.mean(darker > 60) < 0.03, "ink lies on the grain"


def test_tones_come_in_steps() -> None:
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (360, 1, 3))
    (drawn,) = draw(ramp, levels=5, softness=0, ink=0, steadiness=0)
    histogram = np.bincount(drawn[180, :, 0], minlength=256)
    assert np.sort(histogram)[-5:].sum() > 0.6 * 640, "five tones should hold most of the ramp"


def test_still_scene_stays_still_under_noise() -> None:
    rng = np.random.default_rng(2)
    still = np.full((180, 320, 3), 130, np.float32)
    cv2.rectangle(still, (80, 40), (240, 140), (70, 150, 90), -1)
    frames = [np.clip(still + rng.normal(0, 5, still.shape), 0, 255).astype(np.uint8) for _ in range(30)]
    steady = np.stack(draw(*frames, steadiness=1.0)[10:]).astype(float).std(axis=0).mean()
    plain = np.stack(draw(*frames, steadiness=0.0)[10:]).astype(float).std(axis=0).mean()
    source = np.stack(frames[10:]).astype(float).std(axis=0).mean()
    assert steady < 0.8 * plain
    assert steady < 0.2 * source


def test_what_moves_leaves_no_trail() -> None:
    frames = []
    for n in range(10):
        frame = np.full((180, 320, 3), 200, np.uint8)
        frame[60:120, 20 * n : 20 * n + 60] = (30, 40, 160)
        frames.append(frame)
    kept = draw(*frames, steadiness=1.0, ink=0)[-1]
    alone = draw(frames[-1], ink=0)[0]
    assert np.abs(kept.astype(int) - alone).mean() < 3


def test_reset_forgets(scene: Picture) -> None:
    toon, params = Toon(), ToonParams(steadiness=1.0)
    first = toon.process(Block(video=scene[None], pts=(0.0,)), params).frames
    toon.process(Block(video=255 - scene[None], pts=(0.1,)), params)
    toon.reset()
    assert np.array_equal(toon.process(Block(video=scene[None], pts=(0.2,)), params).frames, first)


def test_input_is_left_alone(scene: Picture) -> None:
    scene.flags.writeable = False
    before = scene.copy()
    draw(scene)
    assert np.array_equal(scene, before)


@pytest.mark.parametrize("quality", [0, 1, 2, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 3), (33, 17), (90, 160), (641, 359), (720, 1280)])
def test_any_size_at_any_quality(size: tuple[int, int], quality: int) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    (drawn,) = draw(picture, quality=quality)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize("name", list(ToonParams.model_fields))
@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_any_extreme(name: str, end: str) -> None:
    value = ToonParams.model_json_schema()["properties"][name][end]
    picture = np.random.default_rng(4).integers(0, 256, (90, 160, 3), np.uint8)
    picture[:, 80:] = 255
    (drawn,) = draw(picture, **{name: value})
    assert drawn.std() > 0 or name == "ink"


def test_size_may_change_between_frames(scene: Picture) -> None:
    drawn = draw(scene, scene[:100, :120].copy(), scene)
    assert [picture.shape for picture in drawn] == [(360, 640, 3), (100, 120, 3), (360, 640, 3)]


def test_set_up_leaves_no_past() -> None:
    toon = Toon()
    toon.setup(Context(size=(64, 36)), ToonParams())
    white = np.full((1, 36, 64, 3), 255, np.uint8)
    assert toon.process(Block(video=white, pts=(0.0,)), ToonParams()).frames.min() > 230
