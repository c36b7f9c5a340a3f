"""Short hair, and none."""

from __future__ import annotations

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import curve
from streamfx.models.avatar.drawing_hair_shapes import (
    OUTER,
    Maker,
    Style,
    arc,
    at,
    bumps,
    closed,
    coils,
    mirrored,
)


def bald(_: Character) -> Style:
    """Nothing."""
    return Style()


def buzz(_: Character) -> Style:
    """Millimetres all over."""
    line = at(
        [
            (0.94, 0.02),
            (0.9, -0.2),
            (0.83, -0.46),
            (0.66, -0.6),
            (0.4, -0.7),
            (0, -0.72),
            (-0.4, -0.7),
            (-0.66, -0.6),
            (-0.83, -0.46),
            (-0.9, -0.2),
            (-0.94, 0.02),
        ]
    )
    return Style(front=[closed(arc(-102, 102, 0.015, 0.05), line)], shine=0.5)


def crop(who: Character) -> Style:
    """Parted on one side, combed to the other."""
    v = who.hair_volume
    line = at(
        [
            (0.95, 0.16),
            (0.9, -0.14),
            (0.84, -0.4),
            (0.7, -0.56),
            (0.42, -0.6),
            (0.05, -0.66),
            (-0.3, -0.74),
            (-0.46, -0.86),
            (-0.52, -0.7),
            (-0.72, -0.56),
            (-0.86, -0.38),
            (-0.9, -0.14),
            (-0.95, 0.16),
        ]
    )
    outer = arc(-104, 104, 0.05, 0.2 * v)
    style = Style(front=[closed(outer, line)])
    style.strands = [
        curve(at([(-0.42, -0.9), (0.0, -0.98), (0.4, -0.86), (0.66, -0.64)])),
        curve(at([(-0.3, -1.04), (0.14, -1.1), (0.58, -0.94), (0.82, -0.62)])),
        curve(at([(-0.3, -0.84), (0.0, -0.86), (0.34, -0.72)])),
        curve(at([(-0.5, -0.92), (-0.44, -1.06), (-0.28, -1.2)])),
    ]
    return style


def quiff(who: Character) -> Style:
    """Swept up and back from the forehead."""
    v = who.hair_volume
    sides = at(
        [
            (0.95, 0.18),
            (0.9, -0.14),
            (0.84, -0.42),
            (0.72, -0.6),
            (0.3, -0.74),
            (-0.3, -0.74),
            (-0.7, -0.62),
            (-0.84, -0.42),
            (-0.9, -0.14),
            (-0.95, 0.18),
        ]
    )
    cap = closed(arc(-104, 104, 0.02, 0.1), sides)
    top = closed(
        at(
            [
                (-0.76, -0.5),
                (-0.92, -0.82),
                (-0.88, -1.08 - 0.08 * v),
                (-0.55, -1.3 - 0.16 * v),
                (0.0, -1.36 - 0.2 * v),
                (0.5, -1.34 - 0.2 * v),
                (0.9, -1.18 - 0.12 * v),
                (0.98, -0.9),
                (0.78, -0.52),
            ],
            0.1,
        ),
        at([(0.78, -0.52), (0.6, -0.66), (0.3, -0.72), (-0.1, -0.7), (-0.5, -0.66), (-0.76, -0.5)]),
    )
    style = Style(front=[cap, top])
    for x in (-0.5, -0.2, 0.12, 0.42):
        style.strands.append(curve(at([(x, -0.7), (x - 0.06, -1.0), (x + 0.16, -1.24 - 0.1 * v)], 0.5)))
    return style


def undercut(who: Character) -> Style:
    """Shaved sides, and a long top that falls to one side."""
    v = who.hair_volume
    line = at(
        [
            (0.93, 0.0),
            (0.89, -0.2),
            (0.83, -0.44),
            (0.6, -0.62),
            (0.2, -0.72),
            (-0.3, -0.72),
            (-0.66, -0.6),
            (-0.83, -0.44),
            (-0.89, -0.2),
            (-0.93, 0.0),
        ]
    )
    cap = closed(arc(-100, 100, 0.012, 0.05), line)
    top = closed(
        at(
            [
                (-0.74, -0.7),
                (-0.82, -0.98),
                (-0.55, -1.24 - 0.08 * v),
                (-0.05, -1.34 - 0.14 * v),
                (0.45, -1.32 - 0.12 * v),
                (0.86, -1.1),
                (1.02, -0.78),
                (1.0, -0.46),
                (0.9, -0.3),
            ],
            0.05,
        ),
        at([(0.9, -0.3), (0.84, -0.46), (0.66, -0.56), (0.3, -0.62), (-0.1, -0.72), (-0.42, -0.84), (-0.74, -0.7)]),
    )
    style = Style(front=[cap, top])
    style.strands = [
        curve(at([(-0.56, -0.9), (-0.1, -1.0), (0.36, -0.88), (0.7, -0.6)])),
        curve(at([(-0.46, -1.06), (0.1, -1.14), (0.6, -0.94), (0.9, -0.5)])),
        curve(at([(-0.2, -1.22), (0.34, -1.22), (0.76, -1.0), (0.97, -0.62)])),
        curve(at([(-0.3, -0.84), (0.02, -0.84), (0.3, -0.72)])),
    ]
    return style


def pixie(who: Character) -> Style:
    """Short, soft, with a fringe of points to one side."""
    v = who.hair_volume
    line = at(
        [
            (0.98, 0.36),
            (0.88, 0.16),
            (0.9, -0.08),
            (0.84, -0.24),
            (0.78, -0.38),
            (0.66, -0.34),
            (0.6, -0.48),
            (0.44, -0.42),
            (0.34, -0.56),
            (0.12, -0.52),
            (0.0, -0.64),
            (-0.26, -0.68),
            (-0.5, -0.76),
            (-0.72, -0.56),
            (-0.85, -0.32),
            (-0.9, -0.06),
            (-0.88, 0.16),
            (-0.98, 0.36),
        ]
    )
    style = Style(front=[closed(arc(-112, 112, 0.09, 0.2 * v), line)])
    style.strands = [
        curve(at([(-0.48, -0.86), (-0.06, -0.96), (0.4, -0.8), (0.66, -0.44)])),
        curve(at([(-0.36, -1.04), (0.14, -1.1), (0.6, -0.86), (0.82, -0.4)])),
        curve(at([(-0.36, -0.82), (-0.04, -0.84), (0.22, -0.72), (0.36, -0.58)])),
        curve(at([(-0.6, -0.84), (-0.78, -0.6), (-0.9, -0.2)])),
        curve(at([(0.5, -1.14), (0.86, -0.78), (0.98, -0.2)])),
    ]
    tuft = closed(
        at(
            [
                (-0.3, -1.22),
                (0.06, -1.42 - 0.1 * v),
                (0.4, -1.44 - 0.06 * v),
                (0.28, -1.34),
                (0.56, -1.36),
                (0.72, -1.22),
                (0.6, -1.0),
            ],
            -0.05,
        )
    )
    style.front.insert(0, tuft)
    return style


def curly_crop(who: Character) -> Style:
    """Curls on top, short at the sides."""
    v = who.hair_volume
    sides = at(
        [
            (0.94, 0.1),
            (0.89, -0.16),
            (0.82, -0.46),
            (0.4, -0.7),
            (-0.4, -0.7),
            (-0.82, -0.46),
            (-0.89, -0.16),
            (-0.94, 0.1),
        ]
    )
    cap = closed(arc(-102, 102, 0.015, 0.06), sides)
    mass = closed(
        arc(-66, 66, 0.1, 0.34 * v, z=-0.05),
        at([(0.84, -0.5), (0.6, -0.56), (0.3, -0.52), (0.0, -0.58), (-0.3, -0.52), (-0.6, -0.56), (-0.84, -0.5)]),
    )
    style = Style(front=[cap, bumps(mass, 17, 0.085)], shine=0.45)
    style.strands = coils(
        [(-0.55, -0.78), (-0.15, -0.8), (0.3, -0.78), (0.62, -0.82), (-0.34, -1.08), (0.1, -1.12), (0.46, -1.1)], 0.11
    )
    return style


def afro(who: Character) -> Style:
    """A round crown of coils."""
    v = who.hair_volume
    outer = arc(-128, 128, 0.4 * v, 0.5 * v, 17)
    line = at(
        [
            (0.92, 0.2),
            (0.88, -0.1),
            (0.8, -0.4),
            (0.6, -0.58),
            (0.3, -0.66),
            (0, -0.68),
            (-0.3, -0.66),
            (-0.6, -0.58),
            (-0.8, -0.4),
            (-0.88, -0.1),
            (-0.92, 0.2),
        ]
    )
    style = Style(
        back=[bumps(closed(arc(-180, 180, 0.36 * v, 0.44 * v, 21)), 24, 0.05)],
        front=[bumps(closed(outer, line), 38, 0.042)],
        shine=0.5,
    )
    places = [
        (0.0, -0.95),
        (0.42, -0.92),
        (-0.42, -0.92),
        (0.75, -0.72),
        (-0.78, -0.7),
        (0.22, -1.22),
        (-0.22, -1.24),
        (0.62, -1.12),
        (-0.64, -1.12),
        (1.05, -0.4),
        (-1.06, -0.4),
        (1.1, 0.0),
        (-1.1, 0.0),
    ]
    style.strands = coils(places, 0.085)
    return style


def receding(_: Character) -> Style:
    """Only the sides are left."""
    right = closed(
        arc(60, 116, 0.1, -0.1, 9),
        at([(0.98, 0.34), (0.9, 0.2), (0.92, -0.02), (0.89, -0.2), (0.84, -0.34), (0.84, -0.5), (0.87, -0.68)], 0.12),
    )
    style = Style(front=[right, *mirrored([right])], shine=0.5, shadow=False)
    line = curve(at([(0.95, -0.55), (1.0, -0.25), (0.98, 0.08)], OUTER))
    style.strands = [line, *mirrored([line])]
    return style


STYLES: dict[str, Maker] = {
    "bald": bald,
    "buzz": buzz,
    "crop": crop,
    "quiff": quiff,
    "undercut": undercut,
    "pixie": pixie,
    "curly_crop": curly_crop,
    "afro": afro,
    "receding": receding,
}
