"""Makes the pictures of the embedded restyler for the documentation and the page, from the bundled clip.

    python pictures.py

- ``docs/images/restyle.jpg``: the source and three styles.
- ``docs/images/restyle-styles.jpg``: a frame in all styles.
- ``docs/images/restyle-time.jpg``: source, teacher, and the restyler, over time.
- ``streamfx/server/static/img/styles``: what the page shows beside the names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from teacher import OF_NETWORK, Teacher

from streamfx.filters.base import Block
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.filters.registry import target_of
from streamfx.models.tiny.styles import BY_NAME

Picture = NDArray[np.uint8]

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
THUMBNAILS = ROOT / "streamfx" / "server" / "static" / "img" / "styles"
CLIP = ROOT / "examples" / "media" / "big-buck-bunny.mp4"

HERO = ("ukiyo-e", "starry-night", "expressionist")
MOMENTS = (45, 65, 85, 105)
AT = 100
"""Frame of the clip, which fades in."""


def frames(size: tuple[int, int]) -> list[Picture]:
    with av.open(str(CLIP)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8) for frame in found]


def restyled(given: Sequence[Picture], style: str) -> list[Picture]:
    """As a stream gives them."""
    size = given[0].shape[1], given[0].shape[0]
    host = FilterHost(FilterSpec(target_of("restyle"), size, 25.0, 2, {"style": style}))
    return [host.run(Block(video=frame[None], pts=(n / 25,)), 1.0).frames[0] for n, frame in enumerate(given)]


def labelled(picture: Picture, text: str) -> Picture:
    out = picture.copy()
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    out[-22:, : width + 14] //= 4
    cv2.putText(out, text, (7, out.shape[0] - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def write(path: Path, picture: Picture, quality: int = 86) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def grid(cells: Sequence[Picture], columns: int) -> Picture:
    filled = [*cells, *[np.full_like(cells[0], 255)] * (-len(cells) % columns)]
    return np.vstack([np.hstack(filled[n : n + columns]) for n in range(0, len(filled), columns)])


def main() -> None:
    large = frames((640, 360))[AT - 8 : AT + 1]
    cells = [labelled(large[-1], "source"), *(labelled(restyled(large, style)[-1], style) for style in HERO)]
    write(IMAGES / "restyle.jpg", grid(cells, 2))

    small = frames((320, 180))[AT - 4 : AT + 1]
    cells = [labelled(small[-1], "source")]
    for style in BY_NAME:
        picture = restyled(small, style)[-1]
        cells.append(labelled(picture, style))
        middle = picture[10:170, 100:313]
        write(THUMBNAILS / f"{style}.jpg", cv2.resize(middle, (128, 96), interpolation=cv2.INTER_AREA), 80)
    write(IMAGES / "restyle-styles.jpg", grid(cells, 5))

    teacher, shown = Teacher(), frames((320, 180))[MOMENTS[0] - 10 : MOMENTS[-1] + 1]
    places = [moment - MOMENTS[0] + 10 for moment in MOMENTS]
    rows = [labelled(shown[n], "source") for n in places]
    for style in HERO:
        rows += [labelled(teacher.named(shown[n], OF_NETWORK[style]), f"{style}: teacher") for n in places]
        ours = restyled(shown, style)
        rows += [labelled(ours[n], f"{style}: restyle") for n in places]
    write(IMAGES / "restyle-time.jpg", grid(rows, len(MOMENTS)))


if __name__ == "__main__":
    main()
