"""Contact sheets of the drawn characters for the documentation: who there is, and how they move.

    python characters.py docs/images

- ``avatar-characters.png``: a character a seed, as they look at rest.
- ``avatar-poses.png``: eight of them in six poses.
- ``avatar-visemes.png``: the mouth's fifteen shapes.
- ``avatar-turns.png``: one head, turned and nodding.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.coefficients import COEFFICIENTS, MOUTH
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.visemes import TARGETS, VISEMES

Picture = NDArray[np.uint8]

SEEDS = range(24)
POSED = (22, 54, 28, 13, 38, 15, 48, 24)
SPEAKER, TURNED = 22, 48
POSES: tuple[dict[str, float], ...] = (
    {},
    {"smile": 1.0, "jaw_open": 0.35, "lips_wide": 0.3},
    {"jaw_open": 0.8, "brow_up": 0.8, "yaw": 0.5},
    {"lips_round": 0.9, "jaw_open": 0.3, "yaw": -0.6, "pitch": 0.2, "gaze_x": -0.5},
    {"blink_left": 1.0, "smile": 0.9, "roll": 0.5},
    {"smile": -0.6, "brow_up": -0.7, "pitch": 0.5, "gaze_y": -0.4, "yaw": 0.3},
)


def row(**values: float) -> NDArray[np.float32]:
    """Coefficients ``(17,)``, 0 but for those that are named."""
    coefficients = np.zeros(len(COEFFICIENTS), np.float32)
    for name, value in values.items():
        coefficients[COEFFICIENTS.index(name)] = value
    return coefficients


def labelled(picture: Picture, text: str) -> Picture:
    out = picture.copy()
    for colour, width in (((250, 248, 245), 4), ((40, 40, 48), 1)):
        cv2.putText(out, text, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, width, cv2.LINE_AA)
    return out


def sheet(pictures: Sequence[Picture], columns: int) -> Picture:
    """Pictures of one size, row by row."""
    rows = [np.hstack(pictures[n : n + columns]) for n in range(0, len(pictures), columns)]
    return np.vstack(rows)


def save(folder: Path, name: str, picture: Picture) -> None:
    path = folder / f"avatar-{name}.png"
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    print(path)


def visemes(painter: Painter) -> list[Picture]:
    """The lower face, a picture a viseme."""
    size = painter.size
    pictures = []
    for name, target in zip(VISEMES, TARGETS, strict=True):
        picture = painter.draw(row(**dict(zip(MOUTH, target.tolist(), strict=True))))
        pictures.append(labelled(picture[size // 4 : size * 7 // 8, size // 6 : size * 5 // 6], name))
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the sheets go")
    parser.add_argument("--size", type=int, default=256, help="pixels a picture")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)

    def painter(seed: int) -> Painter:
        return Painter(Character.of(seed), given.size)

    save(given.folder, "characters", sheet([painter(seed).draw(row()) for seed in SEEDS], 6))
    posed = [one.draw(row(**pose)) for one in map(painter, POSED) for pose in POSES]
    save(given.folder, "poses", sheet(posed, len(POSES)))
    save(given.folder, "visemes", sheet(visemes(painter(SPEAKER)), 5))
    steps = (-1.0, -0.5, 0.0, 0.5, 1.0)
    turned = painter(TURNED)
    save(given.folder, "turns", sheet([turned.draw(row(yaw=x, pitch=y)) for y in (-1.0, 0.0, 1.0) for x in steps], 5))


if __name__ == "__main__":
    main()
