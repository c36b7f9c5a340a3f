"""A photograph that talks: its pixels are moved, and only what the mouth hides is painted. A warp, not a model: it has
no other side of the head to show, and teeth of its own only where the photograph has them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamfx.models.avatar.drawing_pose import Pose
from streamfx.models.avatar.photo_eyes import Eye
from streamfx.models.avatar.photo_frame import OVAL, Floats, Frame, Lips, sampled
from streamfx.models.avatar.photo_landmarks import checked, landmarks
from streamfx.models.avatar.photo_mouth import Inside
from streamfx.models.avatar.photo_warp import Warp

_MARGIN = 3.0
"""The bust's side, in widths of the face."""
_LARGEST = 1024
"""Pixels: the side that a bust is kept at."""


@dataclass(frozen=True)
class Photo:
    """One person's head and shoulders."""

    picture: npt.NDArray[np.uint8]
    """(S, S, 3) RGB."""
    points: Floats
    """MediaPipe's mesh, (468, 3), in its pixels; z in their measure, away from the watcher."""
    irises: Floats
    """(2, 3): middle and radius of each, in its pixels, left to right."""

    @classmethod
    def of(cls, picture: npt.NDArray[np.uint8]) -> Photo:
        """The face in (H, W, 3) RGB.

        Raises ``UsageError``, of one sentence, if there is none, if there are several of one size, if it is too small
        or turned too far, and if what finds faces is not installed.
        """
        return cls.at(picture, *landmarks(picture))

    @classmethod
    def at(cls, picture: npt.NDArray[np.uint8], points: Floats, irises: Floats) -> Photo:
        """The face whose points are known, in pixels of (H, W, 3) RGB. Raises ``UsageError`` as ``of`` does."""
        checked(points)
        height, width = picture.shape[:2]
        oval = points[OVAL, :2]
        middle, wide = oval.mean(axis=0), float(np.ptp(oval, axis=0).max()) / 1.25
        side = min(int(_MARGIN * wide), height, width)
        left, top = (
            int(np.clip(at - share * side, 0, most - side))
            for at, share, most in zip(middle, (0.5, 0.46), (width, height), strict=True)
        )
        bust = np.ascontiguousarray(picture[top : top + side, left : left + side])
        scale = min(1.0, _LARGEST / side)
        if scale < 1:
            bust = np.asarray(cv2.resize(bust, (_LARGEST, _LARGEST), interpolation=cv2.INTER_AREA), np.uint8)
        moved = (points - np.array([left, top, 0], np.float32)) * np.float32(scale)
        placed = (irises - np.array([left, top, 0], np.float32)) * np.float32(scale)
        return cls(bust, np.asarray(moved, np.float32), np.asarray(placed, np.float32))


class PhotoPainter:
    """Draws one photograph at one size."""

    def __init__(self, photo: Photo, size: int):
        """``size``: pixels of the square drawings' side."""
        side = photo.picture.shape[0]
        scale = np.float32(size / side)
        how = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
        self._picture = np.asarray(cv2.resize(photo.picture, (size, size), interpolation=how), np.uint8)
        points = photo.points * scale
        frame = Frame.of(points)
        lips = Lips.of(frame, points, self._picture)
        self._warp = Warp(frame, lips, points, size)
        self._inside = Inside(frame, lips, points, self._picture)
        self._eyes = [Eye(frame, points, photo.irises[side] * scale, side, self._picture) for side in (0, 1)]

    def draw(self, coefficients: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """The photograph in a pose: ``coefficients`` (17,), clipped to their ranges; (size, size, 3) RGB.

        Raises ``ValueError`` for another shape and for what is no finite number.
        """
        pose = Pose.of(coefficients)
        picture = self._picture.copy()
        gaze = np.array([pose.gaze_x, pose.gaze_y], np.float32)
        for eye, blink in zip(self._eyes, (pose.blink_left, pose.blink_right), strict=True):
            eye.draw(picture, blink, gaze)
        maps, share, lines = self._warp(pose)
        drawn = self._moved(picture, np.where(share[..., None] > 0.5, maps[1], maps[0]))
        # Along the lips pixels are of both sides: of their colours, since what is between their places may be teeth.
        low, high = (
            np.clip(edge, 0, len(share)).astype(int) for edge in (lines.min((0, 1)) - 2, lines.max((0, 1)) + 3)
        )
        lips = slice(low[1], high[1]), slice(low[0], high[0])
        if drawn[lips].size:
            above, below = (self._moved(picture, np.ascontiguousarray(side[lips])) for side in maps)
            drawn[lips] = np.round(above + (below.astype(np.float32) - above) * share[lips][..., None])
        self._inside.paint(drawn, lines, pose)
        return drawn

    @staticmethod
    def _moved(picture: npt.NDArray[np.uint8], where: Floats) -> npt.NDArray[np.uint8]:
        return sampled(picture, where, cv2.INTER_CUBIC)
