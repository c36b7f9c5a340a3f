"""The avatar drawn by the diffusion renderer that comes with the package."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from streamfx.core.errors import UsageError
from streamfx.filters import Block, Context
from streamfx.models.avatar.character import Character
from streamfx.models.avatar.coefficients import COEFFICIENTS
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.portrait import SIDE, PortraitPainter
from streamfx.models.avatar.renderer_load import renderer
from streamfx_plugins.avatar import Avatar, AvatarParams

pytest.importorskip("silero_vad")

HELD_OUT = 100_300
MOUTH = slice(144, 194), slice(98, 158)
EYES = slice(96, 138), slice(80, 176)

Pixels = NDArray[np.uint8]


def row(**named: float) -> NDArray[np.float32]:
    values = np.zeros(len(COEFFICIENTS), np.float32)
    for name, value in named.items():
        values[COEFFICIENTS.index(name)] = value
    return values


def apart(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize(
    ("pose", "where"),
    [
        ({"jaw_open": 0.9}, MOUTH),
        ({"jaw_open": 0.5, "lips_wide": 0.6}, MOUTH),
        ({"lips_round": 1.0, "jaw_open": 0.3}, MOUTH),
        ({"blink_left": 1.0, "blink_right": 1.0}, EYES),
        ({"gaze_x": 0.7}, EYES),
        ({"yaw": -0.5}, (slice(None), slice(None))),
    ],
)
def test_it_does_what_the_drawing_does(pose: dict[str, float], where: tuple[slice, slice]) -> None:
    """For a character it was never shown, the picture is far nearer to the drawn pose than the portrait is."""
    painter = Painter(Character.of(HELD_OUT), SIDE)
    still, wanted = painter.draw(row()), painter.draw(row(**pose))
    found = PortraitPainter(renderer(), still).draw(row(**pose))
    assert apart(found[where], wanted[where]) < 0.5 * apart(still[where], wanted[where])


def shown(params: AvatarParams, count: int = 3, quality: int = 0) -> Pixels:
    subject = Avatar()
    subject.setup(Context((192, 192), 25, live=True), params)
    found: list[Pixels] = []
    for n in range(count + 10):
        sound = np.zeros((2, 1920), np.float32)
        block = Block(np.zeros((1, 192, 192, 3), np.uint8), sound, (n / 25,), quality, n / 25)
        answer = subject.process(block, params)
        if answer.video is not None:
            found += list(answer.video)
    subject.close()
    return np.stack(found[:count])


def test_a_portrait_from_a_file_is_the_character_itself(tmp_path: Path) -> None:
    drawn = Painter(Character.of(12), SIDE).draw(row())
    file = tmp_path / "who.png"
    cv2.imwrite(str(file), drawn[..., ::-1])
    by_seed = shown(AvatarParams(character=12, network=True))
    by_file = shown(AvatarParams(character=12, portrait=str(file)))
    assert by_seed.shape == (3, 192, 192, 3)
    assert np.array_equal(by_seed, by_file)
    assert apart(by_seed[0], shown(AvatarParams(character=13, network=True), 1)[0]) > 10
    assert apart(by_seed[0], shown(AvatarParams(character=12, network=True), 1, quality=2)[0]) < 10


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="set one of them, not both"):
        shown(AvatarParams(photo="me.jpg", network=True))
    with pytest.raises(UsageError, match=r"portrait .*nobody.png cannot be read"):
        shown(AvatarParams(portrait=str(tmp_path / "nobody.png")))
