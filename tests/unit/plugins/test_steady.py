"""Pictures that are steadied along the flow of their sources."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfx_plugins.steady import Steady

Picture = NDArray[np.uint8]
SIZE = (96, 128)


def texture(seed: int, shape: tuple[int, int] = (256, 320)) -> Picture:
    rough = np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(rough, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def window(of: Picture, right: int) -> Picture:
    """A camera that has moved to the right."""
    return of[40 : 40 + SIZE[0], 40 + right : 40 + right + SIZE[1]].copy()


def noise(seed: int, picture: Picture) -> Picture:
    drawn = picture + np.random.default_rng(seed).normal(0, 12, picture.shape)
    return np.clip(drawn, 0, 255).round().astype(np.uint8)


def apart(a: Picture, b: Picture) -> float:
    """Mean in levels, away from the borders."""
    return float(np.abs(a.astype(np.float32) - b)[8:-8, 8:-8].mean())


def test_what_the_camera_moves_is_steadied_where_it_goes() -> None:
    source, drawing, steady = texture(0), texture(1), Steady()
    for n in range(8):
        right = 3 * n
        wanted = window(drawing, right)
        given = noise(n, wanted)
        out = steady(given, window(source, right), 0.5)
        assert out.dtype == np.uint8
        assert out.shape == given.shape
    assert apart(out, wanted) < 0.75 * apart(given, wanted)
    # Without its way it would be another picture.
    assert apart(window(drawing, 18), wanted) > 1.4 * apart(given, wanted)


def test_nothing_is_taken_from_another_scene() -> None:
    steady = Steady()
    for _ in range(3):
        steady(window(texture(1), 0), window(texture(0), 0), 0.5)
    cut = window(texture(3), 0)
    assert apart(steady(cut, window(texture(2), 0), 0.5), cut) < 0.25 * 0.5 * apart(cut, window(texture(1), 0))


def test_the_first_one_no_share_and_another_size_are_as_they_are() -> None:
    source, one, other = window(texture(0), 0), window(texture(1), 0), window(texture(2), 0)
    steady = Steady()
    assert np.array_equal(steady(one, source, 0.5), one)
    assert np.array_equal(steady(other, source, 0.0), other)
    assert apart(steady(one, source, 0.5), one) > 1
    assert np.array_equal(steady(one[:64], source[:64], 0.5), one[:64])
    steady.reset()
    assert np.array_equal(steady(other[:64], source[:64], 0.5), other[:64])


def test_pictures_of_few_pixels_pass() -> None:
    steady = Steady()
    for shape in ((16, 16), (16, 16), (16, 300), (16, 300), (300, 16), (300, 16)):
        picture = np.full((*shape, 3), 100, np.uint8)
        assert np.array_equal(steady(picture, picture, 0.5), picture)
