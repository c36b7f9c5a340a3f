"""Draws what the renderer is trained on: for each character a reference portrait and short clips in known poses.

    python renderer_clips.py FOLDER --first 0 --count 2000

May be broken off and begun again; a file a character. Those from ``HELD_OUT`` on are never trained on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.coefficients import COEFFICIENTS, FPS, MOUTH
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.idle import Idle
from streamfx.models.avatar.visemes import VISEMES, trajectories

SIZE = 256
CLIPS, FRAMES = 2, 3
HELD_OUT = 100_000
"""The first character that is held out."""

AT = {name: n for n, name in enumerate(COEFFICIENTS)}
_EXTREME, _BLINK, _LOOK = 0.3, 0.3, 0.3
"""Shares of clips: in any pose at all, with lids on their way, with a glance."""
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """Of the character ``seed``: ``reference`` ``(S, S, 3)``, ``frames`` ``(CLIPS, FRAMES, S, S, 3) uint8``;
    ``coefficients``: of the frames, ``(CLIPS, FRAMES, 17) float32``; ``posed``: of the reference, which the network is
    not told."""

    seed: int
    reference: NDArray[np.uint8]
    frames: NDArray[np.uint8]
    coefficients: NDArray[np.float32]
    posed: NDArray[np.float32]


def resting(draw: np.random.Generator) -> NDArray[np.float32]:
    """The pose of a reference: at rest, half of them exactly; the others nearly, as portraits are. ``(17,)``."""
    row = np.zeros(len(COEFFICIENTS), np.float32)
    if draw.random() < 0.5:
        return row
    for name in ("yaw", "pitch", "roll", "gaze_x", "gaze_y", "brow_up"):
        row[AT[name]] = np.clip(0.07 * draw.normal(), -0.16, 0.16)
    row[AT["smile"]] = draw.uniform(-0.1, 0.35)
    row[AT["breath"]] = draw.uniform(-1, 1)
    return row


def _speech(draw: np.random.Generator) -> NDArray[np.float32]:
    """Mouths of sounds by chance, ``(N, 7)``."""
    at, segments = 0.0, []
    while at < _SECONDS:
        length = float(draw.uniform(0.05, 0.24))
        segments.append((at, at + length, VISEMES[int(draw.integers(len(VISEMES)))]))
        at += length
    return trajectories(segments, at)


def clip(draw: np.random.Generator) -> NDArray[np.float32]:
    """Poses of a clip, one frame or a few apart: ``(FRAMES, 17)``."""
    rows = np.zeros((FRAMES, len(COEFFICIENTS)), np.float32)
    apart = int(draw.integers(1, 4))
    if draw.random() < _EXTREME:
        ends = draw.uniform(-1, 1, (2, len(COEFFICIENTS)))
        ends[:, : len(MOUTH)] = np.abs(ends[:, : len(MOUTH)]) * (draw.random((2, len(MOUTH))) < 0.4)
        for name in ("yaw", "pitch", "roll"):
            ends[:, AT[name]] *= 0.75
        ends[1] = ends[0] + 0.25 * apart * (ends[1] - ends[0])
        rows[:] = np.linspace(ends[0], ends[1], FRAMES)
    else:
        mouths = _speech(draw)
        idle, motion = Idle(int(draw.integers(2**31))), float(draw.uniform(0.7, 2.0))
        start, begin = int(draw.integers(4, len(mouths) - FRAMES * apart)), float(draw.uniform(0, 60))
        for n in range(start + (FRAMES - 1) * apart + 1):
            face = idle.pose(begin + n / FPS, float(draw.uniform(0.2, 1)), True, motion)
            at, left = divmod(n - start, apart)
            if at >= 0 and not left:
                rows[at] = np.concatenate([mouths[n], face])
        rows[:, AT["smile"]] += draw.uniform(-0.3, 0.6) * (draw.random() < 0.4)
    if draw.random() < _BLINK:
        lids = draw.uniform(0, 1) + np.arange(FRAMES) * draw.uniform(-0.5, 0.5) * apart / 2
        sides = ("blink_left", "blink_right") if draw.random() < 0.85 else ("blink_left",)
        for name in sides:
            rows[:, AT[name]] = np.clip(lids, 0, 1)
    if draw.random() < _LOOK:
        rows[:, AT["gaze_x"]], rows[:, AT["gaze_y"]] = draw.uniform(-0.7, 0.7), draw.uniform(-0.5, 0.5)
    rows[:, : len(MOUTH)] = np.clip(rows[:, : len(MOUTH)], 0, 1)
    return np.clip(rows, -1, 1)


def drawn(seed: int) -> Drawn:
    """What belongs to a character."""
    draw = np.random.default_rng([1, seed])
    painter = Painter(Character.of(seed), SIZE)
    posed = resting(draw)
    rows = np.stack([clip(draw) for _ in range(CLIPS)])
    frames = np.stack([[painter.draw(row) for row in some] for some in rows])
    return Drawn(seed, painter.draw(posed), frames, rows, posed)


def read(file: Path) -> Drawn:
    with np.load(file) as held:
        return Drawn(int(file.stem), held["reference"], held["frames"], held["coefficients"], held["posed"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws what the renderer is trained on.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(given.first, given.first + given.count):
        file = given.folder / f"{seed:07}.npz"
        if file.exists():
            continue
        made = drawn(seed)
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            np.savez(
                out, reference=made.reference, frames=made.frames, coefficients=made.coefficients, posed=made.posed
            )
        part.rename(file)


if __name__ == "__main__":
    main()
