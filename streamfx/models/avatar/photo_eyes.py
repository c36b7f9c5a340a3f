"""A photograph's eyes: lids that close and irises that move, in the picture before it is warped."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from streamfx.models.avatar.photo_frame import Floats, Frame, bell, line, ramp, sampled, softness

_UPPER = ([33, 246, 161, 160, 159, 158, 157, 173, 133], [362, 398, 384, 385, 386, 387, 388, 466, 263])
_LOWER = ([33, 7, 163, 144, 145, 153, 154, 155, 133], [362, 382, 381, 380, 374, 373, 390, 249, 263])
_UNDER_BROW = ([46, 53, 52, 65, 55], [276, 283, 282, 295, 285])
_CHEEK = [50, 280, 205, 425]
_SAMPLES = 25
_REACH = 5.0
"""Millimetres that a drawn eye may be larger than the mesh has it, downwards."""
_GAZE = np.array([2.2, 0.9], np.float32)
"""Millimetres that an iris moves sideways and up or down: more would uncover what the photograph does not show."""


class Eye:
    """The left (0) or right (1) eye of the picture."""

    def __init__(self, frame: Frame, points: Floats, iris: Floats, side: int, picture: npt.NDArray[np.uint8]):
        """``points``: (468, 3), ``iris``: (3,): its middle and radius, in pixels of ``picture`` (S, S, 3)."""
        soft = self._soft = softness(picture, points) / frame.mm
        upper, lower, brow = (frame.face(points[part[side], :2]) for part in (_UPPER, _LOWER, _UNDER_BROW))
        upper, lower = line(upper, _SAMPLES), line(lower, _SAMPLES)
        left, right = float(upper[0, 0]), float(upper[-1, 0])
        high = float(upper[:, 1].min())
        self._open = max(float((lower[:, 1] - np.interp(lower[:, 0], *upper.T)).mean()), 0.5)
        roof = high - 0.85 * max(high - float(brow[:, 1].max()), 3.0)
        bottom = float(lower[:, 1].max()) + _REACH + 2
        corners = [(x, y) for x in (left - 4, right + 4) for y in (roof - 2, bottom)]
        held = frame.picture(np.array(corners, np.float32))
        size = picture.shape[0]
        x0, y0 = np.clip(np.floor(held.min(axis=0)).astype(int), 0, size)
        x1, y1 = np.clip(np.ceil(held.max(axis=0)).astype(int) + 1, 0, size)
        self._part = slice(y0, y1), slice(x0, x1)
        pixels = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1).astype(np.float32)
        self._pixels = pixels - np.array([x0, y0], np.float32)
        flat = frame.face(pixels.reshape(-1, 2)).reshape(pixels.shape)
        self._x, self._y = flat[..., 0], flat[..., 1]
        # Beside the eye lids have no edge: there nothing is moved.
        self._beside = ramp(self._x, left - 0.5, left + 1.5) * ramp(-self._x, -right - 0.5, -right + 1.5)
        self._upper = np.interp(self._x, *upper.T).astype(np.float32)
        # The lids meet on the lower one's lashes, which the mesh leaves out.
        self._lower = np.interp(self._x, *lower.T).astype(np.float32)
        self._reach = self._beyond(frame, points, picture, lower)
        self._meet = self._lower + (0.9 + self._reach) * self._beside
        self._roof = roof
        self._down = frame.along(np.array([0, 1], np.float32))
        self._seen = ramp(self._y - self._upper, -soft, soft) * ramp(self._lower - self._y, -soft, soft) * self._beside
        off = np.hypot(*(pixels - iris[:2]).transpose(2, 0, 1)) / max(float(iris[2]), 1.0)
        self._rolls = (1 - ramp(off, 1.1, 2.4))[..., None]
        self._turn = frame
        self._skin = self._lid_skin(frame, points, picture, upper, roof)
        inside = picture[self._part][self._seen > 0.5]
        self._lash = (np.percentile(inside, 6, axis=0) if len(inside) else np.full(3, 40)).astype(np.float32)

    @staticmethod
    def _beyond(frame: Frame, points: Floats, picture: npt.NDArray[np.uint8], lower: Floats) -> float:
        """How far below the mesh's lower lid the eye ends, in millimetres: 0 in photographs; drawn eyes are large."""
        steps = np.arange(0, _REACH, 0.5, dtype=np.float32)
        middle = lower[7:-7]
        lines = np.stack(
            [np.broadcast_to(middle[:, 0], (len(steps), len(middle))), middle[:, 1] + steps[:, None]], axis=-1
        )
        at = np.concatenate([frame.picture(lines.reshape(-1, 2)), points[_CHEEK, :2]])[None]
        seen = sampled(cv2.GaussianBlur(picture, (0, 0), 1), at)[0].astype(np.float32)
        skin = np.median(seen[-len(_CHEEK) :], axis=0)
        apart = np.abs(seen[: -len(_CHEEK)] - skin).max(axis=-1).reshape(len(steps), -1)
        eye = np.median(apart, axis=1) > 75
        return float(steps[int(np.argmin(eye))]) if not eye.all() else _REACH

    def _lid_skin(
        self, frame: Frame, points: Floats, picture: npt.NDArray[np.uint8], upper: Floats, roof: float
    ) -> Floats:
        """The colour of the lid at each pixel of the eye, (h, w, 3): what is above the eye and like the cheek."""
        blurred = cv2.GaussianBlur(picture, (0, 0), max(frame.mm, 0.8))
        heights = np.linspace(0.1, 0.9, 7, dtype=np.float32)[:, None]
        lines = np.stack([np.broadcast_to(upper[:, 0], (7, _SAMPLES)), roof + (upper[:, 1] - roof) * heights], axis=-1)
        at = np.concatenate([frame.picture(lines.reshape(-1, 2)), points[_CHEEK, :2]])[None]
        seen = sampled(blurred, at)[0].astype(np.float32)
        cheek, above = seen[-len(_CHEEK) :].mean(axis=0), seen[: -len(_CHEEK)].reshape(7, _SAMPLES, 3)
        like = np.exp(-(((above - cheek) / 45) ** 2).sum(axis=-1, keepdims=True)) + 1e-4
        skin = (above * like).sum(axis=0) + 0.02 * cheek
        skin = cv2.GaussianBlur(np.concatenate([skin, like.sum(axis=0) + 0.02], axis=1), (3, 15), 0.1, sigmaY=4)
        skin = skin[:, :3] / skin[:, 3:]
        # Right above a drawn eye's mesh there is still eye.
        skin += (cheek - skin) * ramp(self._reach, 0, 2)
        return np.stack([np.interp(self._x, upper[:, 0], skin[:, c]) for c in range(3)], axis=-1).astype(np.float32)

    def draw(self, picture: npt.NDArray[np.uint8], blink: float, gaze: Floats) -> None:
        """Into ``picture``; ``blink`` in [0, 1], ``gaze`` (2,) in [-1, 1]."""
        part = picture[self._part]
        if not part.size or (blink <= 0 and not gaze.any()):
            return
        eye = part.astype(np.float32)
        if gaze.any():
            move = self._turn.along(gaze * _GAZE)
            moved = sampled(part, self._pixels - self._rolls * move)
            eye += (moved - eye) * self._seen[..., None]
        if blink > 0:
            eye = self._lidded(part, eye, blink)
        part[:] = np.round(np.clip(eye, 0, 255)).astype(np.uint8)

    def _lidded(self, part: npt.NDArray[np.uint8], eye: Floats, blink: float) -> Floats:
        fall = blink * (self._meet - self._upper) * self._beside
        edge = self._upper + fall
        strip = min(1.1, 0.35 * self._open)
        # The lid's edge with its lashes keeps its height; the skin above is drawn out.
        stretched = np.maximum(edge - strip - self._roof, 0.1)
        t = (self._y - self._roof) / stretched
        from_skin = self._roof + t * (stretched - fall)
        source = np.where(self._y > edge - strip, self._y - fall, np.where(self._y < self._roof, self._y, from_skin))
        shift = (source - self._y)[..., None] * self._down
        lid = sampled(part, self._pixels + shift)
        # Drawn out alone, the lid would be streaks: most of what it gains is its plain skin.
        gained = self._y - self._upper + self._reach
        round_down = 1 - 0.12 * ramp(gained, 0, 2 + self._open + 2 * self._reach)
        plain = ramp(gained, -1.5, 0.5) * ramp(edge - 0.7 * strip - self._y, 0, 0.6) * ramp(fall, 0, 2)
        plain *= 0.85 + 0.15 * float(ramp(self._reach, 0, 2))
        lid = lid + (self._skin * round_down[..., None] - lid) * plain[..., None]
        covered = ramp(edge - self._y, -self._soft, self._soft) * ramp(fall, 0, 0.4)
        out = eye + (lid - eye) * covered[..., None]
        width = max(0.55, self._soft)
        lashes = bell(self._y - edge, width) * ramp(fall, 0.1 * self._open, 0.9 * self._open)
        lashes *= 0.6 * min(1.0, 0.9 / width)
        return np.asarray(out + (self._lash - out) * lashes[..., None], np.float32)
