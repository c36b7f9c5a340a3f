"""Drawn characters: the same one for a seed, coefficients that move what they are named after, and nothing breaks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx.models.avatar.character import HAIR_STYLES, STYLES, Character
from streamfx.models.avatar.coefficients import COEFFICIENTS, MOUTH
from streamfx.models.avatar.drawing import Painter, draw
from streamfx.models.avatar.drawing_canvas import Canvas
from streamfx.models.avatar.drawing_eyes import Eye
from streamfx.models.avatar.drawing_mouth import Mouth
from streamfx.models.avatar.drawing_pose import Head, Pose

SIZE = 64
PLAIN = replace(Character.of(9), glasses="none", beard="none", clothes="crew", hair="bun", style="soft")


def row(**values: float) -> NDArray[np.float32]:
    coefficients = np.zeros(len(COEFFICIENTS), np.float32)
    for name, value in values.items():
        coefficients[COEFFICIENTS.index(name)] = value
    return coefficients


def lowest() -> NDArray[np.float32]:
    return np.array([0 if name in MOUTH or name.startswith("blink") else -1 for name in COEFFICIENTS], np.float32)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(PLAIN, 256)


def change(painter: Painter, **values: float) -> NDArray[np.float64]:
    """How much each pixel differs from rest, ``(256, 256)``."""
    return np.abs(painter.draw(row(**values)).astype(float) - painter.draw(row())).mean(axis=2)


def test_a_seed_is_always_the_same_character_and_survives_json() -> None:
    one = Character.of(7)
    assert one == Character.of(7)
    assert Character(**json.loads(json.dumps(asdict(one)))) == one
    assert (draw(one, row(jaw_open=0.4), SIZE) == draw(Character.of(7), row(jaw_open=0.4), SIZE)).all()


def test_a_painter_keeps_nothing_of_the_last_picture(painter: Painter) -> None:
    first = painter.draw(row())
    painter.draw(np.ones(len(COEFFICIENTS)))
    assert (painter.draw(row()) == first).all()


def test_seeds_are_distinct() -> None:
    assert len({Character.of(seed) for seed in range(120)}) == 120
    pictures = [draw(Character.of(seed), row(), SIZE).astype(int) for seed in range(10)]
    apart = [np.abs(a - b).mean() for n, a in enumerate(pictures) for b in pictures[:n]]
    assert min(apart) > 4


def test_all_that_there_is_gets_drawn() -> None:
    drawn = [Character.of(seed) for seed in range(160)]
    assert {one.hair for one in drawn} == set(HAIR_STYLES)
    assert {one.style for one in drawn} == set(STYLES)
    for hair in HAIR_STYLES:
        draw(replace(drawn[0], hair=hair), row(yaw=0.7), 64)


@pytest.mark.parametrize("size", [64, 193, 256, 512])
def test_sizes(size: int) -> None:
    picture = draw(PLAIN, row(), size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_every_coefficient_is_seen(painter: Painter, name: str) -> None:
    assert change(painter, **{name: 1.0}).max() > 20


@pytest.mark.parametrize("name", MOUTH)
def test_the_mouth_moves_the_lower_face_alone(painter: Painter, name: str) -> None:
    moved = change(painter, **{name: 1.0})
    assert moved[128:210, 64:192].max() > 20
    assert moved[:64].max() == 0
    assert moved[225:].max() == 0


def test_eyes_and_brows_leave_the_mouth_alone(painter: Painter) -> None:
    for name in ("blink_left", "blink_right", "gaze_x", "gaze_y", "brow_up"):
        moved = change(painter, **{name: 1.0})
        assert moved[70:135].max() > 20
        assert moved[145:].max() == 0, name
    assert change(painter, blink_left=1.0)[:, 128:].max() == 0
    assert change(painter, blink_right=1.0)[:, :128].max() == 0


def test_breath_lifts_the_shoulders_alone(painter: Painter) -> None:
    moved = change(painter, breath=1.0)
    assert moved[200:].max() > 20
    assert moved[:150].max() == 0


def test_a_turn_moves_the_face_the_way_it_is_named() -> None:
    mouth = np.array([[0.0, 0.7]])
    rest = Head(PLAIN, Pose.of(row())).on_face(mouth)[0]
    assert Head(PLAIN, Pose.of(row(yaw=1.0))).on_face(mouth)[0][0] > rest[0] + 0.1
    assert Head(PLAIN, Pose.of(row(pitch=1.0))).on_face(mouth)[0][1] > rest[1] + 0.05
    crown = np.array([[0.0, -1.2, 0.0]])
    assert Head(PLAIN, Pose.of(row(roll=1.0))).place(crown)[0][0] > 0.1


def test_a_blink_hides_the_iris() -> None:
    one = Painter(replace(PLAIN, eye_colour="#20e020", lid_colour=""), 256)

    def green(picture: NDArray[np.uint8]) -> int:
        red, level, blue = (picture[..., n].astype(int) for n in range(3))
        return int(((level > red + 60) & (level > blue + 60)).sum())

    open_eyes = green(one.draw(row()))
    assert open_eyes > 80
    assert green(one.draw(row(blink_left=1.0))) == pytest.approx(open_eyes / 2, rel=0.2)
    assert green(one.draw(row(blink_left=1.0, blink_right=1.0))) == 0


def test_teeth_stay_between_the_lips() -> None:
    one = Painter(replace(PLAIN, mole=False), 256)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(16):
        values = rng.choice([0.0, 0.5, 1.0], len(MOUTH))
        coefficients = row(**dict(zip(MOUTH, values, strict=True)), smile=rng.uniform(-1, 1), yaw=rng.uniform(-1, 1))
        pose = Pose.of(coefficients)
        mouth, canvas = Mouth(one.character, pose), Canvas(np.zeros((256, 256, 3), np.uint8))
        canvas.fill(Head(one.character, pose).on_face(mouth.outline(), mouth.lift), (255, 255, 255))
        lips = canvas.pixels[..., 0]
        white = (one.draw(coefficients).min(axis=2) > 228) & (np.arange(256)[:, None] > 140) & (
            np.arange(256)[:, None] < 200
        )  # fmt: skip
        seen += int(white.sum())
        assert not (white & (cv2.dilate(lips, np.ones((5, 5))) == 0)).any()
    assert seen > 100


def test_lips_keep_their_order() -> None:
    rng = np.random.default_rng(1)
    for seed in range(150):
        values = np.where(rng.random(17) < 0.5, rng.integers(0, 2, 17), rng.uniform(-1, 1, 17))
        mouth = Mouth(Character.of(seed), Pose.of(values))
        lines = (mouth.upper_outer, mouth.upper_inner, mouth.lower_inner, mouth.lower_outer)
        across = np.linspace(0.95 * mouth.upper_inner[0, 0], 0.95 * mouth.upper_inner[-1, 0], 40)
        heights = np.array([np.interp(across, line[:, 0], line[:, 1]) for line in lines])
        assert np.diff(heights, axis=0).min() > -1e-3


def test_small_steps_are_small_changes() -> None:
    rng = np.random.default_rng(2)
    for seed in (3, 28):
        one = Painter(Character.of(seed), SIZE)
        place = rng.uniform(lowest(), 1)
        before = one.draw(place).astype(int)
        for _ in range(15):
            place = np.clip(place + rng.normal(0, 0.02, 17), lowest(), 1)
            after = one.draw(place).astype(int)
            assert np.abs(after - before).mean() < 4
            before = after


@pytest.mark.parametrize("seed", range(3))
def test_extremes_break_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for n in range(3):
        one = Painter(Character.of(100 * seed + n), SIZE)
        rest = one.draw(row()).astype(float)
        for _ in range(3):
            picture = one.draw(rng.choice([-3.0, 0.0, 1.0, 3.0], 17)).astype(float)
            # It is still a picture of the same character: its colours are as they were, just elsewhere.
            assert np.abs(picture.mean(axis=(0, 1)) - rest.mean(axis=(0, 1))).max() < 30


def test_coefficients_outside_their_range_are_clipped(painter: Painter) -> None:
    assert (painter.draw(row(jaw_open=5.0)) == painter.draw(row(jaw_open=1.0))).all()


def test_bad_input_is_refused(painter: Painter) -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(17,\)"):
        painter.draw(np.zeros(16))
    with pytest.raises(ValueError, match=r"must have the shape \(17,\)"):
        painter.draw(np.zeros((1, 17)))
    with pytest.raises(ValueError, match="finite"):
        painter.draw(row(yaw=float("nan")))
    with pytest.raises(ValueError, match="at least 32"):
        Painter(PLAIN, 8)
    with pytest.raises(ValueError, match="hair must be one of"):
        replace(PLAIN, hair="mullet")


def test_nothing_of_the_eyes_is_left_beside_them() -> None:
    """What is painted within the lids ends there, wherever they are: no green on the cheeks."""
    who = replace(PLAIN, eye_colour="#20e020", eye_size=1.1, eye_open=1.2, lashes=0.0)
    one = Painter(who, 256)
    for smile in (-1.0, 1.0):
        for shut in (0.0, 0.5, 0.9):
            for gaze in (-1.0, 1.0):
                pose = row(smile=smile, blink_left=shut, blink_right=shut, gaze_x=gaze, gaze_y=gaze)
                picture = one.draw(pose).astype(int)
                green = (picture[..., 1] > picture[..., 0] + 60) & (picture[..., 1] > picture[..., 2] + 60)
                canvas = Canvas(np.zeros((256, 256, 3), np.uint8))
                for side in (-1.0, 1.0):
                    eye, head = Eye(who, Pose.of(pose), side), Head(who, Pose.of(pose))
                    (lids,) = eye.on(head, np.vstack([eye.upper, eye.lower[::-1]]))
                    canvas.fill(lids, (255, 255, 255))
                assert not (green & (cv2.dilate(canvas.pixels[..., 0], np.ones((5, 5))) == 0)).any()
