"""What a face wears: beards, glasses, earrings."""

from __future__ import annotations

import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import GRAIN, WHITE, Canvas, Points, Shade, circle, curve, mix, moved, ratio
from streamfx.models.avatar.drawing_eyes import PLACE
from streamfx.models.avatar.drawing_face import Face
from streamfx.models.avatar.drawing_hair_shapes import bumps
from streamfx.models.avatar.drawing_mouth import Mouth
from streamfx.models.avatar.drawing_paints import Paints
from streamfx.models.avatar.drawing_pose import Head


def draw_beard(canvas: Canvas, head: Head, paints: Paints, face: Face, outline: Points, mouth: Mouth) -> None:
    """Whatever grows below the nose; to be drawn before the mouth."""
    who = face.who
    if who.beard == "none":
        return
    top, corner = mouth.upper_outer, mouth.corner
    if who.beard in ("stubble", "short"):
        edge = _cheek_line(who, head)
        shade = Shade(canvas)
        hue = ratio(mix(paints.skin, paints.beard, 0.4), paints.skin)
        strength = 0.55 if who.beard == "stubble" else 1.0
        shade.paint([edge], hue, 0.07 if who.beard == "stubble" else 0.035, strength)
        shade.apply(canvas.stencil([outline], GRAIN))
    if who.beard in ("short", "full"):
        _full(canvas, head, paints, face, mouth, 0.02 if who.beard == "short" else 0.16)
    if who.beard == "goatee":
        low = float(mouth.lower_outer[:, 1].max())
        chin = 1.2 * who.face_length + head.jaw
        patch = np.array(
            [[0.0, low + 0.06], [0.13, low + 0.05], [0.27, chin - 0.16], [0.2, chin + 0.02], [0.0, chin + 0.07]]
        )
        patch = curve(np.vstack([patch, patch[-2:0:-1] * [-1, 1]]), closed=True)
        canvas.shape(head.on_face(patch, 0.06), paints.beard)
    if who.beard in ("moustache", "goatee", "full", "short"):
        wide = corner[0] + (0.1 if who.beard == "moustache" else 0.06)
        high = face.nose_end + 0.085
        lip = float(top[len(top) // 2, 1])
        droop = corner[1] + (0.03 if who.beard == "moustache" else 0.07)
        half = np.array(
            [
                [0.0, high + 0.02],
                [0.14, high],
                [0.7 * wide, (high + droop) / 2 - 0.03],
                [wide, droop],
                [0.72 * wide, (lip + droop) / 2 + 0.045],
                [0.12, lip + 0.035],
                [0.0, lip + 0.01],
            ]
        )
        half = curve(half)
        canvas.shape(head.on_face(np.vstack([half, half[::-1] * [-1, 1]]), 0.08), paints.beard)


def _cheek_line(who: Character, head: Head) -> Points:
    long = who.face_length
    right = np.array(
        [
            [0.0, 0.55],
            [0.3, 0.55],
            [0.55, 0.5],
            [0.8, 0.3],
            [1.0, 0.1],
            [1.15, 0.6],
            [0.8, 1.3 * long],
            [0, 1.45 * long],
        ]
    )
    right = curve(head.jawed(right))
    return head.on_face(np.vstack([right, right[-2:0:-1] * [-1, 1]]))


def _full(canvas: Canvas, head: Head, paints: Paints, face: Face, mouth: Mouth, long: float) -> None:
    """Along the jaw from ear to ear, around the mouth."""
    c = face.contour
    outer = c[4:9].copy()
    outer[:, :2] *= [1.015, 1.0]
    outer[:, 1] += long * np.array([0.0, 0.05, 0.3, 0.8, 1.0])
    outer[:, 0] *= 1 + 0.15 * long
    corner = mouth.corner
    low = float(mouth.lower_outer[:, 1].max())
    inner = np.array(
        [
            [0.0, low + 0.022],
            [0.14, low + 0.016],
            [corner[0] - 0.03, (corner[1] + low) / 2 + 0.02],
            [corner[0] + 0.04, corner[1] - 0.03],
            [corner[0] + 0.2, corner[1] - 0.1],
            [0.76, 0.46],
            [0.9, 0.1],
        ]
    )
    inner3 = np.column_stack([inner, head.surface(inner) + 0.04])
    outer[:, :2] = head.jawed(outer[:, :2])
    outer[0, 1] -= 0.1
    right = np.vstack([curve(inner3), curve(outer)])
    shape = np.vstack([right, right[::-1] * [-1, 1, 1]])
    if long > 0.1:
        shape = bumps(shape, 44, 0.014)
    canvas.shape(head.place(shape), paints.beard)


def draw_arms(canvas: Canvas, head: Head, paints: Paints, who: Character) -> None:
    """From the glasses to the ears; to be drawn before the hair, which covers them."""
    if who.glasses == "none":
        return
    for side in (-1.0, 1.0):
        hinge = np.array([[PLACE * who.eye_spacing + 0.32, -0.05], [0.93 * who.face_width, -0.07]]) * [side, 1]
        ends = np.column_stack([hinge, [head.surface(hinge)[0] + 0.13, 0.0]])
        canvas.stroke(head.place(ends), 0.02, paints.dark(paints.frame, 0.15), "none")


def draw_glasses(canvas: Canvas, head: Head, paints: Paints, who: Character) -> None:
    """Frames in front of the eyes, and a glint on the glass; the arms are ``draw_arms``."""
    if who.glasses == "none":
        return
    ring = circle(32)
    power = {"round": 1.0, "square": 0.55, "browline": 0.62, "cat": 0.75}[who.glasses]
    lens = np.sign(ring) * np.abs(ring) ** power * [0.33, 0.285 if who.glasses == "round" else 0.25]
    if who.glasses == "round":
        lens = ring * [0.31, 0.3]
    if who.glasses == "cat":
        lens = lens + np.stack(
            [0.05 * (lens[:, 0] > 0) * np.abs(lens[:, 0]), -0.2 * np.clip(lens[:, 0], 0, 1) * (lens[:, 1] < 0)], axis=1
        )
    place = PLACE * who.eye_spacing * 1.01
    colour = paints.frame

    def on(flat: Points) -> Points:
        return head.on_face(flat, 0.14)

    for side in (-1.0, 1.0):
        flat = moved(lens, place, 0.03) * [side, 1]
        middle = flat.mean(axis=0)
        glass = on(middle + (flat - middle) * 0.93)
        slant = np.array([[-0.01, -0.3], [0.11, -0.3], [-0.09, 0.3], [-0.21, 0.3]]) + middle
        with canvas.inside(glass):
            canvas.veil(on(slant), WHITE, 0.16)
        thick = 1.0 if who.glasses in ("square", "cat") else 0.55
        canvas.fill_all(
            [on(middle + (flat - middle) * (1 + 0.06 * thick)), on(middle + (flat - middle) * (1 - 0.07 * thick))],
            colour,
        )
        if who.glasses == "browline":
            upper = flat[flat[:, 1] < middle[1] - 0.06]
            upper = upper[np.argsort(upper[:, 0])]
            canvas.stroke(on(upper), 0.04 * head.unit / 0.4, colour, "none")
    bridge = np.array([[-(place - 0.31), -0.02], [0.0, -0.075], [place - 0.31, -0.02]])
    canvas.stroke(curve(on(bridge)), 0.022, colour, "none")


def draw_earrings(canvas: Canvas, head: Head, paints: Paints, face: Face) -> None:
    """At both lobes; to be drawn after the ears and before the face."""
    who = face.who
    if who.earrings == "none":
        return
    for side in (-1.0, 1.0):
        lobe = face.ear_points(head, np.array([[1.0, 0.31 * who.ears]]), side)[0]
        ring = circle(24)
        if who.earrings == "stud":
            canvas.shape(ring * 0.017 + lobe, paints.metal)
            canvas.fill(ring * 0.006 + lobe + [0.005 * canvas.light, -0.005], paints.light(paints.metal, 0.7))
        elif who.earrings == "hoop":
            middle = moved(lobe, 0, 0.052)
            canvas.fill_all([ring * [0.05, 0.058] + middle, ring * [0.037, 0.045] + middle], paints.metal)
        else:
            canvas.stroke(np.stack([lobe, moved(lobe, 0, 0.05)]), 0.01, paints.metal, "none")
            drop = ring * [0.02, 0.03] + lobe + [0, 0.075]
            canvas.shape(drop, paints.wrap)
            canvas.fill(ring * [0.006, 0.01] + lobe + [0.006 * canvas.light, 0.067], paints.light(paints.wrap, 0.6))
