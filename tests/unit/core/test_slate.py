"""The picture of waiting."""

from __future__ import annotations

import numpy as np
import pytest

from streamfx.core.slate import Slate


@pytest.mark.parametrize("size", [(360, 640), (1080, 1920), (33, 57), (8, 8), (1, 1)])
def test_has_the_size_of_the_stream(size: tuple[int, int]) -> None:
    last = np.full((*size, 3), 200, np.uint8)
    picture = Slate(last).picture(0.3)
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8


def test_is_dark_and_blurred() -> None:
    rng = np.random.default_rng(1)
    last = rng.integers(0, 256, (360, 640, 3), dtype=np.uint8)
    corner = Slate(last).picture(0.0)[:100, :200].astype(float)
    assert corner.mean() == pytest.approx(0.3 * 127.5, abs=3)
    assert (
        np.abs(np.diff(corner, axis=1)).mean() < 0.05 * np.abs(np.diff(last[:100, :200].astype(float), axis=1)).mean()
    )


def test_moves_and_repeats() -> None:
    slate = Slate(np.zeros((90, 160, 3), np.uint8))
    pictures = [slate.picture(step * 0.2) for step in range(8)]
    assert len({picture.tobytes() for picture in pictures}) > 4
    assert np.array_equal(slate.picture(0.4), slate.picture(2.0))


def test_leaves_the_last_picture_as_it_was() -> None:
    last = np.full((90, 160, 3), 77, np.uint8)
    Slate(last).picture(0.0)
    assert (last == 77).all()
