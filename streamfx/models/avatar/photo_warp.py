"""Where each pixel of a moved photograph comes from.

The moves are smooth fields over the picture, each taken by an amount. There are two of every field, since a mouth tears
the picture: one for what is above the line where the lips meet and one for what is below; beside the mouth both are
the same.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streamfx.models.avatar.drawing_pose import Pose
from streamfx.models.avatar.photo_frame import BROWS, LIP_SAMPLES, OVAL, Floats, Frame, Lips, bell, ramp, sampled
from streamfx.models.avatar.photo_motion import PITCH, ROLL, YAW, Motion

_CELLS = 128
_ROUNDS = 6
"""How often a guess of where a pixel comes from is bettered."""
_BESIDE = 40
"""Points of the cut to either side of the mouth."""
_NECK = 45.0
"""Millimetres below the chin: where the head rolls about."""
_AXIS = 45.0
"""Millimetres behind the face's edge: where it turns about."""


class Warp:
    """The fields of one photograph."""

    def __init__(self, frame: Frame, lips: Lips, points: Floats, size: int):
        """``points``: (468, 3), in pixels of a square picture of ``size``."""
        self.frame, self.lips, self.size = frame, lips, size
        self._step = (size - 1) / _CELLS
        across = np.arange(_CELLS + 1, dtype=np.float32) * self._step
        nodes = np.stack(np.meshgrid(across, across), axis=-1)
        self._nodes = nodes / self._step
        every = np.arange(size, dtype=np.float32)
        self._pixels = np.stack(np.meshgrid(every, every), axis=-1)
        flat = np.concatenate([frame.face(nodes.reshape(-1, 2)), self._cut(), self._rim()])
        self._flat = flat
        self._fields(flat)
        self._brows(flat, frame.face(points[:, :2]))
        self._head(flat, points)

    def _cut(self) -> Floats:
        """The line along which the picture is cut in two, far to both sides of the mouth, (N, 2)."""
        seam = self.lips.seam
        steps = np.linspace(250, 0, _BESIDE, endpoint=False, dtype=np.float32)[:, None] * np.array([1, 0], np.float32)
        return np.concatenate([seam[0] - steps, seam, seam[-1] + steps[::-1]])

    def _rim(self) -> Floats:
        """Where the upper lip ends, (LIP_SAMPLES, 2)."""
        return self.lips.seam - self.lips.ajar[:, None] * np.array([0, 1], np.float32)

    def _fields(self, flat: Floats) -> None:
        lips, half = self.lips, self.lips.half
        centre = float(lips.seam[[0, -1], 0].mean())
        x = (flat[:, 0] - centre) / half
        y = flat[:, 1] - np.interp(flat[:, 0], lips.seam[:, 0], lips.seam[:, 1])
        beside = np.maximum(np.abs(x) - 1, 0) * half
        above, below = np.minimum(y, 0), np.maximum(y, 0)
        # Drawn into a smile, lips part in the middle first.
        parted = (1 - np.minimum(np.abs(x), 1) ** 2.2) ** (1.2 if lips.teeth else 0.75)
        ajar = np.interp(flat[:, 0], lips.seam[:, 0], lips.ajar)
        # The lips' own moves end towards the nose and the chin.
        low = ramp(below, lips.lower, 0.9 * lips.chin)
        near_upper, near_lower = bell(above, 17), 1 - low
        self._gap_upper, self._gap_lower = -0.16 * parted * near_upper, 0.84 * parted * near_lower
        self._shut_upper, self._shut_lower = 0.22 * ajar * near_upper, -0.9 * ajar * near_lower
        corner = bell(x, 1.7) * bell(beside, 24)
        self._chin_upper = 0.3 * corner * np.minimum(np.abs(x), 1) ** 2 * bell(above, 20)
        jaw = bell(np.maximum(np.abs(flat[:, 0] - centre) - 18, 0), 48) * (1 - ramp(y, lips.chin, lips.chin + 60))
        drop = 0.3 * corner * np.minimum(np.abs(x), 1) ** 2
        self._chin_lower = drop + (jaw - drop) * low
        # A jaw that falls is drawn in, or its sides would bulge.
        self._narrow = -0.004 * (flat[:, 0] - centre) * jaw * low
        self._spread = (flat[:, 0] - centre) * bell(beside, 22) * bell(y, 26)
        self._corner = -(np.minimum(np.abs(x), 1) ** 2) * bell(beside, 17) * bell(y, 20)
        self._upper = -lips.upper * self._ridge(-(above + np.where(above < 0, ajar, 0)) / lips.upper)
        self._lower = lips.lower * self._ridge(below / lips.lower)
        middle = bell(beside, 5) * (1 - 0.5 * np.minimum(np.abs(x), 1) ** 4)
        self._upper, self._lower = self._upper * middle, self._lower * middle
        cheeks = [bell(np.hypot(flat[:, 0] - side * 40, flat[:, 1] + 24), 17) for side in (-1, 1)]
        self._cheek = -(cheeks[0] + cheeks[1])

    @staticmethod
    def _ridge(t: npt.NDArray[Any]) -> Floats:
        """0 at 0, 1 at 1 and falling from there."""
        t = np.maximum(t, 0)
        return np.asarray(t * np.exp(0.5 * (1 - t * t)), np.float32)

    def _brows(self, flat: Floats, points: Floats) -> None:
        self._brow = np.zeros(len(flat), np.float32)
        for brow in BROWS:
            middle = points[brow].mean(axis=0)
            off = flat - middle
            high = np.where(off[:, 1] < 0, bell(off[:, 1], 20), bell(off[:, 1], 8))
            self._brow -= high * bell(np.maximum(np.abs(off[:, 0]) - 10, 0), 14)

    def _head(self, flat: Floats, points: Floats) -> None:
        """Depth, and how much of the head's move each point takes part in."""
        seen = self.frame.face(points[:, :2])
        depth = -points[:, 2] / self.frame.mm
        edge = float(depth[OVAL].mean())
        middle = seen[OVAL].mean(axis=0)
        around = middle + (seen[OVAL] - middle) * 1.45
        known = np.concatenate([seen, around])
        depths = np.concatenate([depth - edge, np.full(len(OVAL), -14)]).astype(np.float32)
        # On every fourth node, which is finer than the mesh is.
        coarse = np.arange(0, _CELLS + 1, 4) * self._step
        where = self.frame.face(np.stack(np.meshgrid(coarse, coarse), axis=-1).reshape(-1, 2))
        apart = ((where[:, None] - known) ** 2).sum(axis=-1)
        weight = np.exp(-apart / 90) + 0.01 * np.exp(-apart / 900) + 1e-5 / (1 + apart / 900)
        found = ((weight @ depths) / weight.sum(axis=1)).reshape(len(coarse), -1).astype(np.float32)
        at = (self.frame.picture(flat) / (4 * self._step))[None]
        found = sampled(found, at)[0]
        self._depth = found + _AXIS
        half = np.ptp(seen[OVAL], axis=0) / 2
        off = (flat - (middle - [0, 0.12 * half[1]])) / (half * [1.2, 1.28])
        chin = self.lips.chin
        self._held = ramp(-np.hypot(*off.T), -1.75, -1.0) * (1 - 0.75 * ramp(flat[:, 1], chin, chin + 75))
        self._middle = middle
        self._chest = ramp(flat[:, 1], chin + 10, chin + 80)

    def __call__(self, pose: Pose) -> tuple[Floats, Floats, Floats]:
        """Two maps, (2, size, size, 2), of pixels to where they come from, above the cut and below it; how much of the
        second each pixel has, (size, size); and three lines between the lips, (3, LIP_SAMPLES, 2) in pixels: the upper
        lip's edge, what the photograph shows below it, and the lower lip's edge."""
        moves = np.stack([self._with_head(move, pose) for move in self._moves(Motion.of(pose))])
        nodes = self._nodes.shape[0] * self._nodes.shape[1]
        fields = (self.frame.along(moves[:, :nodes]) / self._step).reshape(2, *self._nodes.shape)
        lines = [self.frame.picture(self._flat[nodes:] + move[nodes:]) for move in moves]
        scale = np.array([[1 / self._step, 0, 0], [0, 1 / self._step, 0]], np.float32)
        size = (self.size, self.size)
        large = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        maps = np.empty((2, *size, 2), np.float32)
        for side, field in enumerate(fields):
            moved = cv2.warpAffine(self._inverse(field), scale, size, flags=large, borderMode=cv2.BORDER_REPLICATE)
            maps[side] = self._pixels + moved * np.float32(self._step)
        below = np.zeros(size, np.uint8)
        cut, lip = lines[1][:-LIP_SAMPLES], slice(_BESIDE, _BESIDE + LIP_SAMPLES)
        under = [[float(cut[end, 0]), 3.0 * self.size] for end in (-1, 0)]
        outline = np.concatenate([cut, np.array(under, np.float32)])
        cv2.fillPoly(below, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        share = below * np.float32(1 / 255)
        return maps, share, np.stack([lines[0][-LIP_SAMPLES:], lines[0][lip], lines[1][lip]])

    def _moves(self, motion: Motion) -> tuple[Floats, Floats]:
        """What the face's parts do, for both sides of the cut, (N, 2) each, in millimetres."""
        middle = float(self.lips.ajar.max())
        # A mouth that is open already opens by the rest.
        gap = float(np.hypot(middle, motion.gap)) - middle
        x = motion.spread * self._spread
        both = motion.corner * self._corner + motion.cheek * self._cheek + motion.brow * self._brow
        upper = (
            both
            + gap * self._gap_upper
            + motion.shut * self._shut_upper
            + motion.chin * self._chin_upper
            + motion.upper * self._upper
        )
        lower = (
            both
            + gap * self._gap_lower
            + motion.shut * self._shut_lower
            + motion.chin * self._chin_lower
            + motion.lower * self._lower
        )
        return np.stack([x, upper], axis=1), np.stack([x + motion.chin * self._narrow, lower], axis=1)

    def _with_head(self, moves: Floats, pose: Pose) -> Floats:
        """Those moves with the head's own and with breathing."""
        yaw, pitch, roll = YAW * pose.yaw, PITCH * pose.pitch, ROLL * pose.roll
        placed = self._flat + moves
        x, y = (placed - self._middle).T
        depth, held = self._depth, self._held
        across = x + held * (depth * np.sin(yaw) - x * (1 - np.cos(yaw)))
        down = y + held * (depth * np.sin(pitch) - y * (1 - np.cos(pitch)))
        neck = self.lips.chin + _NECK - self._middle[1]
        turned = held * roll
        cos, sin = np.cos(turned), np.sin(turned)
        rolled = np.stack([across * cos - (down - neck) * sin, across * sin + (down - neck) * cos + neck], axis=1)
        rolled[:, 1] -= pose.breath * (0.4 * held + 1.6 * self._chest)
        rolled[:, 0] *= 1 + 0.006 * pose.breath * self._chest
        return np.asarray(rolled + self._middle - self._flat, np.float32)

    def _inverse(self, field: Floats) -> Floats:
        """Of moves at where things were, (n, n, 2) in cells, those at where they are, back to where they were."""
        back = -field
        for _ in range(_ROUNDS):
            back = -sampled(field, np.asarray(self._nodes + back, np.float32))
        return np.asarray(back, np.float32)
