"""How a head stands: the coefficients by name, and where points of the head land in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.coefficients import COEFFICIENTS, MOUTH
from streamfx.models.avatar.drawing_canvas import Points, apart

YAW, PITCH, ROLL = np.radians(25), np.radians(20), np.radians(18)
UNIT = 0.455
"""Half a face's width, in the picture's units."""
CENTRE = (0.0, -0.085)
NECK = 1.15
PIVOT = 0.25
"""Where the head turns about when it rolls and nods: down from between the eyes, in its own units."""


@dataclass(frozen=True)
class Pose:
    """One row of coefficients."""

    jaw_open: float
    lips_wide: float
    lips_round: float
    lips_press: float
    lip_tuck: float
    tongue_up: float
    teeth: float
    smile: float
    brow_up: float
    blink_left: float
    blink_right: float
    gaze_x: float
    gaze_y: float
    yaw: float
    pitch: float
    roll: float
    breath: float

    @classmethod
    def of(cls, row: npt.ArrayLike) -> Pose:
        """``row``: (17,), clipped to its range. ``ValueError`` for another shape and for what is no finite number."""
        values = np.asarray(row, np.float64)
        if values.shape != (len(COEFFICIENTS),):
            raise ValueError(f"coefficients must have the shape ({len(COEFFICIENTS)},), not {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("coefficients must be finite numbers")
        return cls(*(float(value) for value in np.clip(values, _LOWEST, 1.0)))


_NAMES = tuple(field.name for field in fields(Pose))
_LOWEST = np.array([0.0 if name in MOUTH or name.startswith("blink") else -1.0 for name in _NAMES])


HANGING = 1.0
"""What is lower than this does not move with the head alone."""


def ramp(value: npt.ArrayLike, low: float, high: float) -> Points:
    """0 up to ``low``, 1 from ``high`` on, smooth between."""
    t = np.minimum(np.maximum((np.asarray(value) - low) / (high - low), 0), 1)
    return np.asarray(t * t * (3 - 2 * t))


class Head:
    """A head in a pose. Its own units: half a face's width, from between the eyes; y down, z towards the watcher."""

    def __init__(self, character: Character, pose: Pose):
        self.pose = pose
        self.length = character.face_length
        self.unit = UNIT * character.head_size
        self.cos_yaw, self.sin_yaw = np.cos(YAW * pose.yaw), np.sin(YAW * pose.yaw)
        self.cos_pitch, self.sin_pitch = np.cos(PITCH * pose.pitch), np.sin(PITCH * pose.pitch)
        self.cos_roll, self.sin_roll = np.cos(ROLL * pose.roll), np.sin(ROLL * pose.roll)
        self.matrix = self._matrix()
        hip = PIVOT - NECK
        self.shift = np.array([-hip * self.sin_roll, hip * self.cos_roll + NECK])
        self.jaw = (0.24 * pose.jaw_open * (1 - 0.1 * pose.lips_round)) * (1 - 0.75 * pose.lips_press)

    def surface(self, flat: Points) -> Points:
        """How far the face's ellipsoid stands out at (N, 2) points, (N,)."""
        x, y = flat[:, 0] * (1 / 1.06), flat[:, 1] * (1 / (1.5 * self.length)) + 0.033
        return np.asarray(0.85 * np.sqrt(np.maximum(1 - x * x - y * y, 0)))

    def jawed(self, points: Points) -> Points:
        """Points with the chin's part of them lowered as far as the jaw is open."""
        moved = points.copy()
        fall = ramp(points[:, 1], 0.35, 1.1) * self.jaw
        moved[:, 1] += fall
        moved[:, 0] *= 1 - 0.22 * fall
        return moved

    def place(self, points: Points) -> Points:
        """(N, 3) points of the head in the picture, (N, 2). What hangs below the chin follows the head less."""
        terms = np.empty((len(points), 7))
        terms[:, :3] = points
        return self._placed(terms)

    def on_face(self, flat: Points, lift: float | Points = 0.0) -> Points:
        """(N, 2) points of the face's surface, ``lift`` above it, in the picture."""
        terms = np.empty((len(flat), 7))
        terms[:, :2] = flat
        terms[:, 2] = self.surface(flat) + lift
        return self._placed(terms)

    def all_on_face(self, shapes: Sequence[Points], lift: float = 0.0) -> list[Points]:
        """``on_face`` for many shapes, which is quicker at once than one by one."""
        return apart(self.on_face(np.vstack(shapes), lift), [len(shape) for shape in shapes])

    def _matrix(self) -> Points:
        """(7, 3), of x, y, z; of x, y and 1 times how far a point faces the watcher; of 1. For ``_placed``.

        A turned ball keeps its outline, so only what faces the watcher is foreshortened.
        """
        x, y, z, front_x, front_y, front, one = np.eye(7)
        across = x - (1 - self.cos_yaw) * front_x + self.sin_yaw * z
        depth = self.cos_yaw * z - self.sin_yaw * front_x
        down = y - PIVOT * one - (1 - self.cos_pitch) * (front_y - PIVOT * front) + self.sin_pitch * depth
        right = across * self.cos_roll - down * self.sin_roll
        below = across * self.sin_roll + down * self.cos_roll
        return np.stack([right, below, one + 0.05 * (depth - z)], axis=1)

    def _placed(self, terms: Points) -> Points:
        """The picture's points; the first three columns of ``terms`` are x, y and z, the others are filled in here."""
        front = terms[:, 5]
        np.minimum(np.maximum(terms[:, 2], 0), 0.6, out=front)
        front *= 1 / 0.6
        np.multiply(terms[:, :2], front[:, None], out=terms[:, 3:5])
        terms[:, 6] = 1
        turned = terms @ self.matrix
        placed: Points = turned[:, :2] * turned[:, 2:]
        placed += self.shift
        down = terms[:, 1]
        if down.max() > HANGING:
            placed += (terms[:, :2] - placed) * (0.7 * ramp(down, HANGING, 2.1)[:, None])
        placed *= self.unit
        placed += CENTRE
        return placed
