"""Eyes and brows: lids that close along curves, an iris that looks about, lashes."""

from __future__ import annotations

import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import Canvas, Points, apart, circle, curve, moved
from streamfx.models.avatar.drawing_paints import Paints
from streamfx.models.avatar.drawing_pose import Head, Pose

HALF = 0.245
PLACE = 0.43
SAMPLES = 25
# From the inner corner to the outer one, denser at both.
_T = np.sin(np.linspace(-np.pi / 2, np.pi / 2, SAMPLES))


class Eye:
    """One eye: ``side`` -1 is the left one as the watcher sees it. Flat units of the face, x outwards from the nose."""

    def __init__(self, who: Character, pose: Pose, side: float):
        self.who, self.pose, self.side = who, pose, side
        self.blink = pose.blink_left if side < 0 else pose.blink_right
        self.half = HALF * who.eye_size
        glad = max(pose.smile, 0.0)
        look = 1 - 0.2 * max(pose.gaze_y, 0) + 0.06 * max(-pose.gaze_y, 0)
        rise = 0.172 * who.eye_size * who.eye_open * look * (1 + 0.1 * pose.brow_up)
        sink = 0.098 * who.eye_size * who.eye_open * (1 - 0.34 * glad)
        # The upper lid is highest a little inside of the middle, the lower one lowest a little outside of it.
        high = (1 - np.abs(_T) ** 2.3) ** 0.85 * (1 - 0.12 * _T)
        low = (1 - _T**2) * (1 + 0.18 * _T)
        slope = -0.055 * who.eye_tilt * _T - 0.012 * _T
        shut = sink * 0.72 * (1 - _T**2)
        x = self.half * _T
        self.open_lid = np.stack([x, slope - rise * high], axis=1)
        self.upper = np.stack([x, slope + (-rise * high) * (1 - self.blink) + shut * self.blink], axis=1)
        self.lower = np.stack([x, slope + sink * low * (1 - self.blink) + shut * self.blink], axis=1)

    def on(self, head: Head, *shapes: Points) -> list[Points]:
        """Shapes of the eye in the picture: all of them at once, which is quicker than one by one."""
        local = np.vstack(shapes)
        local[:, 0] = self.side * (local[:, 0] + PLACE * self.who.eye_spacing)
        return apart(head.on_face(local), [len(shape) for shape in shapes])

    def draw(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        """The eye, its lids and its lashes."""
        bulge = self.open_lid - np.stack([-0.02 * _T, 0.062 * (1 - _T**2) + 0.008], axis=1)
        lid, outline = self.on(head, np.vstack([bulge, self.upper[::-1]]), np.vstack([self.upper, self.lower[::-1]]))
        if paints.lid:
            canvas.fill(lid, paints.lid)
        if self.blink < 0.995:
            with canvas.inside(outline):
                canvas.fill(outline, paints.white)
                self._ball(canvas, head, paints)
        self._lids(canvas, head, paints)

    def _ball(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        size = 0.16 * self.who.eye_size
        pose = self.pose
        # Gaze is the watcher's left and right, an eye's x runs outwards.
        centre = np.array([self.side * 0.105 * pose.gaze_x - 0.006, -0.032 + 0.062 * pose.gaze_y])
        ring = circle()
        sideways = self.side * canvas.light

        def disc(radius: float, right: float = 0.0, down: float = 0.0) -> Points:
            return np.asarray(size * (ring * radius + [sideways * right, down]) + centre)

        shadow = np.vstack([self.upper - [0, 0.1], moved(self.upper, 0, 0.05 + 0.03 * self.blink)[::-1]])
        *discs, shadow, glint, gleam = self.on(
            head,
            disc(1.0),
            disc(0.86),
            disc(0.6, down=0.2),
            disc(0.46),
            shadow,
            disc(0.27, 0.4, -0.42),
            disc(0.13, -0.42, 0.4),
        )
        for shape, colour in zip(discs, (paints.iris_dark, paints.iris, paints.iris_light, paints.pupil), strict=True):
            canvas.fill(shape, colour)
        canvas.veil(shadow, (84, 62, 92), 0.34)
        canvas.fill(glint, (255, 255, 255))
        canvas.fill(gleam, (238, 238, 246))

    def _lids(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        lashes = self.who.lashes
        crease = self.open_lid + np.stack([0.0 * _T, -0.052 - 0.02 * (1 - _T**2)], axis=1)
        crease = crease + (self.upper - self.open_lid) * 0.42
        # One shape for lid edge and lashes: thin at the inner corner, drawn out into a wing at the outer one.
        weight = 0.012 + (0.03 + 0.022 * lashes) * (0.5 + 0.5 * _T) ** 0.8
        weight[-1] = 0.004
        wing = self.upper[-1] + [0.015 + 0.045 * lashes, -0.018 - 0.032 * lashes + 0.055 * self.blink]
        edge = self.upper - np.stack([-0.008 * _T, weight], axis=1)
        rim = np.vstack([moved(self.upper, 0, 0.004), wing[None], edge[::-1]])
        crease, under, rim, *single = self.on(
            head, crease[4:-1], moved(self.lower[6:-1], 0, 0.006), rim, *(self._lashes() if lashes > 0.5 else ())
        )
        canvas.stroke(crease, 0.0095, paints.crease)
        canvas.stroke(under, 0.008 + 0.003 * lashes, paints.crease)
        canvas.fill(rim, paints.lash)
        for lash in single:
            canvas.stroke(lash, 0.017, paints.lash, "end")

    def _lashes(self) -> list[Points]:
        """A few lashes at the outer corner: upwards from an open lid, downwards from a shut one."""
        turn = 1 - 1.75 * self.blink
        length = 0.03 + 0.035 * self.who.lashes
        lines = []
        for place, lean in ((18, 0.55), (21, 0.95)):
            root = self.upper[place] - [0, 0.026 * turn]
            tip = moved(root, length * lean, -length * turn)
            bent = (root + tip) / 2 + [0.012, 0.004]
            lines.append(curve(np.array([root, bent, tip])))
        return lines


class Brow:
    """One brow; ``side`` as for the eye."""

    def __init__(self, who: Character, pose: Pose, side: float):
        lift, frown = max(pose.brow_up, 0.0), max(-pose.brow_up, 0.0)
        arch = 0.05 * who.brow_arch
        self.line = np.array(
            [
                [0.17 - 0.035 * frown, -0.345 - 0.125 * lift + 0.1 * frown],
                [0.38, -0.365 - arch - 0.165 * lift + 0.075 * frown],
                [0.56, -0.36 - arch - 0.16 * lift + 0.045 * frown],
                [0.735, -0.275 - 0.11 * lift + 0.02 * frown],
            ]
        )
        self.line[:, 0] *= side * who.eye_spacing
        self.thick = 0.072 * who.brow_thickness

    def draw(self, canvas: Canvas, head: Head, paints: Paints) -> None:
        """A full start, a thin tail."""
        line = curve(self.line)
        s = np.linspace(0, 1, len(line))
        half = self.thick / 2 * (np.minimum(1, 0.42 + 3 * s) * (1 - s**2.2))[:, None]
        up = np.array([0.0, 1.0])
        canvas.fill(head.on_face(np.vstack([line - half * up, (line + half * up)[::-1]]), 0.05), paints.brow)
