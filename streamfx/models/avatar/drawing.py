"""A talking head, drawn: a character in a pose as a picture, with nothing but NumPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_body import Body, backdrop
from streamfx.models.avatar.drawing_canvas import GRAIN, Canvas, Pixels, Points, Shade
from streamfx.models.avatar.drawing_extras import draw_arms, draw_beard, draw_earrings, draw_glasses
from streamfx.models.avatar.drawing_eyes import Brow, Eye
from streamfx.models.avatar.drawing_face import Face
from streamfx.models.avatar.drawing_hair import Hair
from streamfx.models.avatar.drawing_mouth import Mouth
from streamfx.models.avatar.drawing_paints import Paints
from streamfx.models.avatar.drawing_pose import CENTRE, Head, Pose

SMALLEST = 32
_FINEST = 192
"""Smaller pictures than this are painted four times their size, others twice."""


class Painter:
    """Draws one character at one size (at least 32 pixels), again and again; not for two threads at once."""

    def __init__(self, character: Character, size: int = 256):
        if size < SMALLEST:
            raise ValueError(f"size must be at least {SMALLEST}, not {size}")
        self.character, self.size = character, size
        # A whole number of the grains of soft shade.
        self.side = -(-size * (2 if size >= _FINEST else 4) // GRAIN) * GRAIN
        self.paints = Paints(character)
        self._backdrop = backdrop(character, self.side, self.paints)
        self._body = Body(character, self.side, self.paints)
        self._face = Face(character)
        self._hair = Hair(character)

    def draw(self, coefficients: npt.ArrayLike) -> Pixels:
        """The picture, ``(size, size, 3) uint8`` RGB, of ``coefficients`` (17,), clipped to their ranges.

        ``ValueError`` for another shape and for what is no finite number.
        """
        pose = Pose.of(coefficients)
        who, paints = self.character, self.paints
        head = Head(who, pose)
        mouth = Mouth(who, pose)
        canvas = Canvas(self._backdrop.copy(), paints.line, paints.ink, who.light)
        self._hair.at(head)
        outline = self._face.outline(head)

        self._hair.draw_back(canvas, paints)
        skin = self._neck(canvas, head, outline)
        self._body.draw(canvas, pose.breath)
        self._hair.draw_cloth_back(canvas, paints)
        if who.hair != "hijab":
            self._face.draw_ears(canvas, head, paints)
            draw_earrings(canvas, head, paints, self._face)
        self._face.draw(canvas, head, paints, outline, self._hair.fringe(), mouth)
        draw_beard(canvas, head, paints, self._face, outline, mouth)
        mouth.draw(canvas, head, paints)
        for side in (-1.0, 1.0):
            Eye(who, pose, side).draw(canvas, head, paints)
        draw_arms(canvas, head, paints, who)
        self._hair.draw_front(canvas, paints)
        for side in (-1.0, 1.0):
            Brow(who, pose, side).draw(canvas, head, paints)
        draw_glasses(canvas, head, paints, who)
        self._rim(canvas, [outline, skin, self._body.silhouette(pose.breath), *self._hair.silhouettes()])
        return np.asarray(cv2.resize(canvas.pixels, (self.size, self.size), interpolation=cv2.INTER_AREA), np.uint8)

    def _neck(self, canvas: Canvas, head: Head, outline: Points) -> Points:
        """Neck and chest, with the chin's shadow; returns their outline."""
        half = self._body.neck_half
        root = head.place(np.array([[0.0, 0.95, -0.1]]))[0]
        rest = np.array([0.0, CENTRE[1] + 0.95 * head.unit])
        top = rest + (root - rest) * 0.5 + np.array([[-half, -0.08], [half, -0.08]])
        skin = self._body.skin(head.pose.breath, top)
        paints = self.paints
        canvas.shape(skin, paints.skin)
        shade = Shade(canvas, paints.hard)
        drop = np.array([-0.025 * canvas.light, 0.085])
        shade.paint([outline + drop], paints.shade, 0.05, 0.95)
        away = -canvas.light
        side = np.array([[0.45 * half * away, 0.0], [0.5 * half * away, 0.55], [0.9 * away, 0.85], [0.9 * away, 0.0]])
        shade.paint([side], paints.shade, 0.08, 0.6)
        shade.apply(canvas.stencil([skin], GRAIN))
        return skin

    def _rim(self, canvas: Canvas, figure: list[Points]) -> None:
        """Light from behind along the edges: one colour on the light's side, another on the other."""
        if not self.paints.rim:
            return
        coarse = 2 if self.character.style == "night" else 4
        side = self.side // coarse
        mask: Pixels = np.zeros((side, side), np.uint8)
        for points in figure:
            cv2.fillPoly(mask, [canvas.fixed(points, coarse)], 255, cv2.LINE_AA, 4)
        reach = max(1, round(0.016 * side))
        strength: Pixels = np.zeros((side, side, 3), np.uint8)
        for sign, colour in zip((canvas.light, -canvas.light), self.paints.rim, strict=True):
            inner = np.zeros_like(mask)
            if sign < 0:
                inner[reach // 2 :, reach:] = mask[: side - reach // 2, :-reach]
            else:
                inner[reach // 2 :, :-reach] = mask[: side - reach // 2, reach:]
            edge = cv2.blur(cv2.subtract(mask, inner), (reach, reach))
            edge = cv2.min(edge, mask)
            tinted = cv2.multiply(cv2.merge([edge] * 3), np.array([*colour, 0.0]), scale=1 / 255)
            strength = np.asarray(cv2.add(strength, tinted), np.uint8)
        light = cv2.resize(strength, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        canvas.pixels = np.asarray(cv2.add(canvas.pixels, light), np.uint8)


def draw(character: Character, coefficients: npt.ArrayLike, size: int = 256) -> Pixels:
    """One picture, ``(size, size, 3) uint8`` RGB; see ``Painter``, which is quicker for many of one character.

    ``coefficients``: (17,), clipped to their ranges. ``ValueError`` for another shape, for what is no finite number
    and for a size below 32.
    """
    return Painter(character, size).draw(coefficients)
