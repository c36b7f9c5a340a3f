"""The mosaic filter, and the one that does nothing."""

from __future__ import annotations

import numpy as np
import pytest

from streamfx.filters import Block
from streamfx_plugins.passthrough import Passthrough, PassthroughParams
from streamfx_plugins.pixelate import Pixelate, PixelateParams


def pixelate(picture: np.ndarray, **params: object) -> np.ndarray:
    block = Block(video=picture[None], pts=(0.0,))
    return Pixelate().process(block, PixelateParams.model_validate(params)).frames[0]


def test_each_cell_is_its_mean() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    mosaic = pixelate(picture, cell=16)
    for row in range(0, 64, 16):
        for column in range(0, 96, 16):
            cell = mosaic[row : row + 16, column : column + 16]
            assert (cell == cell[0, 0]).all()
            mean = picture[row : row + 16, column : column + 16].mean(axis=(0, 1))
            assert np.abs(cell[0, 0] - mean).max() <= 1


def test_tones() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert set(np.unique(pixelate(picture, cell=2, tones=2))) <= {0, 255}
    assert len(np.unique(pixelate(picture, cell=2, tones=4))) == 4


def test_round_lamps_are_bright_within_and_dark_between() -> None:
    wall = pixelate(np.full((64, 64, 3), 200, np.uint8), cell=16, shape="round")
    assert wall[8, 8].min() > 180
    assert wall[0, 0].max() < 40


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (33, 17), (90, 160)])
@pytest.mark.parametrize("shape", ["square", "round"])
def test_any_size(size: tuple[int, int], shape: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    assert pixelate(picture, cell=256, shape=shape).shape == picture.shape


def test_passthrough_changes_nothing() -> None:
    block = Block(video=np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8), pts=(0.0, 0.1))
    assert Passthrough().process(block, PassthroughParams()) is block
