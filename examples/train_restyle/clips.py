"""Short clips with known motion: one camera moves over a picture, and over what the teacher made of it.

The teacher has seen the whole square at once, so its rendering does not flicker, and moves exactly as the source does:
what a student learns from it is steadier than the teacher ever is frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from teacher import DRAWN, OF_NETWORK

from streamfx.models.tiny.styles import STYLES

Frames = NDArray[np.uint8]
"""``(F, H, W, 3)`` RGB."""
Size = tuple[int, int]
"""Width and height."""

HELD_OUT = 0.1
_SPRITES = 0.4
_NOISY = 0.7
_FAR_SINK = 0.5


@dataclass(frozen=True)
class Clip:
    """``source``: as a camera would give it, with noise. ``clean``, ``target``: what it was made of, and in the style.
    ``style``: number of a named one, or -1; ``vector``: of the picture whose style it is otherwise. ``back``:
    ``(F - 1, 2, 3)``, from places of a frame to those of the one before; ``ground``: ``(F, H, W)``, where
    that is so."""

    source: Frames
    clean: Frames
    target: Frames
    style: int
    vector: NDArray[np.float32]
    back: NDArray[np.float32]
    ground: NDArray[np.bool_]


class Squares:
    """What ``prepare.py`` made. ``held_out``: the squares that are never trained on, or those that are."""

    def __init__(self, data: Path, held_out: bool = False) -> None:
        self.sources = np.load(data / "sources.npy", mmap_mode="r")
        self._named = np.load(data / "named.npy", mmap_mode="r")
        self._drawn = np.load(data / "drawn.npy", mmap_mode="r")
        self._like: Any = np.load(data / "like.npy", mmap_mode="r") if (data / "like.npy").exists() else None
        self._done = int((data / "like.done").read_text()) if self._like is not None else 0
        self._chosen, self.vectors = np.load(data / "chosen.npy"), np.load(data / "vectors.npy")
        border = round(len(self.sources) * (1 - HELD_OUT))
        self.numbers = range(border, len(self.sources)) if held_out else range(border)

    def clip(self, draw: np.random.Generator, frames: int, size: Size, named: float = 0.75) -> Clip:
        """A random one. ``named``: share of clips in a named style."""
        number = int(draw.choice(self.numbers))
        like = self._like is not None and number < self._done and draw.random() > named
        if like:
            k = int(draw.integers(self._chosen.shape[1]))
            style, vector = -1, self.vectors[self._chosen[number, k]]
            pair = self.sources[number], self._like[number, k]
        else:
            style, vector = int(draw.integers(len(STYLES))), np.zeros(self.vectors.shape[1], np.float32)
            pair = self.sources[number], self._in_style(number, style)
        moves = _camera(draw, frames, size, pair[0].shape[0])
        clean, target = (_seen(canvas, moves, size) for canvas in pair)
        back, ground = _back(moves), np.ones((frames, size[1], size[0]), np.bool_)
        if not like and draw.random() < _SPRITES:
            other = int(draw.choice(self.numbers))
            moves = _camera(draw, frames, size, pair[0].shape[0])
            mask = _mask(draw, frames, size)
            over = _seen(self.sources[other], moves, size), _seen(self._in_style(other, style), moves, size)
            clean, target = (_over(below, above, mask) for below, above in zip((clean, target), over, strict=True))
            ground = mask[..., 0] == 0
        source = _degraded(draw, clean) if draw.random() < _NOISY else clean
        return Clip(source, clean, target, style, np.asarray(vector, np.float32), back, ground)

    def _in_style(self, number: int, style: int) -> NDArray[np.uint8]:
        name = STYLES[style].name
        if name in DRAWN:
            return np.asarray(self._drawn[number, DRAWN.index(name)])
        return np.asarray(self._named[number, OF_NETWORK[name]])


def _camera(draw: np.random.Generator, frames: int, size: Size, canvas: int) -> list[NDArray[np.float32]]:
    """A matrix from each frame to the canvas: pan, zoom and turn, sometimes none at all. The first frame, which is the
    sink, may be of long before."""
    # Not much: strokes are to be as long in the picture as the teacher draws them.
    zoom = draw.uniform(0.9, min(1.5, max(1.0, 0.95 * canvas / max(size))))
    speed = draw.choice([0.0, 1.0], p=[0.25, 0.75]) * draw.uniform(0, 6)
    heading, turn, growth = draw.uniform(0, 2 * np.pi), draw.normal(0, 0.004), draw.normal(0, 0.004)
    x, y = (canvas / 2 + draw.uniform(-1, 1) * max(0.0, (canvas - zoom * length) / 2) for length in size)
    flip = -1.0 if draw.random() < 0.5 else 1.0
    matrices = []
    earlier = draw.uniform(0, 25) if draw.random() < _FAR_SINK else 0.0
    for frame in range(frames):
        n = frame if frame else -earlier
        scale, angle = zoom * (1 + growth * n), turn * n if speed else 0.0
        a, b = scale * np.cos(angle), scale * np.sin(angle)
        turned = np.array([[flip * a, -b], [flip * b, a]])
        here = np.array([x + speed * n * np.cos(heading), y + speed * n * np.sin(heading)])
        shift = here - turned @ np.array(size) / 2
        matrices.append(np.column_stack([turned, shift]).astype(np.float32))
    return matrices


def _back(moves: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    whole = [np.vstack([move, (0, 0, 1)]) for move in moves]
    return np.stack([(np.linalg.inv(before) @ here)[:2] for before, here in pairwise(whole)]).astype(np.float32)


def _seen(canvas: NDArray[np.uint8], moves: list[NDArray[np.float32]], size: Size) -> Frames:
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    canvas = np.asarray(canvas)
    scale = float(np.hypot(*moves[0][:, 0]))
    if scale > 1.3:  # enough of a low-pass that shrinking does not alias, which would flicker
        canvas = cv2.GaussianBlur(canvas, (0, 0), 0.4 * scale)
    return np.stack(
        [cv2.warpAffine(canvas, move, size, flags=how, borderMode=cv2.BORDER_REFLECT_101) for move in moves]
    )


def _mask(draw: np.random.Generator, frames: int, size: Size) -> NDArray[np.float32]:
    """An ellipse that moves: ``(F, H, W, 1)``."""
    centre, step = draw.uniform(0.2, 0.8, 2) * size, draw.normal(0, 3, 2)
    axes, angle = draw.uniform(0.12, 0.3, 2) * min(size), draw.uniform(0, 180)
    out = np.zeros((frames, size[1], size[0]), np.float32)
    for n in range(frames):
        at = tuple(int(v) for v in centre + n * step)
        cv2.ellipse(out[n], at, (int(axes[0]), int(axes[1])), angle, 0, 360, 1.0, -1, cv2.LINE_AA)
        out[n] = cv2.GaussianBlur(out[n], (0, 0), 1.0)
    return out[..., None]


def _over(below: Frames, above: Frames, mask: NDArray[np.float32]) -> Frames:
    return np.asarray((below * (1 - mask) + above * mask).round(), np.uint8)


def _degraded(draw: np.random.Generator, clean: Frames) -> Frames:
    """What sensors and codecs do: noise that is new in each frame, gain that wavers, a little blur."""
    frames = clean.astype(np.float32)
    if draw.random() < 0.3:
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), draw.uniform(0.3, 1.0)) for frame in frames])
    frames *= 1 + draw.normal(0, 0.01, size=(len(frames), 1, 1, 1))
    frames += draw.normal(0, draw.uniform(0.5, 7), size=frames.shape)
    return np.asarray(frames.clip(0, 255).round(), np.uint8)
