"""What a photograph's mouth shows when it opens: painted, in the photograph's own light."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from streamfx.models.avatar.drawing_pose import Pose
from streamfx.models.avatar.photo_frame import Floats, Frame, Lips, bell, ramp, softness

_TOOTH = np.array([0.86, 0.82, 0.75], np.float32)
_TONGUE = np.array([0.62, 0.32, 0.31], np.float32)
_CAVITY = np.array([0.26, 0.09, 0.09], np.float32)
_DEEP = np.array([0.07, 0.025, 0.03], np.float32)
_TEETH = np.array([0, 4.3, 8.2, 11.4, 14.6, 17.8, 21.0], np.float32)
"""Where teeth meet, in millimetres from the middle."""
_CHEEKS = (205, 425)
_EYES = ((33, 133, 159, 145), (362, 263, 386, 374))
_FACE = (10, 151, 9, 4, 5, 50, 280, 101, 330, 205, 425, 199)


class Inside:
    """The space between one photograph's lips."""

    def __init__(self, frame: Frame, lips: Lips, points: Floats, picture: npt.NDArray[np.uint8]):
        """``points``: (468, 3), in pixels of ``picture`` (S, S, 3)."""
        self._mm, self._lips = frame.mm, lips
        self._soft = softness(picture, points) / frame.mm
        blurred = cv2.GaussianBlur(picture, (0, 0), max(1.0, 2.5 * frame.mm)).astype(np.float32) / 255
        seen = np.clip(np.round(points[:, :2]), 0, picture.shape[0] - 1).astype(np.int64)
        colours = blurred[seen[:, 1], seen[:, 0]]
        lit = colours.mean(axis=1)
        # The brightest skin tells how much light there is, and a part of its tint is the light's.
        # Dark skin in good light is told from fair skin in the dark by the eyes' whites.
        whites = [points[list(eye), :2].astype(np.int64) for eye in _EYES]
        white = [
            np.percentile(
                picture[eye[:, 1].min() : eye[:, 1].max() + 1, eye[:, 0].min() : eye[:, 0].max() + 1].mean(axis=2), 92
            )
            for eye in whites
        ]
        light = float(np.clip(max(np.sort(lit[list(_FACE)])[-3] / 0.74, max(white) / 255), 0.4, 1.0))
        skin = colours[list(_FACE)].mean(axis=0)
        tint = skin / skin.mean()
        self._light = np.asarray(light * tint**0.25, np.float32)
        left, right = (float(lit[cheek]) for cheek in _CHEEKS)
        self._side = float(np.clip((right - left) / (right + left + 1e-3), -0.3, 0.3))
        fine = picture.mean(axis=2) - cv2.GaussianBlur(picture, (0, 0), 1.0).mean(axis=2)
        around = seen[[205, 425, 50, 280, 199]]
        rough = [np.abs(fine[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]).mean() for x, y in around]
        grain = np.random.default_rng(1).normal(0, 1, (64, 64)).astype(np.float32)
        self._grain = grain * float(min(np.median(rough), 4.0)) / 255

    def paint(self, picture: npt.NDArray[np.uint8], lines: Floats, pose: Pose) -> None:
        """``lines``: (3, LIP_SAMPLES, 2), as ``Warp`` gives them, in pixels of ``picture``, into which it paints."""
        size = picture.shape[0]
        both = lines.reshape(-1, 2)
        lower = lines[2]
        x0, y0 = np.clip(np.floor(both.min(axis=0)).astype(int) - 2, 0, size)
        x1, y1 = np.clip(np.ceil(both.max(axis=0)).astype(int) + 3, 0, size)
        across = lower[-1] - lower[0]
        length = float(np.hypot(*across))
        if x1 <= x0 or y1 <= y0 or length < 1:
            return
        along = across / length
        down = np.array([-along[1], along[0]], np.float32)
        middle = (lower[0] + lower[-1]) / 2
        rim, torn, floor = (lines - middle) @ np.stack([along, down], axis=1) / self._mm
        grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1).astype(np.float32) - middle
        x, y = grid @ along / self._mm, grid @ down / self._mm
        tear, bottom = np.interp(x, *torn.T), np.interp(x, *floor.T)
        # Teeth that the photograph has are kept; a dark opening that it has is painted over.
        edge = torn if self._lips.teeth else rim
        top = np.interp(x, *edge.T)
        soft = self._soft
        share = ramp(y - top, -soft, soft) * ramp(bottom - y, -soft, soft)
        # Lips that touch show nothing between them, whatever their edges' softness.
        share *= ramp(bottom - tear, 0.2, 1.2)
        share[np.abs(x) > length / 2 / self._mm] = 0
        if not share.any():
            return
        widest = float(np.maximum(floor[:, 1] - np.interp(floor[:, 0], *edge.T), 0).max())
        colour = self._colours(x, y - top, bottom - y, pose, length / 2 / self._mm, widest)
        colour += self._grain[np.ix_(np.arange(y0, y1) % 64, np.arange(x0, x1) % 64)][..., None]
        part = picture[y0:y1, x0:x1]
        mixed = part + (np.clip(colour, 0, 1) * 255 - part) * share[..., None]
        part[:] = np.round(mixed).astype(np.uint8)

    def _colours(self, x: Floats, below: Floats, above: Floats, pose: Pose, half: float, widest: float) -> Floats:
        """RGB of points ``x`` from the middle, ``below`` the upper lip and ``above`` the lower one, in millimetres, as
        are ``half`` the mouth's width and how far it is open where it is so ``widest``."""
        depth = bell(x / half, 0.8) * ramp(np.minimum(below, above), 0, 5)
        colour = _CAVITY + (_DEEP - _CAVITY) * depth[..., None]
        # The tongue lies on the floor, shaded towards the throat, and rises at its tip.
        lift = max(0.62 * widest - 1.2, 0.0) * (1 - 0.3 * pose.lips_round) + 0.4 * widest * pose.tongue_up
        rim = lift * np.sqrt(np.clip(1 - (x / (0.78 * half)) ** 2, 0, 1))
        lit = 0.4 + 0.6 * ramp(rim - above, 0, 0.6 * lift + 0.5) * (1 - 0.2 * bell(x, 1.4))
        lit += (1 - lit) * 0.6 * pose.tongue_up
        self._over(
            colour, np.asarray(_TONGUE * lit[..., None], np.float32), ramp(rim - above, -0.8, 0.8) * ramp(rim, 0, 1)
        )
        height = 0.3 * widest * pose.teeth + 1.6 * (1 - pose.teeth) * float(ramp(widest, 5, 12))
        self._teeth(colour, x, above, height, half, 0.62)
        if not self._lips.teeth:
            height = min(5.6 * (1 - 0.35 * pose.lips_round), 0.5 * widest)
            height += (0.58 * widest - height) * pose.teeth
            height += (1.02 * widest - height) * pose.lip_tuck
            self._teeth(colour, x, below, height, half, 1.0)
        # Lips shade what is behind them, and the corners are dark.
        shade = (
            (0.62 + 0.38 * ramp(below, 0, 3))
            * (0.75 + 0.25 * ramp(above, 0, 2))
            * (1 - 0.55 * ramp(np.abs(x) / half, 0.55, 1))
        )
        shade = shade * (1 + self._side * x / half)
        return np.asarray(colour * shade[..., None] * self._light, np.float32)

    @staticmethod
    def _over(colour: Floats, new: Floats, share: Floats) -> None:
        colour += (new - colour) * share[..., None]

    def _teeth(self, colour: Floats, x: Floats, away: Floats, height: float, half: float, bright: float) -> None:
        """A row of teeth that reaches ``height`` from the lip that points are ``away`` from."""
        if height <= 0.3:
            return
        nearest = np.abs(np.abs(x)[..., None] - _TEETH).min(axis=-1)
        edge = height * (1 - 0.3 * np.minimum(np.abs(x) / half, 1) ** 2) - 0.35 * bell(nearest, 0.5)
        soft = max(0.35, 0.8 * self._soft)
        share = ramp(edge - away, -soft, soft) * min(1.0, height - 0.3) * (1 - ramp(np.abs(x), 0.86 * half, half))
        width = max(0.28, 0.5 * self._soft)
        tooth = 1 - 0.2 * min(1.0, 0.3 / width) * bell(nearest, width)
        tooth *= 1 - 0.4 * ramp(np.abs(x) / half, 0.2, 1)
        self._over(colour, _TOOTH * bright * tooth[..., None], share)
