"""Long hair that hangs down."""

from __future__ import annotations

import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import Points, curve
from streamfx.models.avatar.drawing_hair_shapes import (
    BACK,
    Maker,
    Style,
    arc,
    at,
    bumps,
    closed,
    coils,
    locks,
    mirrored,
)


def _parted(v: float, low: float, hem: list[tuple[float, float]]) -> Points:
    """The right half of hair with a parting in the middle, down to ``hem``, a list from the outside inwards."""
    return closed(
        np.vstack([arc(0, low, 0.1 * v, 0.17 * v, 9), at(hem[:1], 0.12)]),
        at(hem, 0.12),
        np.vstack(
            [
                at(hem[-1:], 0.12),
                at([(0.86, 0.1), (0.84, -0.14), (0.74, -0.42), (0.5, -0.64), (0.22, -0.78), (0.0, -0.92)]),
            ]
        ),
    )


def bob(who: Character) -> Style:
    """To the chin, turned in, with a straight fringe."""
    v = who.hair_volume
    back = closed(
        arc(-100, 100, 0.16 * v, 0.18 * v, z=BACK),
        at(
            [(1.2, 0.4), (1.2, 0.85), (1.0, 1.08), (0.5, 1.12), (-0.5, 1.12), (-1.0, 1.08), (-1.2, 0.85), (-1.2, 0.4)],
            BACK,
        ),
    )
    side = closed(
        np.vstack([arc(38, 96, 0.14 * v, 0.18 * v, 6), at([(1.2, 0.4), (1.17, 0.8), (0.98, 1.02)], 0.1)]),
        at([(0.98, 1.02), (0.8, 0.98), (0.86, 0.66), (0.9, 0.3), (0.87, -0.1), (0.8, -0.5)], 0.1),
    )
    fringe = closed(
        arc(-74, 74, 0.14 * v, 0.18 * v),
        at([(0.92, -0.18), (0.72, -0.4), (0.3, -0.47), (0.0, -0.485), (-0.3, -0.47), (-0.72, -0.4), (-0.92, -0.18)]),
    )
    style = Style(back=[back], front=[side, *mirrored([side]), fringe])
    for x in (-0.56, -0.24, 0.12, 0.46):
        style.strands.append(curve(at([(x, -0.5), (x * 0.92, -0.68), (x * 0.72, -0.84)])))
    line = curve(at([(1.02, 0.0), (1.06, 0.4), (0.99, 0.8)], 0.05))
    style.strands += [line, *mirrored([line])]
    return style


def fringe(who: Character) -> Style:
    """Long and straight with curtains over the forehead."""
    style = straight(who)
    v = who.hair_volume
    piece = closed(
        arc(-2, 58, 0.08 * v, 0.17 * v, 6),
        at([(0.95, 0.02), (0.85, -0.12), (0.68, -0.42), (0.4, -0.58), (0.14, -0.65), (0.0, -0.76), (-0.02, -0.95)]),
    )
    style.front += [piece, *mirrored([piece])]
    line = curve(at([(0.05, -1.0), (0.44, -0.78), (0.8, -0.34)]))
    style.strands += [line, *mirrored([line])]
    return style


def straight(who: Character) -> Style:
    """Long and smooth, parted in the middle."""
    v = who.hair_volume
    back = closed(
        arc(-100, 100, 0.16 * v, 0.17 * v, z=BACK),
        at(
            [(1.22, 0.5), (1.3, 1.2), (1.36, 2.0), (1.1, 2.6), (-1.1, 2.6), (-1.36, 2.0), (-1.3, 1.2), (-1.22, 0.5)],
            BACK,
        ),
    )
    half = _parted(v, 92, [(1.16, 0.5), (1.2, 1.1), (1.2, 1.75), (1.06, 2.2), (0.92, 1.8), (0.9, 1.2), (0.92, 0.6)])
    style = Style(back=[back], front=[half, *mirrored([half])])
    for x in (0.96, 1.06):
        line = curve(at([(x, 0.2), (x + 0.04, 0.9), (x + 0.02, 1.7)], 0.12))
        style.strands += [line, *mirrored([line])]
    line = curve(at([(0.06, -1.02), (0.5, -0.86), (0.86, -0.4)]))
    style.strands += [line, *mirrored([line])]
    return style


def wavy(who: Character) -> Style:
    """To the shoulders in waves, parted on one side."""
    v = who.hair_volume
    back = closed(
        arc(-100, 100, 0.22 * v, 0.2 * v, z=BACK),
        at(
            [
                (1.32, 0.4),
                (1.3, 0.85),
                (1.46, 1.25),
                (1.34, 1.7),
                (1.0, 1.95),
                (0.5, 1.8),
                (-0.5, 1.8),
                (-1.0, 1.95),
                (-1.34, 1.7),
                (-1.46, 1.25),
                (-1.3, 0.85),
                (-1.32, 0.4),
            ],
            BACK,
        ),
    )
    big = closed(
        np.vstack([arc(-28, 92, 0.16 * v, 0.22 * v, 10), at([(1.2, 0.4)], 0.12)]),
        at(
            [
                (1.2, 0.4),
                (1.1, 0.8),
                (1.26, 1.2),
                (1.12, 1.62),
                (0.92, 1.78),
                (0.98, 1.4),
                (0.86, 1.05),
                (0.96, 0.65),
                (0.9, 0.3),
            ],
            0.12,
        ),
        at([(0.9, 0.3), (0.9, 0.0), (0.82, -0.26), (0.56, -0.5), (0.1, -0.64), (-0.26, -0.8), (-0.42, -1.02)]),
    )
    small = closed(
        np.vstack([arc(-92, -22, 0.16 * v, 0.2 * v, 7)[::-1], at([(-1.2, 0.4)], 0.1)]),
        at(
            [
                (-1.2, 0.4),
                (-1.12, 0.8),
                (-1.26, 1.2),
                (-1.1, 1.6),
                (-0.94, 1.76),
                (-0.98, 1.4),
                (-0.88, 1.05),
                (-0.96, 0.65),
                (-0.92, 0.3),
            ],
            0.1,
        ),
        at([(-0.92, 0.3), (-0.92, -0.1), (-0.8, -0.44), (-0.58, -0.7), (-0.4, -1.02)]),
    )
    style = Style(back=[back], front=[small, big])
    style.strands = [
        curve(at([(-0.36, -0.98), (0.3, -0.84), (0.8, -0.42), (0.98, 0.1)])),
        curve(at([(1.06, 0.3), (0.98, 0.75), (1.1, 1.15), (1.02, 1.55)], 0.1)),
        curve(at([(-1.06, 0.3), (-1.0, 0.75), (-1.1, 1.15), (-1.02, 1.5)], 0.1)),
        curve(at([(-0.46, -0.98), (-0.74, -0.7), (-0.94, -0.3)])),
    ]
    return style


def curls(who: Character) -> Style:
    """A cloud of big curls to the shoulders."""
    v = who.hair_volume
    back = closed(
        arc(-110, 110, 0.42 * v, 0.34 * v, z=BACK),
        at(
            [(1.5, 0.5), (1.5, 1.1), (1.3, 1.6), (0.7, 1.75), (-0.7, 1.75), (-1.3, 1.6), (-1.5, 1.1), (-1.5, 0.5)], BACK
        ),
    )
    side = closed(
        np.vstack([arc(-24, 100, 0.3 * v, 0.34 * v, 10), at([(1.34, 0.5), (1.24, 1.0), (1.02, 1.24)], 0.15)]),
        np.vstack(
            [
                at([(1.02, 1.24), (0.88, 0.95), (0.95, 0.55), (0.88, 0.2), (0.92, -0.1)], 0.15),
                at([(0.78, -0.34), (0.5, -0.5), (0.12, -0.62), (-0.2, -0.8)]),
            ]
        ),
    )
    other = closed(
        np.vstack([arc(-100, -16, 0.3 * v, 0.34 * v, 8)[::-1], at([(-1.34, 0.5), (-1.22, 0.95), (-1.04, 1.16)], 0.15)]),
        np.vstack(
            [
                at([(-1.04, 1.16), (-0.88, 0.9), (-0.96, 0.5), (-0.9, 0.15), (-0.92, -0.15)], 0.15),
                at([(-0.76, -0.46), (-0.48, -0.68), (-0.18, -0.84)]),
            ]
        ),
    )
    style = Style(
        back=[bumps(back, 26, 0.11)], front=[bumps(other, 17, 0.085, 0.3), bumps(side, 20, 0.085)], shine=0.45
    )
    places = [
        (0.3, -0.86),
        (0.7, -0.66),
        (-0.5, -0.9),
        (0.1, -1.16),
        (0.58, -1.04),
        (1.06, -0.3),
        (1.12, 0.2),
        (1.1, 0.68),
        (-0.9, -0.56),
        (-1.1, -0.1),
        (-1.1, 0.4),
        (-1.08, 0.8),
        (-0.2, -1.2),
    ]
    style.strands = coils(places, 0.12)
    return style


def locs(who: Character) -> Style:
    """Ropes of hair around the face."""
    v = who.hair_volume
    style = Style(shine=0.5)
    for n, x in enumerate(np.linspace(-1.15, 1.15, 12)):
        end = 1.3 + 0.14 * np.sin(n * 1.9)
        style.back.append(
            locks(
                [(0.55 * x, -0.8, BACK), (0.95 * x, -0.45, BACK), (1.08 * x, 0.3, BACK), (1.05 * x, end, BACK)],
                0.21,
                0.75,
                0.01,
            )
        )
    hairline = [(0.97, -0.05), (0.84, -0.42), (0.5, -0.66), (0.0, -0.74), (-0.5, -0.66), (-0.84, -0.42), (-0.97, -0.05)]
    style.front.append(closed(arc(-94, 94, 0.1 * v, 0.2 * v), at(hairline)))
    # From the parting outwards; those nearest to the face hang last, over the others.
    hanging = ((1.0, 1.18, 1.22), (0.94, 1.1, 1.06), (0.84, 1.02, 1.16), (0.72, 0.95, 0.82))
    for n, side in enumerate((1.0, -1.0)):
        for k, (top, out, end) in enumerate(hanging):
            low = end + 0.08 * np.sin(3 * n + 2.2 * k)
            path = [
                (side * top * 0.3, -1.16 + 0.06 * k, 0.2),
                (side * top, -0.66 + 0.03 * k, 0.25),
                (side * out, 0.0, 0.15),
                (side * (out + 0.02), low, 0.12),
            ]
            style.front.append(locks(path, 0.17, 0.75, 0.008))
            edge = np.array(path) - [side * 0.07, 0, 0]
            style.strands.append(curve(edge)[6:-3])
    for x in (-0.44, -0.16, 0.12, 0.4):
        style.strands.append(curve(at([(x, -0.76), (x * 0.8, -0.96), (x * 0.5, -1.12)])))
    return style


STYLES: dict[str, Maker] = {
    "bob": bob,
    "fringe": fringe,
    "straight": straight,
    "wavy": wavy,
    "curls": curls,
    "locs": locs,
}
